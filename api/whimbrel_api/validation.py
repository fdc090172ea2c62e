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
    backoff: Annotated[Duration, Within("1ms", "10m")] = "500ms"


class Report(Model):
    """How much detail is kept."""

    max_differences: int = Field(default=1000, ge=0, le=1_000_000, description="How many differences are listed.")
    redact: bool = Field(default=False, description="List keys only, no values.")


class ValidationSpec(Model):
    """What is compared, and how. Either a Migration is named or both ends are."""

    migration_ref: SecretRef | None = None
    source: Source | None = None
    target: Target | None = None
    tables: Tables = Tables()
    mode: CheckMode = Field(default="Full", description="Every row, or a sample of a DynamoDB table's items.")
    sample_rows: SampleRows = 1000
    workers: int = Field(default=1, ge=1, le=64, description="How many processes share the comparison.")
    rate_limit: RateLimit | None = None
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

    observed_generation: int = 0
    phase: ValidationPhase = ValidationPhase.PENDING
    result: CheckResult | None = None
    tables_compared: int = 0
    rows_compared: int = 0
    rows_per_second: float = 0.0
    sampled: bool = Field(default=False, description="Whether only a sample was compared.")
    compared: str = Field(default="", max_length=300, description="What was compared, where it was not every row.")
    differences: Differences = Differences()
    inconclusive: int = 0
    validated_through: str = Field(default="", max_length=16384)
    progress: str = ""
    remaining: str = Field(default="", description="eta for a reader: 21m5s.")
    eta: float | None = None
    report: str = Field(default="", max_length=4096)
    completed_at: Moment | None = None
    conditions: list[Condition] = Field(default=[], max_length=32)


class Validation(Model):
    """A comparison of source and target."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["Validation"] = "Validation"
    metadata: ObjectMeta
    spec: ValidationSpec
    status: ValidationStatus = ValidationStatus()
