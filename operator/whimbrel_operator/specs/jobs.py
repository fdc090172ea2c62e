"""The Job of a task and the pod that it makes. Who may do what stands in access, what the pod reads in taskfile."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from whimbrel_api.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, USUAL_FORMAT, USUAL_LEVEL
from whimbrel_api.tasks import ExitCode
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings, Resources
from whimbrel_operator.specs.taskfile import SPOOL_FOLDER, TASK_FILE

CONTAINER: Final = "worker"
TASK_FOLDER: Final = "/etc/whimbrel/task"
SECRETS_FOLDER: Final = "/etc/whimbrel/secrets"
ACCESS_FOLDER: Final = "/etc/whimbrel/access"
SCRATCH: Final = "/tmp"  # noqa: S108
_SCRATCH_VARIABLES: Final = ("HOME", "TMPDIR")
OWN_VARIABLES: Final = (*_SCRATCH_VARIABLES, FORMAT_VARIABLE, LEVEL_VARIABLE)
OWN_FOLDERS: Final = ("/etc/whimbrel", SPOOL_FOLDER, SCRATCH)
OWN_VOLUMES: Final = ("task", "access", "scratch", "spool")
USER: Final = 65532
BACKOFF_LIMIT: Final = 6
TTL_SECONDS: Final = 86400
TOKEN_SECONDS: Final = 3600
_SCRATCH_SIZE = "1Gi"
_OWNER_AND_GROUP = 0o440

_HOPELESS = (ExitCode.CONFIGURATION, ExitCode.SOURCE_LOG_LOST, ExitCode.FENCED_OUT)


def fingerprint(wanted: WantedTask) -> str:
    """Changes when a running Job must be ended and made anew.

    Orders, the number of pods and all of PodSettings are left out on purpose: a Job takes the first two as it runs, and
    an operator that comes with another image must not restart hours of copying. What has to end for another reason
    starts again under the new settings.
    """
    return wanted.fingerprint


def job(owner: Owner, wanted: Sequence[WantedTask], settings: PodSettings) -> dict[str, Any]:
    """One Indexed Job for all instances of one task, a pod each. Its template is never changed once it is there."""
    first = wanted[0]
    task_id = first.ref.task_id
    labelled = names.labels(owner, task_id, first.kind)
    annotated = names.annotations(owner, fingerprint(first), first.generation)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": names.metadata(owner, names.job_name(owner, task_id), labelled, annotated),
        "spec": {
            "completionMode": "Indexed",
            **_count(len(wanted)),
            "suspend": False,
            "backoffLimit": BACKOFF_LIMIT,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _failure_policy(),
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {
                "metadata": _pod_metadata(labelled, annotated, settings),
                "spec": _pod(names.job_name(owner, task_id), first, settings),
            },
        },
    }


def scale(count: int) -> dict[str, Any]:
    """The merge patch that gives a running Job another number of pods; both numbers must change together."""
    return {"spec": _count(count)}


def _count(count: int) -> dict[str, int]:
    return {"completions": count, "parallelism": count}


def _failure_policy() -> dict[str, Any]:
    """What a person must act on fails the Job at once; a pod told to stop or driven out counts as no failure."""
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": _exit_codes(_HOPELESS)},
            {"action": "Ignore", "onExitCodes": _exit_codes([ExitCode.TOLD_TO_STOP])},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def _exit_codes(codes: Sequence[ExitCode]) -> dict[str, Any]:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(int(code) for code in codes)}


def _pod_metadata(labelled: Mapping[str, str], annotated: Mapping[str, str], settings: PodSettings) -> dict[str, Any]:
    return {
        "labels": {**settings.labels, **labelled},
        "annotations": {**settings.annotations, **annotated},
    }


def _pod(name: str, wanted: WantedTask, settings: PodSettings) -> dict[str, Any]:
    secrets = wanted.work.secret_names()
    return {
        "serviceAccountName": settings.account or name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **placement(settings),
        "containers": [_container(wanted, secrets, settings)],
        "volumes": [
            _task_volume(name),
            access_volume(),
            _scratch_volume(),
            *_secret_volumes(secrets),
            *_spool_volumes(wanted),
            *(dict(each) for each in settings.volumes),
        ],
    }


def placement(settings: PodSettings) -> dict[str, Any]:
    """Where pods may run; what is not set is left out, so that the cluster's own defaults hold."""
    chosen = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [dict(each) for each in settings.tolerations],
        "affinity": dict(settings.affinity),
        "priorityClassName": settings.priority_class,
    }
    return {field: value for field, value in chosen.items() if value}


def _container(wanted: WantedTask, secrets: Sequence[str], settings: PodSettings) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "whimbrel_worker", f"{TASK_FOLDER}/{TASK_FILE}"],
        "env": [*_variables(settings), *(dict(each) for each in settings.env)],
        "resources": _resources(settings.resources_of(wanted.kind)),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "task", "mountPath": TASK_FOLDER, "readOnly": True},
            {"name": "access", "mountPath": ACCESS_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            *(_secret_mount(number, name) for number, name in enumerate(secrets)),
            *({"name": each["name"], "mountPath": SPOOL_FOLDER} for each in _spool_volumes(wanted)),
            *(dict(each) for each in settings.volume_mounts),
        ],
    }


def _variables(settings: PodSettings) -> list[dict[str, str]]:
    """OWN_VARIABLES; how it logs is left out where it is as usual."""
    told = {FORMAT_VARIABLE: (settings.log_format, USUAL_FORMAT), LEVEL_VARIABLE: (settings.log_level, USUAL_LEVEL)}
    chosen = {name: value for name, (value, usual) in told.items() if value != usual}
    found = {**dict.fromkeys(_SCRATCH_VARIABLES, SCRATCH), **chosen}
    return [{"name": name, "value": value} for name, value in found.items()]


def _resources(resources: Resources) -> dict[str, dict[str, str]]:
    return {"requests": dict(resources.requests), "limits": dict(resources.limits)}


def _secret_mount(number: int, name: str) -> dict[str, Any]:
    return {"name": _secret_volume(number), "mountPath": f"{SECRETS_FOLDER}/{name}", "readOnly": True}


def _secret_volumes(secrets: Sequence[str]) -> list[dict[str, Any]]:
    """Optional, so that the operator needs no right on Secrets: a worker that misses one says which and ends with 2."""
    return [
        {
            "name": _secret_volume(number),
            "secret": {"secretName": name, "optional": True, "defaultMode": _OWNER_AND_GROUP},
        }
        for number, name in enumerate(secrets)
    ]


def _secret_volume(number: int) -> str:
    """A Secret's name may be too long for a volume's."""
    return f"secret-{number}"


def _task_volume(config_map: str) -> dict[str, Any]:
    return {"name": "task", "configMap": {"name": config_map, "defaultMode": _OWNER_AND_GROUP}}


def access_volume() -> dict[str, Any]:
    """What a pod needs to reach its reports. Mounted on purpose, so that it has a place of its own."""
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return {"name": "access", "projected": {"defaultMode": _OWNER_AND_GROUP, "sources": [token, authority]}}


def _scratch_volume() -> dict[str, Any]:
    return {"name": "scratch", "emptyDir": {"sizeLimit": _SCRATCH_SIZE}}


def _spool_volumes(wanted: WantedTask) -> list[dict[str, Any]]:
    """The user's own volume for changes, where the task has one. The pod waits until it can be mounted."""
    claim = wanted.spool_claim
    return [{"name": "spool", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
