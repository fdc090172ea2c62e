"""Names, labels and owner references of the objects that belong to a resource. What stands in them does not."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from whimbrel_api.base import API_VERSION, GROUP
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import TaskKind
from whimbrel_api.validation import Validation

FIELD_MANAGER: Final = "whimbrel"
LEASE: Final = "whimbrel-operator"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
UID: Final = f"{GROUP}/uid"
TASK: Final = f"{GROUP}/task"
KIND: Final = f"{GROUP}/kind"
RESOURCE: Final = f"{GROUP}/resource"
FINGERPRINT: Final = f"{GROUP}/fingerprint"
GENERATION: Final = f"{GROUP}/generation"
HOOK: Final = f"{GROUP}/hook"
HOOK_POINT: Final = f"{GROUP}/hook-point"
HOOK_NAME: Final = f"{GROUP}/hook-name"

_JOB_CHARACTERS = 52
_TASK_CHARACTERS = 26
_LABEL_CHARACTERS = 63
_HEX = 8


@dataclass(frozen=True, order=True)
class Owner:
    """The resource that children belong to; `kind` is Migration, Validation or ReverseSync."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = API_VERSION

    @classmethod
    def of(cls, resource: Migration | Validation | ReverseSync) -> Self:
        """The owner that a resource is. One without a uid never came from an API server: ValueError."""
        meta = resource.metadata
        if not meta.uid:
            raise ValueError(f"{resource.kind} {meta.namespace}/{meta.name} has no uid, so nothing can belong to it")
        return cls(resource.kind, meta.namespace, meta.name, meta.uid, resource.api_version)


def job_name(owner: Owner, task_id: str) -> str:
    """`<resource name, cut>-<task id>-<8 hex>`: a DNS label of at most 52 characters.

    Pods of an Indexed Job add an index to it and take the whole as their host name. The Job's ConfigMap,
    ServiceAccount, Role and RoleBinding are called the same. The hex is over kind, namespace, name, uid and task id, so
    that neither a cut nor a resource made again under an old name meets what belongs to another.
    """
    told = json.dumps([owner.kind, owner.namespace, owner.name, owner.uid, task_id])
    digest = hashlib.sha256(told.encode()).hexdigest()[:_HEX]
    task = _label(task_id, _TASK_CHARACTERS)
    room = _JOB_CHARACTERS - len(task) - len(digest) - 2
    return "-".join(part for part in (_label(owner.name, room), task, digest) if part)


def report_name(job: str, index: int) -> str:
    """The WorkerReport of one instance."""
    return f"{job}-{index}"


def labels(owner: Owner, task_id: str, kind: TaskKind) -> dict[str, str]:
    """What every child of a task carries."""
    return {
        "app.kubernetes.io/name": "whimbrel-worker",
        "app.kubernetes.io/instance": _instance(owner.name),
        "app.kubernetes.io/component": kind.value,
        "app.kubernetes.io/part-of": "whimbrel",
        MANAGED_BY: FIELD_MANAGER,
        UID: owner.uid,
        TASK: task_id,
        KIND: owner.kind,
    }


def hook_labels(owner: Owner, run_id: str) -> dict[str, str]:
    """What the Job of a hook or switch carries; nothing that reads tasks takes it for one."""
    return {
        "app.kubernetes.io/name": "whimbrel-hook",
        "app.kubernetes.io/instance": _instance(owner.name),
        "app.kubernetes.io/part-of": "whimbrel",
        MANAGED_BY: FIELD_MANAGER,
        UID: owner.uid,
        KIND: owner.kind,
        HOOK: run_id,
    }


def annotations(owner: Owner, fingerprint: str, generation: int) -> dict[str, str]:
    """What every child of a task but its reports carries; a resource's name may be too long for a label."""
    return {RESOURCE: owner.name, FINGERPRINT: fingerprint, GENERATION: str(generation)}


def owner_reference(owner: Owner) -> dict[str, Any]:
    """Makes garbage collection alone end everything when the resource goes."""
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(owner: Owner, name: str, labelled: Mapping[str, str], annotated: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of one child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": dict(labelled),
        "annotations": dict(annotated),
        "ownerReferences": [owner_reference(owner)],
    }


def children_of(owner: Owner) -> str:
    """The label selector of all that belongs to a resource."""
    return f"{every_child()},{UID}={owner.uid}"


def task_of(owner: Owner, task_id: str) -> str:
    """The label selector of all that belongs to one task of a resource."""
    return f"{children_of(owner)},{TASK}={task_id}"


def every_child() -> str:
    """The label selector of all children of all resources, for watches."""
    return f"{MANAGED_BY}={FIELD_MANAGER},{UID}"


def _label(text: str, room: int) -> str:
    """A DNS label of at most that many characters; empty where nothing of the text may stand in one."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:room].strip("-") if room > 0 else ""


def _instance(name: str) -> str:
    """The resource's name, or its beginning with a hash, where it is too long for a label."""
    if len(name) <= _LABEL_CHARACTERS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HEX]
    return f"{name[: _LABEL_CHARACTERS - _HEX - 1].rstrip('.-')}-{digest}"
