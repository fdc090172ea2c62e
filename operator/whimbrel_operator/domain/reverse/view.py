"""One observation of a ReverseSync as its table reads it, and the work that it describes. Nothing is decided here."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from whimbrel_api.base import ObjectMeta
from whimbrel_api.cutover import CutoverState, RollbackStatus
from whimbrel_api.endpoints import Dialect, DynamoDBTarget, Source, Target
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard, own_name
from whimbrel_api.migration import Migration, Phase
from whimbrel_api.reports import ReverseResult, UnreadLog, WorkerReport
from whimbrel_api.reverse_sync import (
    Resolved,
    ReverseDynamoDB,
    ReverseSource,
    ReverseSyncPhase,
    ReverseSyncSpec,
    ReverseSyncStatus,
    ReverseTarget,
)
from whimbrel_api.tasks import ReverseOptions
from whimbrel_operator.domain.decision import Work
from whimbrel_operator.domain.observed import ObservedReverseSync, TaskState

REVERSE, DISARM = "reverse", "disarm"
_FORWARD_IS_OVER = (CutoverState.ARMING_REVERSE, CutoverState.ROLLING_BACK)

_HELD_IN_PLACE = {
    "source": "source",
    "target": "target",
    "slot_name": "slotName",
    "publication_name": "publicationName",
}


@dataclass(frozen=True)
class ReverseView:
    """An observation of a ReverseSync at a moment."""

    observed: ObservedReverseSync
    now: datetime

    @property
    def meta(self) -> ObjectMeta:
        """Its name, namespace, generation and uid."""
        return self.observed.resource.metadata

    @property
    def spec(self) -> ReverseSyncSpec:
        """What is asked for."""
        return self.observed.resource.spec

    @property
    def status(self) -> ReverseSyncStatus:
        """What was last reported."""
        return self.observed.resource.status

    @property
    def owner(self) -> str:
        """The mark of all that is made for it on the server."""
        return f"{self.meta.namespace}/{self.meta.name}/{self.meta.uid}"

    @property
    def slot_name(self) -> str:
        """The replication slot's name."""
        return self.options.slot_name or own_name(self.owner)

    @property
    def publication_name(self) -> str:
        """The publication's name."""
        return self.options.publication_name or own_name(self.owner)

    @cached_property
    def resolved(self) -> Resolved | None:
        """What holds: what is asked for, but at the ends and under the names with which the work was begun."""
        asked, begun = self.asked, self.status.resolved
        if asked is None or begun is None or self.status.phase is ReverseSyncPhase.PENDING:
            return asked
        return _as_begun(begun, asked)

    @property
    def moved(self) -> tuple[str, ...]:
        """What is asked for otherwise than the work was begun with, and is not followed."""
        asked, holds = self.asked, self.resolved
        if asked is None or holds is None:
            return ()
        return tuple(alias for name, alias in _HELD_IN_PLACE.items() if getattr(asked, name) != getattr(holds, name))

    @cached_property
    def asked(self) -> Resolved | None:
        """Its ends and rules: its own, or the Migration's. None while that does not tell them.

        Where the Migration is gone, or has no way back any more, what it said last holds. Its own rules and tables
        overrule the Migration's, where it has any.
        """
        spec = self.spec
        if spec.source is not None and spec.target is not None:
            return Resolved(
                source=spec.source,
                target=spec.target,
                tables=spec.tables,
                layout=spec.layout,
                guard=spec.guard,
                on_truncate=spec.on_truncate,
                slot_name=spec.slot_name,
                publication_name=spec.publication_name,
            )
        migration = self.observed.migration
        found = (of_migration(migration) if migration is not None else None) or self.status.resolved
        return _overruled(found, spec) if found is not None else None

    @cached_property
    def work(self) -> Work | None:
        """What its tasks work on; None while its ends are not known."""
        found = self.resolved
        return work_of(found, f"{self.meta.namespace}/{self.meta.name}") if found is not None else None

    @property
    def options(self) -> ReverseOptions:
        """What its tasks are told beside their ends."""
        spec, found = self.spec, self.resolved
        rules = {"layout": found.layout, "guard": found.guard, "on_truncate": found.on_truncate} if found else {}
        return ReverseOptions(
            owner=self.owner,
            slot_name=found.slot_name if found else spec.slot_name,
            publication_name=found.publication_name if found else spec.publication_name,
            create_publication=spec.create_publication,
            checkpoint_interval=spec.checkpoint_interval,
            drop_slot=spec.cleanup.drop_slot,
            drop_publication=spec.cleanup.drop_publication,
        ).model_copy(update=rules)

    @property
    def worker(self) -> TaskState | None:
        """The worker that brings changes back."""
        return self.observed.tasks.find(REVERSE)

    @property
    def disarmer(self) -> TaskState | None:
        """The worker that takes slot and publication away."""
        return self.observed.tasks.find(DISARM)

    @property
    def last_word(self) -> WorkerReport | None:
        """The newest report of the worker, whatever its age."""
        return self.worker.word if self.worker is not None else None

    @property
    def last_seen(self) -> ReverseResult | None:
        """Where the worker said last that it stands."""
        return self.last_word.reverse if self.last_word is not None else None

    @property
    def fresh(self) -> ReverseResult | None:
        """The same, by a fresh report of a running worker."""
        word = self.worker.fresh_word(self.now) if self.worker is not None else None
        return word.reverse if word is not None else None

    @property
    def unread(self) -> UnreadLog | None:
        """What stood in the slot's log unread, as a worker said last; None for nothing."""
        words = [state.word for state in (self.disarmer, self.worker) if state is not None]
        found = [word.reverse.unread for word in words if word is not None and word.reverse is not None]
        ending = self.status.unread if self.meta.deletion_timestamp is not None else None
        return next((each for each in found if each is not None), ending)

    @property
    def after_rollback(self) -> bool:
        """Whether the traffic of the Migration that it belongs to is at the source again: what is unread is missed."""
        migration = self.observed.migration
        if migration is None or not self.meta.belongs_to(migration.metadata.uid):
            return False
        return migration.status.cutover.state is CutoverState.ROLLED_BACK

    @property
    def armed(self) -> bool:
        """Whether the worker has said that nothing can be lost any more."""
        return self.last_seen is not None and self.last_seen.armed

    @property
    def lacks(self) -> str:
        """What must be put right before its ends are known; or empty."""
        ref, migration = self.spec.migration_ref, self.observed.migration
        if self.resolved is not None or ref is None or migration is None:
            return ""
        if migration.spec.source.dynamodb is None:
            kind = migration.spec.source.kind
            return (
                f"Migration {ref.name} has no way back: its source is {kind}, and changes flow back to DynamoDB only; "
                f"delete this resource: {self.delete_command}"
            )
        return (
            f"Migration {ref.name} does not say where PolarDB's own server is; name it in its spec.reverseSync.polardb "
            "with host, database and credentialsSecretRef"
        )

    @property
    def waits_for(self) -> str:
        """Why nothing may flow back yet, or any more: the forward stream of the Migration still writes. Or empty."""
        ref, migration = self.spec.migration_ref, self.observed.migration
        if ref is None:
            return ""
        if migration is None:
            missing = f"Migration {ref.name} not found in namespace {self.meta.namespace}; make it first"
            return "" if self.status.resolved is not None else missing
        if _forward_is_over(migration):
            return ""
        status = migration.status
        if status.phase is Phase.CANCELLED:
            return f"Migration {ref.name} is Cancelled, so no way leads back through it; name source and target instead"
        return (
            f"Migration {ref.name} is in {status.phase}/{status.cutover.state}; until it is Completed its forward "
            "stream may write to PolarDB, and that must not flow back"
        )

    @property
    def rollback(self) -> RollbackStatus:
        """Where the rollback of the Migration that it belongs to stands; an empty one without any."""
        migration = self.observed.migration
        if migration is None or migration.status.cutover.state is not CutoverState.ROLLING_BACK:
            return RollbackStatus()
        return migration.status.cutover.rollback if self.meta.belongs_to(migration.metadata.uid) else RollbackStatus()

    @property
    def delete_command(self) -> str:
        """How a person deletes it."""
        return f"kubectl delete reversesync {self.meta.name} -n {self.meta.namespace}"


def work_of(found: Resolved, name: str) -> Work:
    """What tasks between these ends work on. `name`: namespace/name, under which DynamoDB keeps how far they are."""
    items = found.target.dynamodb
    target = DynamoDBTarget(
        endpoint=items.endpoint,
        region=items.region,
        dialect=Dialect.AWS,
        credentials_secret_ref=items.credentials_secret_ref,
        role_arn=items.role_arn,
        fenced_writes=items.fenced_writes,
        tls=items.tls,
    )
    source = Source(polardb=found.source.polardb)
    return Work(migration=name, source=source, target=Target(dynamodb=target), tables=found.tables)


def _forward_is_over(migration: Migration) -> bool:
    """Whether the forward stream has ended: from then on no change in PolarDB's log is an echo of the source's."""
    status = migration.status
    return status.phase is Phase.COMPLETED or status.cutover.state in _FORWARD_IS_OVER


def of_migration(migration: Migration) -> Resolved | None:
    """What a Migration says of its way back; None where it has none."""
    spec, policy = migration.spec, migration.spec.reverse_sync
    items = spec.source.dynamodb
    if items is None or policy.polardb is None:
        return None
    back = ReverseDynamoDB(
        region=items.region,
        endpoint=items.endpoint,
        credentials_secret_ref=items.credentials_secret_ref,
        role_arn=items.role_arn,
        fenced_writes=policy.fenced_writes,
        tls=items.tls,
    )
    return Resolved(
        source=ReverseSource(polardb=policy.polardb),
        target=ReverseTarget(dynamodb=back),
        tables=spec.tables,
        layout=policy.layout,
        guard=policy.guard,
        on_truncate=policy.on_truncate,
    )


def _overruled(found: Resolved, spec: ReverseSyncSpec) -> Resolved:
    """The same with what the ReverseSync says of its own. Include and exclude belong together."""
    own: dict[str, object] = {"slot_name": spec.slot_name, "publication_name": spec.publication_name}
    own |= {"layout": spec.layout} if spec.layout != Layout() else {}
    own |= {"guard": spec.guard} if spec.guard != SlotGuard() else {}
    own |= {"on_truncate": spec.on_truncate} if spec.on_truncate is not OnTruncate.STOP else {}
    tables = spec.tables
    chosen: dict[str, object] = {"overrides": tables.overrides} if tables.overrides else {}
    chosen |= {"include": tables.include, "exclude": tables.exclude} if tables.include or tables.exclude else {}
    return found.model_copy(update=own | {"tables": found.tables.model_copy(update=chosen)})


def _as_begun(begun: Resolved, asked: Resolved) -> Resolved:
    """What is asked for at the ends of what was begun, which alone know what was made there.

    Credentials and TLS may change, as Secrets do, and how a write is fenced.
    """
    server, items = asked.source.polardb, asked.target.dynamodb
    server = begun.source.polardb.model_copy(
        update={"credentials_secret_ref": server.credentials_secret_ref, "tls": server.tls}
    )
    now = {"credentials_secret_ref": items.credentials_secret_ref, "tls": items.tls}
    items = begun.target.dynamodb.model_copy(update={**now, "fenced_writes": items.fenced_writes})
    return asked.model_copy(
        update={
            "source": ReverseSource(polardb=server),
            "target": ReverseTarget(dynamodb=items),
            "slot_name": begun.slot_name,
            "publication_name": begun.publication_name,
        }
    )
