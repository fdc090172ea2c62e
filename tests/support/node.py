"""A node agent started for a test, and pods made for its node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

Json = dict[str, Any]
T = TypeVar("T")
PATIENCE = 30.0


def eventually(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Look until what is seen is true; fail with what was seen last."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {seconds} s"
        time.sleep(0.05)
    return seen


@dataclass
class TestNode:
    """An agent as a process of its own, on a cluster; its pods are made in one namespace."""

    __test__ = False
    cluster: KubernetesCluster
    directory: Path
    name: str = field(default_factory=lambda: f"node-{os.getpid()}-{os.urandom(3).hex()}")
    options: list[str] = field(default_factory=list)
    """Further arguments of the agent."""
    agent: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the agent, and return when the node is Ready."""
        command = [
            sys.executable, "-m", "whimbrel_testbed.kubernetes.agent", "--kubeconfig", str(self.cluster.kubeconfig),
            "--node-name", self.name, "--directory", str(self.directory / "node"), "--renew-seconds", "1",
            *self._certificate(), *self.options,
        ]  # fmt: skip
        with (self.directory / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(lambda: self.cluster.kubectl("get", "node", self.name, "--ignore-not-found", "-o", "name"))
        self.cluster.kubectl("wait", f"node/{self.name}", "--for=condition=Ready", "--timeout=30s")

    def _certificate(self) -> list[str]:
        """Name the cluster's own certificate for loopback, without which its API server asks no node for logs."""
        certificate = self.cluster.directory / "credentials" / "server-127.0.0.1.crt"
        if not certificate.exists():
            return []
        return ["--cert-file", str(certificate), "--key-file", str(certificate.with_suffix(".key"))]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the agent."""
        self.agent.send_signal(number)
        self.agent.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What the agent printed."""
        return (self.directory / "agent.log").read_text()


@contextmanager
def running_node(cluster: KubernetesCluster, directory: Path) -> Iterator[TestNode]:
    """Give a node with its agent; both are gone afterwards."""
    node = TestNode(cluster, directory)
    node.start()
    try:
        yield node
        assert "Traceback" not in node.log, node.log
    finally:
        if node.agent.poll() is None:
            node.stop()
        cluster.kubectl("delete", "node", node.name, "--ignore-not-found", "--wait=false")


@dataclass(frozen=True)
class Pods:
    """Pods of one namespace, bound to one node."""

    node: TestNode
    namespace: str

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.node.cluster.kubectl("-n", self.namespace, *arguments, input=given)

    def apply(self, manifest: str | Json) -> None:
        """Create what a manifest (YAML) describes."""
        self.kubectl("create", "-f", "-", given=manifest if isinstance(manifest, str) else json.dumps(manifest))

    def spec(self, text: str) -> Json:
        """Return a pod spec (YAML) bound to the node, with an image that nobody has."""
        spec: Json = yaml.safe_load(text)
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            container.setdefault("image", "nobody.invalid/has:this")
            container.setdefault("name", "main")
        return {"nodeSelector": {"kubernetes.io/hostname": self.node.name}, "restartPolicy": "Never", **spec}

    def create(self, name: str, spec: str, **metadata: Any) -> None:
        """Create a pod."""
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": self.spec(spec)})

    def get(self, name: str) -> Json:
        """Return a pod, empty where there is none."""
        text = self.kubectl("get", "pod", name, "-o", "json", "--ignore-not-found")
        found: Json = json.loads(text or "{}")
        return found

    def phase(self, name: str, *wanted: str, seconds: float = PATIENCE) -> Json:
        """Return the pod once it is in one of those phases."""

        def look() -> Json | None:
            pod = self.get(name)
            return pod if pod.get("status", {}).get("phase") in wanted else None

        return eventually(lambda: look() or {}, seconds)

    def state(self, name: str, kind: str, number: int = 0) -> Json:
        """Return the state of a container once it is of that kind (`waiting`, `running` or `terminated`)."""

        def look() -> Json:
            statuses = self.get(name).get("status", {}).get("containerStatuses") or []
            state: Json = statuses[number]["state"].get(kind) or {} if statuses else {}
            return state

        return eventually(look)

    def conditions(self, name: str) -> dict[str, str]:
        """Return the pod's conditions by type."""
        return {one["type"]: one["status"] for one in self.get(name)["status"]["conditions"]}

    def events(self, name: str) -> dict[str, str]:
        """Return the last message of each kind of Event about a pod."""
        found = json.loads(
            self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json")
        )
        return {event["reason"]: event["message"] for event in found["items"]}

    def logs(self, name: str, *options: str) -> str:
        return self.kubectl("logs", name, *options)
