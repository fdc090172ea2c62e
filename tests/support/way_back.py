"""One ReverseSync on a memory runtime: its worker's world, and passes over it. For tests."""

import asyncio

from support.memory_runtime import MemoryRuntime, migration
from support.world import Failure, World
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.cutover import CutoverState, CutoverStatus
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, PolarDBSource, Source, Target
from whimbrel_api.migration import Migration, MigrationStatus, Phase, ReverseSyncPolicy, Tables
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.reverse_sync import (
    ReverseDynamoDB,
    ReverseSource,
    ReverseSync,
    ReverseSyncPhase,
    ReverseSyncSpec,
    ReverseSyncStatus,
    ReverseTarget,
)
from whimbrel_api.tasks import ExitCode
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.reconcile import Outcome, Reconciler
from whimbrel_operator.runtime.port import Key

POLARDB = PolarDBSource(host="pc-xyz", port=1921, credentials_secret_ref=SecretRef(name="polardb"))
ITEMS = ReverseDynamoDB(region="us-east-1", credentials_secret_ref=SecretRef(name="aws"))
ALONE = ReverseSyncSpec(source=ReverseSource(polardb=POLARDB), target=ReverseTarget(dynamodb=ITEMS))
NAMED = ReverseSyncSpec(migration_ref=SecretRef(name="shop"))
META = ObjectMeta(name="back", namespace="default", generation=3, uid="u1")
KEY = Key("default", "ReverseSync", "back")
AWAY = Failure(
    code=ExitCode.FAILED,
    error=ReportedError(category=ErrorCategory.TRANSIENT, what="the server does not answer", where="pc-xyz:1921"),
)


def back(spec: ReverseSyncSpec = ALONE, status: ReverseSyncStatus | None = None) -> ReverseSync:
    return ReverseSync(metadata=META, spec=spec, status=status or ReverseSyncStatus())


def forward(phase: Phase = Phase.COMPLETED, state: CutoverState = CutoverState.SWITCHED, **policy: object) -> Migration:
    """The Migration that a way back belongs to."""
    theirs = DynamoDBTarget(endpoint="http://pc-xyz:5432", credentials_secret_ref=SecretRef(name="dst"))
    return migration(
        MigrationStatus(phase=phase, cutover=CutoverStatus(state=state)),
        source=Source(dynamodb=DynamoDBSource(region="eu-west-1", credentials_secret_ref=SecretRef(name="aws"))),
        target=Target(dynamodb=theirs),
        tables=Tables(include=["orders", "users"]),
        reverse_sync=ReverseSyncPolicy.model_validate({"polardb": POLARDB, **policy}),
    )


class Life:
    """One ReverseSync, its worker's world, and passes over it."""

    def __init__(self, spec: ReverseSyncSpec = ALONE, named: Migration | None = None) -> None:
        self.runtime = MemoryRuntime(World(), back(spec), migration=named)
        self.reconciler = Reconciler(self.runtime, self.runtime.clock)

    def turn(self, seconds: float = 1.0) -> Outcome:
        self.runtime.advance(seconds)
        return asyncio.run(self.reconciler.reconcile(KEY))

    def turns(self, count: int) -> Outcome:
        return [self.turn() for _ in range(count)][-1]

    @property
    def status(self) -> ReverseSyncStatus:
        assert isinstance(self.runtime.resource, ReverseSync)
        return self.runtime.resource.status

    def said(self, kind: str) -> tuple[str, str]:
        found = find(self.status.conditions, kind)
        assert found is not None
        return found.status, found.reason

    def message(self, kind: str) -> str:
        found = find(self.status.conditions, kind)
        assert found is not None
        return found.message

    def delete(self) -> None:
        marked = self.runtime.resource.metadata.model_copy(update={"deletion_timestamp": self.runtime.now})
        self.runtime.resource = self.runtime.resource.model_copy(update={"metadata": marked})

    def spec(self, **change: object) -> None:
        self.runtime.patch(**change)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.runtime.events]

    @property
    def running(self) -> set[str]:
        return {ref.task_id for ref, (state, _) in self.runtime.instances.items() if state.running}


def streaming() -> Life:
    """A way back that streams."""
    found = Life()
    found.turns(4)
    assert found.status.phase is ReverseSyncPhase.STREAMING
    return found
