"""The ReverseSync resource: changes flow back from a PolarDB target into the former source. Types alone."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from whimbrel_api.base import (
    API_VERSION,
    Condition,
    Duration,
    Host,
    Identifier,
    Model,
    Moment,
    ObjectMeta,
    Port,
    Region,
    SecretRef,
    Tls,
    Within,
    require_one_origin,
)
from whimbrel_api.migration import Tables


class PolarDBSource(Model):
    """A PolarDB for PostgreSQL server whose log is read. The Secret holds `username` and `password`."""

    host: Host
    port: Port = 5432
    database: Identifier
    credentials_secret_ref: SecretRef
    tls: Tls = Tls()


class DynamoDBTarget(Model):
    """DynamoDB, or what speaks its protocol at `endpoint`. Without a Secret the process's own AWS identity is used."""

    region: Region
    endpoint: str = Field(
        default="", max_length=2048, pattern=r"^(https?://[^\s/]+\S*)?$", description="A URL; AWS's own when empty."
    )
    credentials_secret_ref: SecretRef | None = None


class ReverseSource(Model):
    """Exactly one kind of source."""

    polardb: PolarDBSource


class ReverseTarget(Model):
    """Exactly one kind of target."""

    dynamodb: DynamoDBTarget


class KeyColumn(Model):
    """A key column and its DynamoDB type. Written out, as the letter N alone is a boolean to many YAML readers."""

    name: Identifier
    type: Literal["String", "Number", "Binary"] = Field(description="What DynamoDB calls S, N and B.")


class Layout(Model):
    """How items stand in the server's tables: the document's column, the keys, and the rule for a table's name."""

    document_column: Identifier | None = None
    key_columns: list[KeyColumn] = Field(
        default=[],
        max_length=4,
        description="The partition key's column, then the sort key's, one for each type; by the attributes' names when "
        "empty.",
    )
    table_rule: str = Field(
        default="",
        max_length=200,
        description="How the server calls a table: schema.prefix{table}suffix; public.{table} when empty.",
    )


class Cleanup(Model):
    """What a deleted ReverseSync takes away of the things that it made."""

    drop_slot: bool = Field(default=True, description="Drop the replication slot, if it was made here.")
    drop_publication: bool = Field(default=True, description="Drop the publication, if it was made here.")


class ReverseSyncSpec(Model):
    """Which changes flow back, and how. Either a Migration is named or both ends are."""

    migration_ref: SecretRef | None = None
    source: ReverseSource | None = None
    target: ReverseTarget | None = None
    slot_name: str = Field(
        default="", max_length=63, pattern=r"^[a-z0-9_]*$", description="The replication slot; made up when empty."
    )
    publication_name: str = Field(default="", max_length=63, description="The publication; made up when empty.")
    create_publication: bool = Field(default=True, description="Make the publication if it is missing.")
    layout: Layout = Layout()
    tables: Tables = Tables()
    checkpoint_interval: Annotated[Duration, Within("100ms", "1h")] = "3s"
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

    name: str = ""
    active: bool = False
    wal_status: str = ""
    retained_bytes: int | None = None


class ReverseSyncStatus(Model):
    """Where the stream back stands. `lagSeconds` is null when it is not known."""

    observed_generation: int = 0
    phase: ReverseSyncPhase = ReverseSyncPhase.PENDING
    slot: SlotStatus = SlotStatus()
    lag: str = Field(default="", description="lagSeconds for a reader: 0.4s, 3m20s, unknown.")
    lag_seconds: float | None = None
    lag_observed_at: Moment | None = None
    position: str = Field(default="", max_length=16384)
    changes_applied: int = 0
    conditions: list[Condition] = Field(default=[], max_length=32)


class ReverseSync(Model):
    """Changes on their way back."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["ReverseSync"] = "ReverseSync"
    metadata: ObjectMeta
    spec: ReverseSyncSpec
    status: ReverseSyncStatus = ReverseSyncStatus()
