"""The chart installed on a real cluster: the operator comes up under the chart's own rights and does its work."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import helm_python
import pytest

from support.chart import CHART, IMAGE, REVERSE
from support.chart_account import signed_in
from support.patience import eventually
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

# The cluster has the definitions already, and several releases share it.
SHARED = {"image": IMAGE, "crds": {"enabled": False}, "userRoles": {"enabled": False}}
pytestmark = pytest.mark.timeout(240)


def leader_among(pods: list[dict[str, Any]]) -> str:
    """The name of the one pod whose figures say that it leads."""
    leading = [pod["metadata"]["name"] for pod in pods if "whimbrel_leader 1.0" in figures(pod["status"]["podIP"])]
    assert len(leading) == 1, leading
    return str(leading[0])


def figures(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:8080/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def release(cluster: KubernetesCluster, namespace: str) -> Iterator[str]:
    """The chart's release, two replicas, watching its own namespace, where pods must meet the restricted standard."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    values = {**SHARED, "namespaces": [namespace], "replicas": 2}
    with helm_python.Config(kubeconfig_path=str(cluster.kubeconfig), namespace=namespace) as helm:
        helm.install(str(CHART), "whimbrel", values, wait="watcher", timeout=120)
        yield namespace
        helm.uninstall("whimbrel")


def test_it_brings_the_operator_up_without_a_right_on_secrets(cluster: KubernetesCluster, release: str) -> None:
    def kubectl(*arguments: str, told: str | None = None) -> str:
        return cluster.kubectl("-n", release, *arguments, input=told)

    assert kubectl("get", "deployment", "whimbrel", "-o", "jsonpath={.status.readyReplicas}") == "2"
    refuse_secrets(cluster, release)
    holder = ("get", "lease", "whimbrel-operator", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")
    eventually(lambda: kubectl(*holder), lambda: "nobody holds the Lease")
    first = kubectl(*holder)
    kubectl("apply", "-f", "-", told=json.dumps(REVERSE))
    until_answered(cluster, release)
    kubectl("delete", "pod", leader_among(json.loads(kubectl("get", "pods", "-o", "json"))["items"]), "--wait=false")
    eventually(lambda: kubectl(*holder) not in ("", first), lambda: f"the Lease stays with {first}")
    kubectl("delete", "rsync", "back", "--timeout=30s")


def refuse_secrets(cluster: KubernetesCluster, namespace: str) -> None:
    account = f"--as=system:serviceaccount:{namespace}:whimbrel"
    for verb in ("get", "list", "watch", "create", "delete"):
        with pytest.raises(TestbedError, match="exit code 1"):
            cluster.kubectl("-n", namespace, "auth", "can-i", verb, "secrets", account)
    assert cluster.kubectl("-n", namespace, "auth", "can-i", "create", "jobs", account).strip() == "yes"


def test_releases_of_one_name_look_after_namespaces_of_their_own(cluster: KubernetesCluster, namespace: str) -> None:
    """Two operators in one cluster, both named whimbrel; a third beside the first is refused before it is made."""
    other = f"{namespace}-b"
    cluster.kubectl("create", "namespace", other)
    with two_releases(cluster, [namespace, other]) as helms:
        for watched in (namespace, other):
            cluster.kubectl("-n", watched, "apply", "-f", "-", input=json.dumps(REVERSE))
            until_answered(cluster, watched)
        account = f"--as=system:serviceaccount:{namespace}:whimbrel"
        with pytest.raises(TestbedError, match="exit code 1"):
            cluster.kubectl("-n", other, "auth", "can-i", "list", "migrations", account)
        with pytest.raises(helm_python.HelmError, match="whimbrel-operator-lease"):
            helms[0].install(str(CHART), "second", {**SHARED, "namespaces": ["elsewhere"]})
        for watched in (namespace, other):
            cluster.kubectl("-n", watched, "delete", "rsync", "back", "--timeout=30s")
    cluster.kubectl("delete", "namespace", other, "--wait=false")


def test_all_rights_within_its_namespaces_are_enough_to_install_it(
    cluster: KubernetesCluster, namespace: str, tmp_path: Path
) -> None:
    """Kubernetes' own role admin is not: nobody may give rights that he does not have."""
    values = {**SHARED, "namespaces": [namespace], "guards": {"uninstall": False, "namespaces": False}, "replicas": 1}
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "installer")
    cluster.kubectl("-n", namespace, *bound("admin", namespace))
    token = cluster.kubectl("-n", namespace, "create", "token", "installer").strip()
    kubeconfig = signed_in(cluster.kubeconfig, token, tmp_path / "installer")
    with helm_python.Config(kubeconfig_path=str(kubeconfig), namespace=namespace) as helm:
        with pytest.raises(helm_python.HelmError, match="not currently held"):
            helm.install(str(CHART), "short", values, timeout=60)
        cluster.kubectl("-n", namespace, *bound("cluster-admin", namespace))
        helm.uninstall("short")
        helm.install(str(CHART), "whimbrel", values, wait="watcher", timeout=120)
        helm.uninstall("whimbrel")


def bound(role: str, namespace: str) -> tuple[str, ...]:
    """The command that gives the installer a ClusterRole in its namespace."""
    return ("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount={namespace}:installer")


def until_answered(cluster: KubernetesCluster, namespace: str) -> None:
    """Wait until the operator has looked at a ReverseSync, and tells that its Migration is not there."""
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].message}'
    ask = partial(cluster.kubectl, "-n", namespace, "get", "rsync", "back", "-o", ready)
    eventually(lambda: "Migration shop not found" in ask(), ask)


@contextmanager
def two_releases(cluster: KubernetesCluster, namespaces: list[str]) -> Iterator[list[Any]]:
    """A release `whimbrel` in each namespace, looking after it alone."""
    with ExitStack() as stack:
        helms = []
        for each in namespaces:
            helm = stack.enter_context(helm_python.Config(kubeconfig_path=str(cluster.kubeconfig), namespace=each))
            values = {**SHARED, "namespaces": [each], "replicas": 1}
            helm.install(str(CHART), "whimbrel", values, wait="watcher", timeout=120)
            stack.callback(helm.uninstall, "whimbrel")
            helms.append(helm)
        yield helms
