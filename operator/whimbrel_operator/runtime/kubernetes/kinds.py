"""The kinds of object that the runtime reads and writes, by their paths."""

from typing import Any, Final

from whimbrel_api.base import GROUP, VERSION
from whimbrel_operator.runtime.kubernetes.api import Kind

JOBS: Final = Kind("apis/batch/v1", "jobs")
PODS: Final = Kind("api/v1", "pods")
CONFIG_MAPS: Final = Kind("api/v1", "configmaps")
SERVICE_ACCOUNTS: Final = Kind("api/v1", "serviceaccounts")
ROLES: Final = Kind("apis/rbac.authorization.k8s.io/v1", "roles")
ROLE_BINDINGS: Final = Kind("apis/rbac.authorization.k8s.io/v1", "rolebindings")
EVENTS: Final = Kind("api/v1", "events")
LEASES: Final = Kind("apis/coordination.k8s.io/v1", "leases")
WORKER_REPORTS: Final = Kind(f"apis/{GROUP}/{VERSION}", "workerreports")
MIGRATIONS: Final = Kind(f"apis/{GROUP}/{VERSION}", "migrations")
VALIDATIONS: Final = Kind(f"apis/{GROUP}/{VERSION}", "validations")
REVERSE_SYNCS: Final = Kind(f"apis/{GROUP}/{VERSION}", "reversesyncs")

RESOURCES: Final = {"Migration": MIGRATIONS, "Validation": VALIDATIONS, "ReverseSync": REVERSE_SYNCS}
_CHILDREN: Final = {
    "ConfigMap": CONFIG_MAPS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": ROLES,
    "RoleBinding": ROLE_BINDINGS,
    "WorkerReport": WORKER_REPORTS,
    "Job": JOBS,
}
NAMED_AS_THE_JOB: Final = (ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, CONFIG_MAPS)


def kind_of(body: dict[str, Any]) -> Kind:
    """The kind of a child that the specs have built."""
    return _CHILDREN[body["kind"]]
