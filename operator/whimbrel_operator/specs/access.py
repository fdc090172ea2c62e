"""Who a task's pods are and what they may do: their own WorkerReports and nothing else."""

from collections.abc import Sequence
from typing import Any, Final

from whimbrel_api.base import GROUP
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings

_RBAC: Final = "rbac.authorization.k8s.io"


def service_account(owner: Owner, wanted: WantedTask, settings: PodSettings) -> dict[str, Any]:
    """One a task. Its token is only where a pod mounts it on purpose."""
    told = _metadata(owner, wanted)
    told["annotations"] = {**settings.account_annotations, **told["annotations"]}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": told, "automountServiceAccountToken": False}


def role(owner: Owner, wanted: Sequence[WantedTask]) -> dict[str, Any]:
    """Get the task's own reports and patch their status, by name; made anew when the number of workers changes."""
    job = names.job_name(owner, wanted[0].ref.task_id)
    reports = [names.report_name(job, index) for index in range(len(wanted))]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": _metadata(owner, wanted[0]),
        "rules": [_rule("workerreports", "get", reports), _rule("workerreports/status", "patch", reports)],
    }


def role_binding(owner: Owner, wanted: WantedTask, settings: PodSettings) -> dict[str, Any]:
    """Gives the task's Role to the account that its pods run as."""
    name = names.job_name(owner, wanted.ref.task_id)
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(owner, wanted),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": settings.account or name, "namespace": owner.namespace}],
    }


def _rule(resource: str, verb: str, reports: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [GROUP], "resources": [resource], "resourceNames": list(reports), "verbs": [verb]}


def _metadata(owner: Owner, wanted: WantedTask) -> dict[str, Any]:
    task_id = wanted.ref.task_id
    annotated = names.annotations(owner, wanted.fingerprint, wanted.generation)
    return names.metadata(owner, names.job_name(owner, task_id), names.labels(owner, task_id, wanted.kind), annotated)
