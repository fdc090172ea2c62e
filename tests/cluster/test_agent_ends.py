"""The node agent: pods that are deleted, logs that are followed, and an agent or an API server that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.node import Json, Pods, TestNode, eventually, running_node
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

KEPT = "test.whimbrel.dev/kept"
SLEEPER = "containers: [{command: [sleep, '600']}]"


@pytest.fixture(scope="module")
def shared_node(cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    with running_node(cluster, tmp_path_factory.mktemp("agent")) as started:
        yield started


@pytest.fixture
def pods(shared_node: TestNode, namespace: str) -> Pods:
    if shared_node.agent.poll() is not None:
        shared_node.start()
    return Pods(shared_node, namespace)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_of(pod: Json) -> int:
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def ended(pod: Json) -> Json:
    state: Json = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


@pytest.mark.parametrize(("trap", "code", "grace"), [("exit 3", 3, 20), ("echo no", 137, 1)])
def test_a_deleted_pod_has_its_grace_and_no_more(pods: Pods, trap: str, code: int, grace: int) -> None:
    """A finalizer keeps the pod's last status in sight."""
    pods.create("ends", f"""
      containers:
      - command: [bash, -c, 'trap "{trap}" TERM; echo began; while :; do sleep 0.1; done']
    """, finalizers=[KEPT])  # fmt: skip
    try:
        eventually(lambda: pods.logs("ends") == "began\n" if pods.phase("ends", "Running") else False)
        began = time.monotonic()
        pods.kubectl("delete", "pod", "ends", f"--grace-period={grace}", "--wait=false")
        pod = pods.phase("ends", "Failed")
        took = time.monotonic() - began
        assert ended(pod)["exitCode"] == code
        assert (took >= grace) is (code == 137)
    finally:
        pods.kubectl("patch", "pod", "ends", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    eventually(lambda: not pods.get("ends"))
    folder = pods.node.directory / "node" / "pods" / pod["metadata"]["uid"]
    eventually(lambda: not folder.exists())


def test_a_pod_that_waits_is_deleted_at_once(pods: Pods) -> None:
    pods.create("waits", "{containers: [{command: [ls]}], volumes: [{name: a, secret: {secretName: none}}]}")
    eventually(lambda: "FailedMount" in pods.events("waits"))
    pods.kubectl("delete", "pod", "waits", "--timeout=5s")
    assert not pods.get("waits")


def test_logs_are_followed_until_the_end(pods: Pods) -> None:
    pods.create("talks", """
      containers:
      - command: [sh, -c, 'echo one; until [ -s /etc/go/go ]; do sleep 0.1; done; echo two; echo three']
        volumeMounts: [{name: go, mountPath: /etc/go}]
      volumes: [{name: go, configMap: {name: go, optional: true}}]
    """)  # fmt: skip
    pods.phase("talks", "Running")
    options = ["kubectl", f"--kubeconfig={pods.node.cluster.kubeconfig}", "-n", pods.namespace, "logs", "-f", "talks"]
    with subprocess.Popen(options, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        pods.kubectl("create", "configmap", "go", "--from-literal=go=now")
        assert follower.stdout.read() == "two\nthree\n"
    assert follower.returncode == 0
    assert pods.logs("talks", "--tail=1") == "three\n"
    assert pods.logs("talks", "--limit-bytes=3") == "one"
    with pytest.raises(TestbedError, match="timestamps"):
        pods.logs("talks", "--timestamps")


def test_killing_the_agent_leaves_no_process_and_the_next_one_tells(pods: Pods) -> None:
    pods.create("family", "containers: [{command: [sh, -c, 'sleep 600 & echo $!; wait']}]")
    pods.create("again", "{containers: [{command: [sleep, '600']}], restartPolicy: Always}")
    pods.create("going", SLEEPER)
    eventually(lambda: pods.logs("family") if pods.phase("family", "Running") else "")
    pids = [int(pods.logs("family")), *(pid_of(pods.phase(name, "Running")) for name in ("family", "again", "going"))]
    assert all(map(runs, pids))
    pods.node.stop(signal.SIGKILL)
    eventually(lambda: not any(map(runs, pids)), 5)
    pods.kubectl("delete", "pod", "going", "--wait=false")
    pods.node.start()
    assert ended(pods.phase("family", "Failed"))["reason"] == "ContainerStatusUnknown"
    assert ended(pods.get("family"))["exitCode"] == 137
    eventually(lambda: not pods.get("going"))
    eventually(lambda: pods.get("again")["status"]["containerStatuses"][0]["restartCount"] == 1)
    assert runs(pid_of(pods.phase("again", "Running")))


def test_a_stopped_agent_catches_up(pods: Pods) -> None:
    pods.create("old", SLEEPER)
    old = pid_of(pods.phase("old", "Running"))
    pods.node.agent.send_signal(signal.SIGSTOP)
    pods.kubectl("delete", "pod", "old", "--grace-period=1", "--wait=false")
    pods.create("new", SLEEPER)
    pods.node.agent.send_signal(signal.SIGCONT)
    pods.phase("new", "Running")
    eventually(lambda: not pods.get("old"))
    assert not runs(old)


def test_an_orderly_end_of_the_agent_ends_its_processes(pods: Pods) -> None:
    pods.create("stays", SLEEPER)
    pid = pid_of(pods.phase("stays", "Running"))
    pods.node.stop(signal.SIGTERM)
    assert pods.node.agent.returncode == 0
    eventually(lambda: not runs(pid), 5)


def test_readiness_that_somebody_else_took_away_is_put_right(pods: Pods) -> None:
    """The node controller marks the pods of a silent node; when it speaks again, they are what they were."""
    pods.create("fine", SLEEPER)
    eventually(lambda: pods.conditions("fine")["Ready"] == "True" if pods.phase("fine", "Running") else False)
    gone = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    pods.kubectl("patch", "pod", "fine", "--subresource=status", "-p", json.dumps(gone))
    eventually(lambda: pods.conditions("fine")["Ready"] == "True")


def test_what_happens_while_the_api_server_is_away_is_told_later(pods: Pods, tmp_path: Path) -> None:
    if not pods.node.cluster.pids:
        pytest.skip("this cluster's API server was not started by the tests, so they do not stop it")
    go = tmp_path / "go"
    pods.create("works", f"containers: [{{command: [sh, -c, 'until [ -e {go} ]; do sleep 0.1; done; exit 4']}}]")
    pid = pid_of(pods.phase("works", "Running"))
    pods.node.cluster.stop_api_server()
    try:
        assert runs(pid)
        go.touch()
        eventually(lambda: not runs(pid))
    finally:
        pods.node.cluster.start_api_server()
    assert ended(pods.phase("works", "Failed"))["exitCode"] == 4
    pods.create("next", "containers: [{command: ['true']}]")
    pods.phase("next", "Succeeded")


def test_a_pod_starts_quickly_and_its_end_is_known_quickly(pods: Pods) -> None:
    """Times by the process's own clock: from the creation's return to its first line, from its last to the status."""
    starts, ends = [], []
    for number in range(5):
        name = f"quick-{number}"
        began = time.time()
        pods.create(name, "containers: [{command: [sh, -c, 'date +%s.%N; sleep 0.2; date +%s.%N']}]")
        eventually(lambda name=name: pods.get(name).get("status", {}).get("phase") == "Succeeded")  # type: ignore[misc]
        seen = time.time()
        first, last = map(float, pods.logs(name).split())
        starts.append(first - began)
        ends.append(seen - last)
    print("seconds to the start", [f"{t:.3f}" for t in starts], "to the status, polled", [f"{t:.3f}" for t in ends])
    # On an idle machine a tenth of this; the bounds catch a poll, not a busy machine.
    assert min(starts) < 3
    assert min(ends) < 2


def test_an_idle_agent_costs_little(pods: Pods) -> None:
    pods.create("idle", SLEEPER)
    pods.phase("idle", "Running")
    fields = Path(f"/proc/{pods.node.agent.pid}/stat")

    def cpu_seconds() -> float:
        parts = fields.read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    before, began = cpu_seconds(), time.monotonic()
    lease = ("-n", "kube-node-lease", "get", "lease", pods.node.name, "-o", "jsonpath={.spec.renewTime}")
    for _ in range(3):
        renewed = pods.node.cluster.kubectl(*lease)
        eventually(lambda renewed=renewed: pods.node.cluster.kubectl(*lease) != renewed)  # type: ignore[misc]
    share = (cpu_seconds() - before) / (time.monotonic() - began)
    print(f"share of one CPU: {share:.2%}")
    assert share < 0.1
