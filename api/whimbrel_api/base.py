"""What every noun shares: the base model, names and references. No resource stands here."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from whimbrel_api.durations import seconds

GROUP: Final = "whimbrel.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "whimbrel.dev/v1alpha1"

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="A Kubernetes name: lower-case letters, digits, dots and dashes.",
    ),
]
SecretKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[-._a-zA-Z0-9]+$",
        description="A key of a Secret or ConfigMap: letters, digits, dots, dashes and underscores.",
    ),
]
Host = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[^\s/@]+$",
        description="A host name or address, without scheme, user or path.",
    ),
]
Region = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$", description="An AWS region, such as us-east-1."),
]
Port = Annotated[int, Field(ge=1, le=65535, description="A TCP port.")]
Duration = Annotated[
    str,
    Field(
        pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$",
        max_length=32,
        description="A duration such as 200ms, 5s, 10m or 1h30m.",
    ),
]


@dataclass(frozen=True)
class Within:
    """Bounds of a Duration, both allowed, such as Within("1s", "24h"); the schema says the same as a CEL rule."""

    least: str
    most: str

    def check(self, duration: str) -> str:
        """The duration itself. Raises ValueError where it lies outside."""
        if not seconds(self.least) <= seconds(duration) <= seconds(self.most):
            raise ValueError(f"given {duration!r}; allowed: {self._allowed()}")
        return duration

    def _allowed(self) -> str:
        return f"a duration from {self.least} to {self.most}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the bounds after the form."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The same for the API server."""
        bounds = f"duration('{self.least}') <= duration(self) && duration(self) <= duration('{self.most}')"
        rule = {"rule": bounds, "message": self._allowed()}
        return handler(schema) | {"x-kubernetes-validations": [rule]}


Glob = Annotated[
    str,
    Field(min_length=1, max_length=200, description="A glob over database.table, such as `shop.*`."),
]
Identifier = Annotated[str, Field(min_length=1, max_length=64, description="The name of a database, user or column.")]

Identifier255 = Annotated[str, Field(min_length=1, max_length=255, description="The name of a table.")]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time must carry its zone, such as 2026-11-21T12:00:00Z")
    return moment


Moment = Annotated[datetime, AfterValidator(_aware)]


class Model(BaseModel):
    """A noun: camelCase outside, snake_case inside, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_enum_values=False
    )


class SecretRef(Model):
    """A Secret in the resource's own namespace; there is no namespace field on purpose."""

    name: Name = Field(description="Its name, in this namespace.")


class SecretKeyRef(Model):
    """One key of a Secret in the resource's own namespace."""

    name: Name = Field(description="The Secret's name, in this namespace.")
    key: SecretKey = Field(default="ca.crt", description="Which of its keys.")


class TlsMode(StrEnum):
    """How a server's certificate is checked."""

    VERIFY_FULL = "VerifyFull"
    DISABLED = "Disabled"


class Tls(Model):
    """TLS towards one server. Without caSecretRef the system's own authorities are trusted."""

    mode: TlsMode = Field(
        default=TlsMode.VERIFY_FULL, description="VerifyFull checks certificate and name; Disabled goes without TLS."
    )
    ca_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="The authority's certificate as PEM, in a Secret of this namespace; else the system's own.",
    )


class OwnerReference(BaseModel):
    """To whom an object belongs: it goes when its owner does."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    kind: str
    name: str
    uid: str
    controller: bool = False


class ObjectMeta(BaseModel):
    """The part of Kubernetes' metadata that Whimbrel reads; the rest is kept by the API server."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: Name
    namespace: Name = "default"
    generation: int = 1
    uid: str = ""
    deletion_timestamp: Moment | None = None
    owner_references: tuple[OwnerReference, ...] | None = None

    def belongs_to(self, uid: str) -> bool:
        """Whether the resource of that uid controls this one. Nothing belongs to one without a uid."""
        return bool(uid) and any(each.controller and each.uid == uid for each in self.owner_references or ())


ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(Model):
    """A Kubernetes condition, keyed by type."""

    type: str = Field(max_length=316, description="What it speaks of, such as Stalled or LagWithinThreshold.")
    status: ConditionStatus = Field(description="Whether it is so; Unknown where that cannot be told.")
    reason: str = Field(max_length=1024, description="Why, in one word for programs.")
    message: str = Field(
        default="", max_length=32768, description="Why, for a reader: what happened, where, and what to do."
    )
    last_transition_time: Moment = Field(description="Since when the status has been what it is.")
    observed_generation: int = Field(default=0, description="The generation of the spec that it speaks of.")


def require_one_origin(migration: object | None, source: object | None, target: object | None) -> None:
    """What a resource speaks of: a Migration, or a source and a target. Raises ValueError for neither and for both."""
    given = [end is not None for end in (source, target)]
    if any(given) if migration is not None else not all(given):
        raise ValueError("name either migrationRef, or source and target")
