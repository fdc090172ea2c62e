"""Rights as RBAC rules, as small as can be: the operator's, people's, and those of the chart's own questions.

None on Secrets: workers read those as files. What a task may do stands in access.
"""

from typing import Final

from whimbrel_api.base import GROUP

Rule = dict[str, list[str]]
_KINDS: Final = ["migrations", "validations", "reversesyncs"]
_STATUSES: Final = [f"{kind}/status" for kind in _KINDS]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


OPERATOR_RULES: Final[tuple[Rule, ...]] = (
    # `patch` puts the finalizer there and takes it away.
    _rule(GROUP, _KINDS, ["get", "list", "watch", "patch"]),
    # A cutover with a way back makes its ReverseSync; giving up and rolling back take it away.
    _rule(GROUP, ["reversesyncs"], ["create", "delete"]),
    _rule(GROUP, _STATUSES, ["update"]),
    # Owner references that block a deletion need it where OwnerReferencesPermissionEnforcement is on.
    _rule(GROUP, [f"{kind}/finalizers" for kind in _KINDS], ["update"]),
    # `get`, and `patch` on status, are also what a task's Role gives: nobody may give what he does not have.
    _rule(GROUP, ["workerreports"], ["get", "list", "watch", "create", "patch", "delete"]),
    _rule(GROUP, ["workerreports/status"], ["patch"]),
    _rule("batch", ["jobs"], ["get", "list", "watch", "create", "patch", "delete"]),
    # A pod is deleted only where somebody took its Job from under it.
    _rule("", ["pods"], ["list", "delete"]),
    _rule("", ["configmaps", "serviceaccounts"], ["create", "patch", "delete"]),
    _rule("rbac.authorization.k8s.io", ["roles", "rolebindings"], ["create", "patch", "delete"]),
    _rule("", ["events"], ["get", "create", "patch"]),
)
"""In every namespace that is watched."""

LEASE_RULES: Final[tuple[Rule, ...]] = (_rule("coordination.k8s.io", ["leases"], ["get", "create", "update"]),)
"""In the operator's own namespace."""

VIEWER_RULES: Final[tuple[Rule, ...]] = (
    _rule(GROUP, [*_KINDS, "workerreports"], ["get", "list", "watch"]),
    _rule(GROUP, _STATUSES, ["get"]),
    # What status, tree and logs of the command line show more; Kubernetes' own role view has these already.
    _rule("", ["pods", "events"], ["get", "list", "watch"]),
    _rule("", ["pods/log"], ["get"]),
    _rule("batch", ["jobs"], ["get", "list", "watch"]),
)
"""Of people who look. Rows that differ stand in WorkerReports, as they do in the workers' logs."""

EDITOR_RULES: Final[tuple[Rule, ...]] = (
    *VIEWER_RULES,
    _rule(GROUP, _KINDS, ["create", "update", "patch", "delete", "deletecollection"]),
)
"""Of people who steer, who also look. Status and reports are the operator's and the workers' alone."""

UNINSTALL_RULES: Final[tuple[Rule, ...]] = (_rule(GROUP, _KINDS, ["list"]),)
"""In all namespaces, of whoever asks before the chart goes."""

TEST_RULES: Final[tuple[Rule, ...]] = (
    _rule("", ["pods"], ["list"]),
    _rule("coordination.k8s.io", ["leases"], ["get"]),
)
"""In the operator's own namespace, of whoever looks whether it works."""
