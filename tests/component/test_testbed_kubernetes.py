"""The test bed's Kubernetes: it starts, keeps its data over a restart, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, kubernetes_cluster
from whimbrel_testbed.kubernetes.kubectl import kubectl_binary
from whimbrel_testbed.kubernetes.own import chosen_cluster

PRIVILEGED = """
apiVersion: v1
kind: Pod
metadata: {name: privileged}
spec:
  containers: [{name: a, image: none, command: ["true"], securityContext: {privileged: true}}]
"""

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: hello}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: a, image: none, command: [sh, -c, "echo hello from a pod"]}]
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def second() -> Iterator[KubernetesCluster]:
    """A cluster beside the run's own whose servers these tests stop."""
    with kubernetes_cluster(nodes=False) as running:
        yield running


def test_it_is_a_real_api_server(cluster: KubernetesCluster) -> None:
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    assert cluster.version.startswith("v1.")
    names = cluster.kubectl("get", "crd", "-o", "name").split()
    assert "customresourcedefinition.apiextensions.k8s.io/migrations.whimbrel.dev" in names


def test_a_namespace_is_empty_and_has_what_pods_need(cluster: KubernetesCluster, namespace: str) -> None:
    assert cluster.kubectl("-n", namespace, "get", "pods,jobs,migrations", "-o", "name") == ""
    assert cluster.kubectl("-n", namespace, "get", "serviceaccounts", "-o", "name") == "serviceaccount/default\n"


def test_a_job_runs_and_its_log_is_read_through_the_api_server(cluster: KubernetesCluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=JOB)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Complete", "job/hello", "--timeout=60s", timeout=90)
    assert cluster.kubectl("-n", namespace, "logs", "job/hello") == "hello from a pod\n"


def test_restricted_pod_security_is_enforced(cluster: KubernetesCluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(TestbedError, match=r'violates PodSecurity "restricted:latest": privileged'):
        cluster.kubectl("-n", namespace, "create", "-f", "-", input=PRIVILEGED)


def test_rights_are_those_of_rbac(cluster: KubernetesCluster, namespace: str) -> None:
    user = f"--as=system:serviceaccount:{namespace}:default"
    with pytest.raises(TestbedError, match="cannot list resource"):
        cluster.kubectl("-n", namespace, user, "get", "secrets")


def test_strangers_are_turned_away(cluster: KubernetesCluster, second: KubernetesCluster, tmp_path: Path) -> None:
    if not cluster.pids:
        pytest.skip("a cluster of one's own is not one of the test bed")
    assert cluster.server != second.server
    mixed = tmp_path / "kubeconfig"
    mixed.write_text(second.kubeconfig.read_text().replace(second.server, cluster.server))
    with pytest.raises(TestbedError, match="x509: certificate signed by unknown authority"):
        second.kubectl("--kubeconfig", str(mixed), "get", "namespaces")
    with pytest.raises(TestbedError, match=r"Unauthorized|the server has asked for the client to provide credentials"):
        second.kubectl("--kubeconfig", str(mixed), "--insecure-skip-tls-verify", "get", "namespaces")


def test_files_with_keys_are_for_their_owner_only(second: KubernetesCluster) -> None:
    files = [path for path in second.directory.rglob("*") if path.suffix == ".key" or path.name == "kubeconfig"]
    assert len(files) > 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert second.directory.stat().st_mode & 0o777 == 0o700


def test_the_api_server_goes_and_comes_back_with_its_data(second: KubernetesCluster) -> None:
    second.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    second.stop_api_server()
    with pytest.raises(TestbedError, match="refused"):
        second.kubectl("get", "namespaces")
    second.start_api_server()
    assert second.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "1"
    second.kubectl("create", "namespace", "after")
    account = ("get", "serviceaccount", "-n", "after", "-o", "name")
    wait_for(lambda: second.kubectl(*account), "the controllers' work in a new namespace")


def test_controllers_that_ended_with_the_api_server_are_started_again(second: KubernetesCluster) -> None:
    second.server_process("kube-controller-manager").kill()
    second.stop_api_server()
    assert set(second.pids) == {"etcd", "kube-scheduler"}
    second.start_api_server()
    assert set(second.pids) == {"etcd", "kube-scheduler", "kube-apiserver", "kube-controller-manager"}


def test_a_process_that_is_not_there_is_explained(second: KubernetesCluster) -> None:
    with pytest.raises(TestbedError, match="no process node-agent; it has kube-apiserver, etcd"):
        second.server_process("node-agent")


def test_a_cluster_of_ones_own_is_used_but_never_stopped(cluster: KubernetesCluster) -> None:
    environment = {"WHIMBREL_TEST_CLUSTER": "own", "WHIMBREL_TEST_KUBECONFIG": str(cluster.kubeconfig)}
    said: list[str] = []
    with chosen_cluster(environment=environment, progress=said.append) as own:
        assert (own.server, own.version, own.pids) == (cluster.server, cluster.version, {})
        assert own.kubectl("get", "--raw", "/readyz") == "ok"
        with pytest.raises(TestbedError, match="was not started by the test bed"):
            own.stop_api_server()
    assert said == [f"using the cluster at {own.server}, Kubernetes {own.version}, as WHIMBREL_TEST_CLUSTER=own says"]
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_prints_a_kubeconfig_and_leaves_nothing_behind(number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="wbt-") as scratch:
        process = subprocess.Popen(
            [sys.executable, "-m", "whimbrel_testbed", "kubernetes"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": scratch},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            facts: dict[str, Any] = json.loads(process.stdout.readline())
            done = subprocess.run(
                [str(kubectl_binary()), "--kubeconfig", facts["kubeconfig"], "get", "nodes", "-o", "name"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert done.stdout == "node/whimbrel-node-1\n"
            assert len(facts["pids"]) == 5
            process.send_signal(number)
            assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
            for name, pid in facts["pids"].items():
                wait_for(lambda pid=pid: is_gone(pid), f"the end of {name}, process {pid}")  # type: ignore[misc]
            wait_for(lambda: not os.listdir(scratch), f"an empty {scratch}")  # noqa: PTH208
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
