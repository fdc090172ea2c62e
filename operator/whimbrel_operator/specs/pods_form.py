"""The form in which an administrator says how worker pods run: JSON in one environment variable, read into PodSettings.

The chart writes it from `workers` and `imagePullSecrets` of its values. What pods look like stands in jobs.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from whimbrel_api.base import Model, Name
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.specs.jobs import OWN_FOLDERS, OWN_VARIABLES, OWN_VOLUMES
from whimbrel_operator.specs.settings import PodSettings, PullPolicy, Resources, usual_resources

_QUANTITY: Final = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_DECIMAL: Final = {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)}
_BINARY: Final = {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}
_UNITS: Final = {"": Decimal(1), "m": Decimal("0.001"), **_DECIMAL, **_BINARY}
_MOST_TOLD: Final = 5
_VOLUME: Final = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")


def _text(value: Any) -> Any:
    """YAML writes one CPU as the number 1."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=_QUANTITY.pattern, description="An amount as Kubernetes writes it, such as 250m, 2 or 1Gi."),
]
Labels = dict[Annotated[str, Field(min_length=1, max_length=317)], str]


class _Resources(Model):
    """What a task's pods ask for and may have; what is not named stays as usual."""

    requests: dict[str, Quantity] = Field(default={})
    limits: dict[str, Quantity] = Field(default={})

    def over(self, usual: Resources) -> Resources:
        """Both together. Raises ValueError where a pod would ask for more than it may have."""
        both = Resources({**usual.requests, **self.requests}, {**usual.limits, **self.limits})
        for name in both.requests.keys() & both.limits.keys():
            if _amount(both.requests[name]) > _amount(both.limits[name]):
                raise ValueError(
                    f"the request of {both.requests[name]} {name} is above the limit of {both.limits[name]}; set both"
                )
        return both


class _Toleration(Model):
    """As in a pod's spec."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None


class _Affinity(Model):
    """As in a pod's spec; what stands below these three is judged by the API server."""

    node_affinity: dict[str, Any] = Field(default={})
    pod_affinity: dict[str, Any] = Field(default={})
    pod_anti_affinity: dict[str, Any] = Field(default={})


class _Variable(Model):
    """As in a container's spec."""

    name: str = Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
    value: str = ""
    value_from: dict[str, Any] = Field(default={})

    @field_validator("name")
    @classmethod
    def _not_ours(cls, name: str) -> str:
        if name in OWN_VARIABLES:
            raise ValueError(f"{name} is set by Whimbrel itself")
        return name


class _Mount(Model):
    """As in a container's spec."""

    name: str = Field(min_length=1, max_length=63)
    mount_path: str = Field(pattern="^/")
    read_only: bool = False
    sub_path: str = ""

    @field_validator("mount_path")
    @classmethod
    def _not_ours(cls, path: str) -> str:
        if any(_within(path, own) or _within(own, path) for own in OWN_FOLDERS):
            raise ValueError(f"{path} meets a folder of Whimbrel's own: {', '.join(OWN_FOLDERS)}")
        return path


def _volume(value: dict[str, Any]) -> dict[str, Any]:
    name = str(value.get("name") or "")
    if not _VOLUME.match(name):
        raise ValueError("it has no name that a volume can have")
    if name in OWN_VOLUMES or name.startswith("secret-"):
        raise ValueError(f"the name {name} is that of a volume of Whimbrel's own")
    return value


def _within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder}/")


class PodsForm(Model):
    """All that may be said. Names are those of a pod's spec; `resources` goes by task."""

    resources: dict[TaskKind, _Resources] = Field(default={})
    image_pull_secrets: list[Name] = Field(default=[])
    node_selector: Labels = Field(default={})
    tolerations: list[_Toleration] = Field(default=[])
    affinity: _Affinity = _Affinity()
    priority_class_name: str = Field(default="", max_length=253)
    labels: Labels = Field(default={})
    annotations: Labels = Field(default={})
    service_account_annotations: Labels = Field(default={})
    service_account_name: Name | Literal[""] = ""
    extra_env: list[_Variable] = Field(default=[])
    extra_volumes: list[Annotated[dict[str, Any], AfterValidator(_volume)]] = Field(default=[])
    extra_volume_mounts: list[_Mount] = Field(default=[])
    termination_grace_period_seconds: int = Field(default=25, ge=1, le=3600)

    @model_validator(mode="after")
    def _resources_fit(self) -> Self:
        self.by_task()
        return self

    def by_task(self) -> dict[TaskKind, Resources]:
        """Every task's resources, the usual ones where nothing is said."""
        usual = usual_resources()
        return {kind: self._one(kind, usual[kind]) for kind in usual}

    def _one(self, kind: TaskKind, usual: Resources) -> Resources:
        try:
            return self.resources[kind].over(usual) if kind in self.resources else usual
        except ValueError as error:
            raise ValueError(f"resources.{kind.value}: {error}") from None

    def settings(self, image: str, pull_policy: PullPolicy) -> PodSettings:
        """What the builders take."""
        return PodSettings(
            image=image,
            pull_policy=pull_policy,
            image_pull_secrets=tuple(self.image_pull_secrets),
            resources=self.by_task(),
            node_selector=self.node_selector,
            tolerations=tuple(_said(each) for each in self.tolerations),
            affinity=_said(self.affinity),
            priority_class=self.priority_class_name,
            labels=self.labels,
            annotations=self.annotations,
            account_annotations=self.service_account_annotations,
            account=self.service_account_name,
            env=tuple(_said(each) for each in self.extra_env),
            volumes=tuple(self.extra_volumes),
            volume_mounts=tuple(_said(each) for each in self.extra_volume_mounts),
            grace=self.termination_grace_period_seconds,
        )


def parse(text: str) -> PodsForm:
    """The form in JSON. Raises ValueError: each field that cannot be, by its path."""
    try:
        return PodsForm.model_validate_json(text)
    except ValidationError as error:
        told = [_line(each) for each in error.errors(include_url=False, include_input=False)]
        more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        raise ValueError("; ".join([*told[:_MOST_TOLD], *more])) from None


def _line(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def _said(part: Model) -> dict[str, Any]:
    return part.model_dump(by_alias=True, exclude_defaults=True)


def _amount(quantity: str) -> Decimal:
    """The number that a quantity stands for."""
    found = _QUANTITY.match(quantity)
    if found is None:
        raise ValueError(f"{quantity} is no amount such as 250m, 2 or 1Gi")
    return Decimal(found[1]) * _UNITS[found[2] or ""]
