"""A cluster that outlives its command: with a real node where this machine allows it, and with the process agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.demos import gone
from support.patience import eventually
from whimbrel_testbed.kubernetes.build import control_plane_binary
from whimbrel_testbed.kubernetes.kubectl import kubectl_binary
from whimbrel_testbed.kubernetes.node import cgroups
from whimbrel_testbed.kubernetes.node.images import PAUSE
from whimbrel_testbed.kubernetes.node.network import Network
from whimbrel_testbed.kubernetes.node.probe import Node, probed
from whimbrel_testbed.kubernetes.node.programs import node_programs
from whimbrel_testbed.kubernetes.standing import Standing

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

SPOKEN = "id -u; hostname; nc -w 9 $KUBERNETES_SERVICE_HOST 443 < /dev/null && echo served"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "speaker"},
    "spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "speaker",
                "image": PAUSE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/busybox", "sh", "-c", SPOKEN],
                "resources": {"limits": {"memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
            }
        ],
    },
}


class Bench:
    """A cache and a folder for temporary files of its own, with the machine's control plane and node programs."""

    def __init__(self, scratch: Path, node: Node) -> None:
        self.scratch, cache = scratch, scratch / "cache"
        cache.mkdir()
        if node is Node.KUBELET:
            fetched = node_programs().plugins.parents[2]
            (cache / fetched.name).symlink_to(fetched)
        self.environment = {
            **os.environ, "WHIMBREL_CACHE": str(cache), "WHIMBREL_CONTROLPLANE": str(control_plane_binary()),
            "WHIMBREL_NODE": node.value, "TMPDIR": str(scratch),
            "PATH": f"{kubectl_binary().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }  # fmt: skip

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "whimbrel_testbed.kubernetes.standing", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def up(self) -> str:
        done = self.call("up")
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def state(self) -> Standing:
        return Standing(**json.loads((self.scratch / "cache" / "cluster" / "state.json").read_text()))

    def kubectl(self, *words: str, given: str | None = None) -> str:
        command = [
            str(kubectl_binary()),
            f"--kubeconfig={self.state.kubeconfig}",
            f"--cache-dir={self.scratch / 'k'}",
            *words,
        ]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nothing_left(self, state: Standing) -> None:
        """No process, no file, no link, no route, no control group."""
        gone(self.scratch)
        eventually(lambda: not self._traces(state), lambda: self._traces(state))

    def _traces(self, state: Standing) -> list[str]:
        files = [str(path) for path in self.scratch.glob("whimbrel-*")]
        if state.node == Node.AGENT:
            return files
        network = Network(int(state.address.split(".")[2]))
        said = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True)
        groups = [place / network.group for place in cgroups.hierarchies()]
        routes = [line for line in said.stdout.splitlines() if f"dev {network.link} " in line]
        return files + routes + [str(group) for group in groups if group.exists()]


@pytest.fixture(params=list(Node))
def bench(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Bench]:
    if request.param is Node.KUBELET and (why_not := probed()[1]):
        pytest.skip(f"this machine cannot run a kubelet: {why_not}")
    made = Bench(scratch, request.param)
    yield made
    made.call("down")


def test_it_comes_up_is_found_again_and_goes(bench: Bench) -> None:
    told = bench.up()
    assert f"export KUBECONFIG={bench.state.kubeconfig}" in told
    assert ("a real node: kubelet v1." in told) is (bench.state.node == Node.KUBELET)
    assert "Started; it goes with: make cluster-down" in told
    first = bench.state
    assert "Found running" in bench.up()
    assert bench.state == first
    if first.node == Node.KUBELET:
        runs_containers(bench)
    assert bench.call("down").stdout == "The cluster is down.\n"
    assert bench.call("down").stdout == "No cluster runs.\n"
    bench.nothing_left(first)


def runs_containers(bench: Bench) -> None:
    """With an image, a user, a name and a network of their own, through which they reach the API server's Service."""
    bench.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    bench.kubectl("apply", "-f", "-", given=json.dumps(POD))
    bench.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/speaker", "--timeout=60s")
    assert bench.kubectl("logs", "speaker").split() == ["65532", "speaker", "served"]
    node = json.loads(bench.kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["nodeInfo"]
    assert node["containerRuntimeVersion"].startswith("containerd://")


def test_one_that_is_killed_leaves_nothing_and_can_be_started_again(bench: Bench) -> None:
    bench.up()
    killed = bench.state
    os.kill(killed.pid, signal.SIGKILL)
    bench.nothing_left(killed)
    assert "Started" in bench.up()
    again = bench.state
    assert bench.call("down").returncode == 0
    bench.nothing_left(again)


def test_a_command_runs_with_a_cluster_of_its_own(bench: Bench) -> None:
    done = bench.call("run", "sh", "-c", 'kubectl get nodes -o name; echo "$WHIMBREL_TEST_NODE"; exit 7')
    gone(bench.scratch)
    assert done.returncode == 7
    assert "node/whimbrel-node-1" in done.stdout
    assert bench.environment["WHIMBREL_NODE"] in done.stdout.split()
    assert done.stdout.endswith("The cluster is down again.\n")
