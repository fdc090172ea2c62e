"""What a decision is made of: the next status, the tasks that are wanted, the events. How is told in decide."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from whimbrel_api.acknowledgements import Proof
from whimbrel_api.endpoints import Source, Target
from whimbrel_api.migration import Migration, MigrationStatus, Mode, Schema, Snapshot, Stream, Tables
from whimbrel_api.reverse_sync import ReverseSyncSpec, ReverseSyncStatus
from whimbrel_api.tasks import (
    CheckOptions,
    FenceOptions,
    FreezeOptions,
    Orders,
    ReverseOptions,
    SchemaStage,
    TaskKind,
    WritersOptions,
)
from whimbrel_api.validation import ValidationStatus
from whimbrel_operator.domain.hook_jobs import WantedHook
from whimbrel_operator.domain.observed import Memory, TaskRef


@dataclass(frozen=True)
class Work:
    """The part of a task that is the same for all tasks of a resource. `migration` is `namespace/name`."""

    migration: str
    source: Source
    target: Target
    tables: Tables = field(default_factory=Tables)
    mode: Mode = Mode.SNAPSHOT_AND_STREAM
    schema: Schema = field(default_factory=Schema)
    snapshot: Snapshot = field(default_factory=Snapshot)
    stream: Stream = field(default_factory=Stream)

    @classmethod
    def of(cls, resource: Migration) -> "Work":
        """The work that a Migration describes."""
        meta, spec = resource.metadata, resource.spec
        return cls(
            migration=f"{meta.namespace}/{meta.name}",
            source=spec.source,
            target=spec.target,
            tables=spec.tables,
            mode=spec.mode,
            schema=spec.schema_,
            snapshot=spec.snapshot,
            stream=spec.stream,
        )

    def secret_names(self) -> tuple[str, ...]:
        """The Secrets that a worker needs, sorted."""
        source, target = self.source, self.target
        ends = (source.mysql, source.dynamodb, source.polardb, target.aurora_dsql, target.postgresql, target.dynamodb)
        refs = [ref for end in ends if end for ref in (end.credentials_secret_ref, end.tls.ca_secret_ref) if ref]
        return tuple(sorted({ref.name for ref in refs}))


@dataclass(frozen=True)
class WantedTask:
    """A task instance that shall exist. `start` False: keep what is there, start nothing (a backoff, a missing Secret).

    `again`: a finished one is started again, because the task has no end of its own. What is not wanted is removed.
    """

    kind: TaskKind
    ref: TaskRef
    work: Work
    workers: int = 1
    epoch: int = 0
    generation: int = 0
    start: bool = True
    again: bool = False
    look_only: bool = False
    collect: bool = False
    schema_stage: SchemaStage = SchemaStage.TABLES
    check: CheckOptions = field(default_factory=CheckOptions)
    freeze: FreezeOptions = field(default_factory=FreezeOptions)
    fence: FenceOptions = field(default_factory=FenceOptions)
    reverse: ReverseOptions = field(default_factory=ReverseOptions)
    proof: Proof = field(default_factory=Proof)
    writers: WritersOptions = field(default_factory=WritersOptions)
    orders: Orders = field(default_factory=Orders)

    @property
    def spool_claim(self) -> str:
        """The volume that this task needs for changes of its own; empty for none."""
        spool = self.work.stream.spool
        return spool.claim_name if spool is not None and self.kind is TaskKind.STREAM else ""

    @property
    def fingerprint(self) -> str:
        """Changes when a running instance would do something else than is wanted now, orders apart.

        What it writes down of that does not count: another plan has other tasks, whose ids or options differ.
        """
        work = self.work
        stream = work.stream.model_copy(update={"workers": 1})  # told by an order, as that of the copy
        models = (work.source, work.target, work.tables, work.schema, stream, self.freeze, self.fence)
        # Without defaults: a field that a later version adds must not restart what runs.
        told = [model.model_dump(mode="json", by_alias=True, exclude_defaults=True) for model in models]
        unlike = {"rows_per_second", "report_file"}
        told.append(self.check.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=unlike))
        if self.collect:
            told.append({"collect": True})
        if self.reverse != ReverseOptions():
            told.append({"reverse": self.reverse.model_dump(mode="json", by_alias=True, exclude_defaults=True)})
        if self.writers != WritersOptions():
            told.append({"writers": self.writers.model_dump(mode="json", by_alias=True, exclude_defaults=True)})
        text = json.dumps([self.kind, self.schema_stage, work.migration, work.mode, *told], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Event:
    """Something a person cares about."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class WantedWayBack:
    """A ReverseSync of the Migration's own that may be there. `make`: it is made where it is missing."""

    name: str
    spec: ReverseSyncSpec
    make: bool = False


@dataclass(frozen=True)
class Decision:
    """What shall be so for a Migration. Made again from the same observation it is the same.

    A ReverseSync of its own that is not in `ways_back` is deleted; those of others are left alone. `unwanted_hooks`
    names the runs of hooks whose Jobs shall go. Other Jobs of hooks stay, as a record.
    """

    status: MigrationStatus
    wanted: tuple[WantedTask, ...] = ()
    events: tuple[Event, ...] = ()
    memory: Memory = field(default_factory=Memory)
    hooks: tuple[WantedHook, ...] = ()
    unwanted_hooks: tuple[str, ...] = ()
    ways_back: tuple[WantedWayBack, ...] = ()


@dataclass(frozen=True)
class ValidationDecision:
    """What shall be so for a Validation."""

    status: ValidationStatus
    wanted: tuple[WantedTask, ...] = ()
    events: tuple[Event, ...] = ()
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True)
class ReverseSyncDecision:
    """What shall be so for a ReverseSync. `released`: it is being deleted, and nothing holds it back any more."""

    status: ReverseSyncStatus
    wanted: tuple[WantedTask, ...] = ()
    events: tuple[Event, ...] = ()
    memory: Memory = field(default_factory=Memory)
    released: bool = False
