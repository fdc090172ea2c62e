"""The ReverseSync resource: changes flow back from a PolarDB target into the former source. Types alone."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from whimbrel_api.base import (
    API_VERSION,
    Condition,
    Duration,
    Model,
    Moment,
    ObjectMeta,
    Region,
    SecretRef,
    Tls,
    Within,
    require_one_origin,
)
from whimbrel_api.endpoints import PolarDBSource, RoleArn, Url
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard
from whimbrel_api.migration import Tables, TableStatus
from whimbrel_api.reports import UnreadLog


class ReverseDynamoDB(Model):
    """DynamoDB, or what speaks its protocol at `endpoint`. Without a Secret the process's own AWS identity is used.

    With `fencedWrites` every write is a transaction that checks the worker's own control row: none of a worker that
    stood still lands once its successor has the row. It costs twice the write units.
    """

    region: Region = Field(description="The tables' region, such as us-east-1.")
    endpoint: Url | None = Field(default=None, description="Another endpoint than AWS's own of that region.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="With `accessKeyId`, `secretAccessKey`, `sessionToken`; without it the pod's own AWS identity.",
    )
    role_arn: RoleArn | None = Field(default=None, description="The role that is assumed with these keys.")
    fenced_writes: bool = Field(default=False, description="Whether each write checks the epoch in its transaction.")
    tls: Tls = Tls()


class ReverseSource(Model):
    """Exactly one kind of source."""

    polardb: PolarDBSource


class ReverseTarget(Model):
    """Exactly one kind of target."""

    dynamodb: ReverseDynamoDB


class Cleanup(Model):
    """What a deleted ReverseSync takes away of the things that it made."""

    drop_slot: bool = Field(default=True, description="Drop the replication slot, if it was made here.")
    drop_publication: bool = Field(default=True, description="Drop the publication, if it was made here.")


class ReverseSyncSpec(Model):
    """Which changes flow back, and how. Either a Migration is named or both ends are."""

    migration_ref: SecretRef | None = Field(
        default=None, description="The Migration whose cutover it leads back from, in place of `source` and `target`."
    )
    source: ReverseSource | None = Field(default=None, description="Where changes come from.")
    target: ReverseTarget | None = Field(default=None, description="Where changes go to.")
    slot_name: str = Field(
        default="", max_length=63, pattern=r"^[a-z0-9_]*$", description="The replication slot; made up when empty."
    )
    publication_name: str = Field(default="", max_length=63, description="The publication; made up when empty.")
    create_publication: bool = Field(default=True, description="Make the publication if it is missing.")
    layout: Layout = Layout()
    guard: SlotGuard = SlotGuard()
    on_truncate: OnTruncate = Field(
        default=OnTruncate.STOP,
        description="What becomes of a TRUNCATE on the server, which names no items: stop, or pass it over.",
    )
    tables: Tables = Tables()
    checkpoint_interval: Annotated[Duration, Within("100ms", "1h")] = Field(
        default="3s", description="How often the position is kept."
    )
    paused: bool = Field(default=False, description="Hold the stream; the slot keeps the log.")
    cleanup: Cleanup = Cleanup()

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        require_one_origin(self.migration_ref, self.source, self.target)
        return self


class ReverseSyncPhase(StrEnum):
    """How far the stream back is."""

    PENDING = "Pending"
    ARMING = "Arming"
    STREAMING = "Streaming"
    STOPPED = "Stopped"


class SlotStatus(Model):
    """The replication slot as the server reports it."""

    name: str = Field(default="", description="The slot's name.")
    active: bool = Field(default=False, description="Whether somebody reads it.")
    wal_status: str = Field(
        default="",
        description="The server's own word: reserved, extended, unreserved or lost; empty where it is not known.",
    )
    retained_bytes: int | None = Field(
        default=None, description="How much of the log it holds back; null where it is not known."
    )


class Resolved(Model):
    """What holds for the way back, by its own say and its Migration's.

    Kept so that the Migration's end does not end it, and that what was made at these ends is taken away there.
    """

    source: ReverseSource = Field(description="Where changes come from.")
    target: ReverseTarget = Field(description="Where changes go to.")
    tables: Tables = Tables()
    layout: Layout = Layout()
    guard: SlotGuard = SlotGuard()
    on_truncate: OnTruncate = OnTruncate.STOP
    slot_name: str = Field(default="", max_length=63, description="The slot's name.")
    publication_name: str = Field(default="", max_length=63, description="The publication's name.")


class ReverseSyncStatus(Model):
    """Where the stream back stands. `lagSeconds` is null when it is not known."""

    observed_generation: int = Field(default=0, description="The generation of the spec that the status speaks of.")
    phase: ReverseSyncPhase = ReverseSyncPhase.PENDING
    slot: SlotStatus = SlotStatus()
    lag: str = Field(default="", description="lagSeconds for a reader: 0.4s, 3m20s, unknown.")
    lag_seconds: float | None = Field(
        default=None, description="How far DynamoDB is behind; null where that is not known."
    )
    lag_observed_at: Moment | None = Field(default=None, description="When that was measured.")
    position: str = Field(
        default="", max_length=16384, description="Up to where DynamoDB has everything, as an LSN such as 0/16B3748."
    )
    end_of_log: str = Field(default="", max_length=64, description="The end of the server's log, while it is known.")
    drained_to: str = Field(default="", max_length=64, description="The position of a rollback that DynamoDB holds.")
    proven_at: Moment | None = Field(
        default=None, description="Everything committed before has come back; null where nothing proves it lately."
    )
    quiet_seconds: float | None = Field(
        default=None, description="For how long the tables have not changed; null where that is not known."
    )
    held: bool = Field(
        default=False, description="Whether a rollback holds it: nothing is taken, nor on its way to DynamoDB."
    )
    changes_applied: int = Field(default=0, description="How many changes the present worker has written.")
    last_change_time: Moment | None = Field(default=None, description="When the newest of them was committed.")
    last_change_position: str = Field(
        default="",
        max_length=64,
        description="The newest commit of a change that the worker has heard of, carried or not.",
    )
    unread: UnreadLog | None = Field(
        default=None,
        description="What stands in the slot's log while a rollback holds it, or was left when it was dropped.",
    )
    resolved: Resolved | None = None
    tables: list[TableStatus] = Field(
        default=[], max_length=100, description="One entry for each table, at most 100, those that have stopped first."
    )
    conditions: list[Condition] = Field(
        default=[], max_length=32, description="What holds and what does not, each with reason and message."
    )


class ReverseSync(Model):
    """Changes on their way back."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["ReverseSync"] = "ReverseSync"
    metadata: ObjectMeta
    spec: ReverseSyncSpec
    status: ReverseSyncStatus = ReverseSyncStatus()
