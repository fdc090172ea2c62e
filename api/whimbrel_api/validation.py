"""The Validation resource: a comparison of source and target, on its own or for a Migration."""

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
    SecretRef,
    Within,
    require_one_origin,
)
from whimbrel_api.endpoints import Source, Target
from whimbrel_api.migration import CheckMode, CheckResult, Differences, RateLimit, SampleRows, Tables


class Recheck(Model):
    """How often and how patiently a row in flight is looked at again."""

    attempts: int = Field(default=5, ge=0, le=100, description="How often a row that differs is looked at again.")
    backoff: Annotated[Duration, Within("1ms", "10m")] = Field(
        default="500ms", description="How long to wait before each of these looks."
    )


class Report(Model):
    """How much detail is kept."""

    max_differences: int = Field(default=1000, ge=0, le=1_000_000, description="How many differences are listed.")
    redact: bool = Field(default=False, description="Show digests in place of values and of keys that are text.")


class ValidationSpec(Model):
    """What is compared, and how. Either a Migration is named or both ends are."""

    migration_ref: SecretRef | None = Field(
        default=None, description="The Migration whose ends and tables are compared, in place of `source` and `target`."
    )
    source: Source | None = Field(default=None, description="What is compared; exactly one kind.")
    target: Target | None = Field(default=None, description="With what it is compared; exactly one kind.")
    tables: Tables = Tables()
    mode: CheckMode = Field(default="Full", description="Every row, or a sample of a DynamoDB table's items.")
    sample_rows: SampleRows = 1000
    workers: int = Field(default=1, ge=1, le=64, description="How many processes share the comparison.")
    rate_limit: RateLimit | None = Field(default=None, description="The most rows per second, all workers together.")
    recheck: Recheck = Recheck()
    report: Report = Report()

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        require_one_origin(self.migration_ref, self.source, self.target)
        return self


class ValidationPhase(StrEnum):
    """How far the comparison is."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"


class ValidationStatus(Model):
    """What the comparison found. `eta` in seconds; `report` names the file with the differences."""

    observed_generation: int = Field(default=0, description="The generation of the spec that the status speaks of.")
    phase: ValidationPhase = ValidationPhase.PENDING
    result: CheckResult | None = Field(
        default=None, description="Equal, Different or Inconclusive; absent until it has ended."
    )
    tables_compared: int = Field(default=0, description="How many tables were compared.")
    rows_compared: int = Field(default=0, description="How many rows were compared.")
    rows_per_second: float = Field(default=0.0, description="How fast it is now.")
    sampled: bool = Field(default=False, description="Whether only a sample was compared.")
    compared: str = Field(default="", max_length=300, description="What was compared, where it was not every row.")
    differences: Differences = Differences()
    inconclusive: int = Field(default=0, description="Rows that changed too fast to be compared.")
    validated_through: str = Field(
        default="", max_length=16384, description="The source's position that the result speaks of."
    )
    progress: str = Field(default="", description="How much of the rows is compared, such as 42%.")
    remaining: str = Field(default="", description="eta for a reader: 21m5s.")
    eta: float | None = Field(
        default=None, description="How many seconds it still takes; null where that is not known."
    )
    report: str = Field(
        default="",
        max_length=4096,
        description="The file with the differences; on a cluster it is in the worker's pod and goes with it.",
    )
    completed_at: Moment | None = Field(default=None, description="When it ended.")
    conditions: list[Condition] = Field(
        default=[], max_length=32, description="What holds and what does not, each with reason and message."
    )


class Validation(Model):
    """A comparison of source and target."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["Validation"] = "Validation"
    metadata: ObjectMeta
    spec: ValidationSpec
    status: ValidationStatus = ValidationStatus()
