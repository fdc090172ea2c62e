"""The operator's account on a real cluster: what the chart grants it, or less, and a kubeconfig that signs in as it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = "whimbrel-operator"
_FILES = Path(__file__).parents[2] / "charts/whimbrel/files"
_GROUP = "rbac.authorization.k8s.io"
Rule = dict[str, Any]


def chart_rules() -> list[Rule]:
    """What the chart grants: the operator's rules and those of its Lease."""
    files = ("operator-rules.yaml", "lease-rules.yaml")
    return [rule for name in files for rule in yaml.safe_load((_FILES / name).read_text())]


def without(rules: list[Rule], resource: str, verb: str) -> list[Rule]:
    """The same without one verb on one kind of resource."""
    return [part for rule in rules for part in _without(rule, resource, verb)]


def _without(rule: Rule, resource: str, verb: str) -> list[Rule]:
    if resource not in rule["resources"]:
        return [rule]
    others = [each for each in rule["resources"] if each != resource]
    kept = {**rule, "resources": [resource], "verbs": [each for each in rule["verbs"] if each != verb]}
    return [part for part in ({**rule, "resources": others}, kept) if part["resources"] and part["verbs"]]


def chart_account(kubectl: Callable[..., str], namespace: str, rules: list[Rule] | None = None) -> str:
    """A service account with these rules in that namespace, else the chart's and nothing more; its token."""
    grant(kubectl, namespace, rules)
    return kubectl("create", "token", ACCOUNT, "--duration=1h").strip()


def grant(kubectl: Callable[..., str], namespace: str, rules: list[Rule] | None = None, *, to: str = "") -> None:
    """Give the account these rules in that namespace, and no others there. `to`: the account's own namespace."""
    meta = {"name": ACCOUNT, "namespace": namespace}
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": to or namespace}
    binding = {
        "apiVersion": f"{_GROUP}/v1", "kind": "RoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": ACCOUNT}, "subjects": [account],
    }  # fmt: skip
    role = {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "metadata": meta, "rules": rules or chart_rules()}
    own = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**meta, "namespace": to or namespace}}
    told = {"apiVersion": "v1", "kind": "List", "items": [own, role, binding]}
    kubectl("apply", "-f", "-", input=json.dumps(told))


def signed_in(kubeconfig: Path, token: str, file: Path) -> Path:
    """A kubeconfig for the same cluster that signs in with that token alone."""
    document = yaml.safe_load(kubeconfig.read_text())
    for each in document["users"]:
        each["user"] = {"token": token}
    file.touch(mode=0o600)
    file.write_text(json.dumps(document))
    return file
