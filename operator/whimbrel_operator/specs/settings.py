"""How worker pods run: image, size, placement. What they do stands in the task file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from whimbrel_api.logs import USUAL_FORMAT, USUAL_LEVEL, LogFormat, LogLevel
from whimbrel_api.tasks import TaskKind

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True)
class Resources:
    """What a pod asks for and may have, in Kubernetes quantities. No CPU limit: it would slow a copy for nothing."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]


LARGE: Final = Resources({"cpu": "250m", "memory": "256Mi"}, {"memory": "1Gi"})
SMALL: Final = Resources({"cpu": "50m", "memory": "128Mi"}, {"memory": "512Mi"})
_HEAVY = (TaskKind.SNAPSHOT, TaskKind.STREAM, TaskKind.CHECK, TaskKind.REVERSE)


def usual_resources() -> dict[TaskKind, Resources]:
    """Tasks that move or compare rows get more than those that ask a few questions."""
    return {kind: LARGE if kind in _HEAVY else SMALL for kind in TaskKind}


@dataclass(frozen=True)
class PodSettings:
    """The same for all worker pods of an operator. `grace` in seconds between SIGTERM and SIGKILL.

    `resources` overrides the usual ones by task. `labels` and `annotations` are added to pods, never over Whimbrel's
    own. `account_annotations` stand at the service accounts, such as a role's ARN where AWS identities come that way.
    `account` is one of the namespace that all tasks run as, in the place of one each. `env`, `volumes` and
    `volume_mounts` are added to the worker's, as a pod's spec has them. `log_format` and `log_level` are the
    operator's own.
    """

    image: str
    pull_policy: PullPolicy = "IfNotPresent"
    image_pull_secrets: Sequence[str] = ()
    resources: Mapping[TaskKind, Resources] = field(default_factory=usual_resources)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    priority_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    account_annotations: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    env: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    grace: int = 25
    log_format: LogFormat = USUAL_FORMAT
    log_level: LogLevel = USUAL_LEVEL

    def resources_of(self, kind: TaskKind) -> Resources:
        """What a pod of that task gets."""
        return self.resources.get(kind, usual_resources()[kind])
