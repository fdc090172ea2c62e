"""The Job of a hook, out of the manifest, and that of a switch, which runs Whimbrel's own image. Both run as the user's
service account and own no right of Whimbrel's. When they run is told in domain.hooks.

No time to live: the Job is the record of what has been done, and goes with its Migration.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from whimbrel_api.durations import seconds
from whimbrel_api.hooks import EnvVar, Hook, HookPoint, HookResources, PodSecurity, SwitchOrder, SwitchStep
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.hook_jobs import HookRun
from whimbrel_operator.specs import jobs, names
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings

CONTAINER: Final = "hook"
ORDER: Final = "WHIMBREL_SWITCH"
SWITCH_BACKOFF: Final = 3
"""A switch may be repeated without harm, so it is: the API server may be away for a moment."""
_GRACE: Final = 30


def job(owner: Owner, run: HookRun, settings: PodSettings) -> dict[str, Any]:
    """The Job of a run, named after the plan's attempt and the step, so that no restart makes a second one."""
    work = run.work
    pod = _hook_pod(owner, run, work) if isinstance(work, Hook) else _switch_pod(owner, run, work, settings)
    labelled = names.hook_labels(owner, run.run_id)
    told = {names.RESOURCE: owner.name, names.HOOK_POINT: run.point.value, names.HOOK_NAME: work.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": names.metadata(owner, names.job_name(owner, run.run_id), labelled, told),
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": work.backoff_limit if isinstance(work, Hook) else SWITCH_BACKOFF,
            "activeDeadlineSeconds": math.ceil(seconds(work.timeout)),
            "podReplacementPolicy": "Failed",
            **({} if isinstance(work, Hook) else {"podFailurePolicy": _failure_policy()}),
            "template": {"metadata": _pod_metadata(labelled, told), "spec": pod},
        },
    }


def _failure_policy() -> dict[str, Any]:
    """A switch that a person must put right fails at once. A hook's exit codes are the user's own business."""
    hopeless = {"containerName": CONTAINER, "operator": "In", "values": [int(ExitCode.CONFIGURATION)]}
    driven_out = [{"type": "DisruptionTarget", "status": "True"}]
    return {
        "rules": [{"action": "FailJob", "onExitCodes": hopeless}, {"action": "Ignore", "onPodConditions": driven_out}]
    }


def _pod_metadata(labelled: Mapping[str, str], told: Mapping[str, str]) -> dict[str, Any]:
    """Without the owner's uid: what lists the pods of tasks by it must not find the user's."""
    return {
        "labels": {name: value for name, value in labelled.items() if name not in (names.UID, names.MANAGED_BY)},
        "annotations": dict(told),
    }


def _hook_pod(owner: Owner, run: HookRun, hook: Hook) -> dict[str, Any]:
    restricted = hook.pod_security is PodSecurity.RESTRICTED
    return {
        "serviceAccountName": hook.service_account_name,
        "automountServiceAccountToken": hook.automount_service_account_token,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        **({"securityContext": _pod_security(hook.run_as_user)} if restricted else {}),
        "containers": [_hook_container(owner, run, hook, restricted=restricted)],
    }


def _hook_container(owner: Owner, run: HookRun, hook: Hook, *, restricted: bool) -> dict[str, Any]:
    given = {
        "WHIMBREL_MIGRATION": f"{owner.namespace}/{owner.name}",
        "WHIMBREL_HOOK_POINT": run.point.value,
        "WHIMBREL_ATTEMPT": str(run.attempt),
    }
    chosen = {"command": hook.command, "args": hook.args, "resources": _resources(hook.resources)}
    return {
        "name": CONTAINER,
        "image": hook.image,
        **{field: value for field, value in chosen.items() if value},
        "env": [*({"name": name, "value": value} for name, value in given.items()), *map(_variable, hook.env)],
        **({"securityContext": _container_security()} if restricted else {}),
    }


def _resources(resources: HookResources) -> dict[str, dict[str, str]]:
    told = {"requests": dict(resources.requests), "limits": dict(resources.limits)}
    return {name: value for name, value in told.items() if value}


def _variable(variable: EnvVar) -> dict[str, Any]:
    source = variable.value_from
    if source is None:
        return {"name": variable.name, "value": variable.value}
    return {"name": variable.name, "valueFrom": source.model_dump(by_alias=True, exclude_none=True)}


def _switch_pod(owner: Owner, run: HookRun, switch: SwitchStep, settings: PodSettings) -> dict[str, Any]:
    return {
        "serviceAccountName": switch.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {**_pod_security(jobs.USER), "runAsGroup": jobs.USER, "fsGroup": jobs.USER},
        **jobs.placement(settings),
        "containers": [_switch_container(owner, run, switch, settings)],
        "volumes": [jobs.access_volume(), {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}}],
    }


def _switch_container(owner: Owner, run: HookRun, switch: SwitchStep, settings: PodSettings) -> dict[str, Any]:
    usual = settings.resources_of(TaskKind.FENCE)
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "whimbrel_worker.switching"],
        "env": [
            *jobs.variables(settings),
            {"name": ORDER, "value": order(owner, run, switch).model_dump_json(by_alias=True)},
        ],
        "resources": {"requests": dict(usual.requests), "limits": dict(usual.limits)},
        "securityContext": {**_container_security(), "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "access", "mountPath": jobs.ACCESS_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": jobs.SCRATCH},
        ],
    }


def order(owner: Owner, run: HookRun, switch: SwitchStep) -> SwitchOrder:
    """What the worker of a switch is told."""
    return SwitchOrder(
        namespace=owner.namespace,
        owner_kind=owner.kind,
        owner_name=owner.name,
        owner_uid=owner.uid,
        switch=switch,
        back=run.point is HookPoint.PUT_BACK,
        access=jobs.ACCESS_FOLDER,
    )


def _pod_security(user: int) -> dict[str, Any]:
    return {"runAsNonRoot": True, "runAsUser": user, "seccompProfile": {"type": "RuntimeDefault"}}


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
