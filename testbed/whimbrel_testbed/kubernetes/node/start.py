"""Starts a real node's programs, each as a child process watched over like every server of the test bed."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed.cache import run
from whimbrel_testbed.kubernetes.build import go_architecture
from whimbrel_testbed.kubernetes.credentials import NODE_NAME, Credentials
from whimbrel_testbed.kubernetes.node import configuration
from whimbrel_testbed.kubernetes.node.images import load_archive, pause_archive
from whimbrel_testbed.kubernetes.node.network import free_network
from whimbrel_testbed.kubernetes.node.programs import Programs
from whimbrel_testbed.processes import Child

NAMESPACES, CONTAINERD, KUBELET, KUBE_PROXY = "node", "containerd", "kubelet", "kube-proxy"
_PROXY_HEALTH = 10256


@dataclass(frozen=True)
class Identity:
    """Who a node is in its cluster: certificates, and the kubeconfigs of kubelet and kube-proxy."""

    credentials: Credentials
    kubelet: Path
    kube_proxy: Path


class RealNode:
    """The node of one cluster; `children` are its processes by name. Whoever made it closes the stack."""

    def __init__(self, programs: Programs, stack: ExitStack) -> None:
        self._programs, self._stack = programs, stack
        self.children: dict[str, Child] = {}
        self.network = free_network(_taken())
        # Made first, it is closed last: with it go the processes of all others.
        self._namespaces = self._make(NAMESPACES, signal.SIGTERM)
        self._places = configuration.Places(self._namespaces.directory, programs.plugins)

    @property
    def socket(self) -> Path:
        """Where its containerd listens."""
        return self._places.socket

    def start_network(self) -> None:
        """Make namespaces and network: from now on the machine has the address that the API server is to listen on."""
        child = self._namespaces
        module = "whimbrel_testbed.kubernetes.node"
        command = [sys.executable, "-m", module, str(child.directory), NODE_NAME, str(self.network.number)]
        child.start(command, self._places.first_process.is_file)

    def start_programs(self, binary: Path, who: Identity, registered: Callable[[], bool]) -> None:
        """Start containerd, kubelet (`binary` holds it) and kube-proxy; return once the node is registered."""
        self._start_containerd()
        self._start_kubelet(binary, who, registered)
        settings = self._write("kube-proxy.yaml", configuration.kube_proxy(self.network, NODE_NAME, who.kube_proxy))
        command = [str(binary), "kube-proxy", f"--config={settings}"]
        self._start(KUBE_PROXY, command, lambda: _is_well(f"http://{self.network.node}:{_PROXY_HEALTH}/healthz"))

    def _start_containerd(self) -> None:
        places = self._places
        places.networks.mkdir()
        self._write("networks/10-pods.conflist", configuration.pod_network(self.network))
        settings = self._write("containerd.toml", configuration.containerd(places))
        self._start(CONTAINERD, [self._programs.find("containerd"), f"--config={settings}"], places.socket.exists)
        archive = places.directory / "pause.tar"
        archive.write_bytes(pause_archive(self._programs.busybox.read_bytes(), go_architecture()))
        load_archive(self._programs, places.socket, archive)

    def _start_kubelet(self, binary: Path, who: Identity, registered: Callable[[], bool]) -> None:
        settings = self._write("kubelet.yaml", configuration.kubelet(self._places, self.network, who.credentials))
        folders = {"root-dir": "kubelet", "cert-dir": "kubelet-certificates"}
        command = [
            str(binary), "kubelet", f"--config={settings}", f"--kubeconfig={who.kubelet}",
            f"--node-ip={self.network.node}", f"--hostname-override={NODE_NAME}",
            *(f"--{option}={self._places.directory / folder}" for option, folder in folders.items()),
        ]  # fmt: skip
        self._start(KUBELET, command, registered)

    def _start(self, name: str, command: list[str], ready: Callable[[], bool]) -> None:
        first = self._places.first_process.read_text()
        enter = ["nsenter", f"--target={first}", "--net", "--mount", "--pid", "--ipc", "--uts", "--"]
        environment = self._programs.environment(os.environ.get("PATH", os.defpath))
        self._make(name).start([*enter, *command], ready, environment)

    def _make(self, name: str, end_signal: int = signal.SIGKILL) -> Child:
        child = self.children[name] = Child(name, end_signal=end_signal)
        self._stack.callback(child.close)
        return child

    def _write(self, name: str, text: str) -> Path:
        path = self._places.directory / name
        path.write_text(text, encoding="utf-8")
        return path


def about(binary: Path, programs: Programs) -> str:
    """Return the versions of a real node's programs, for a reader."""
    kubelet = run([str(binary), "kubelet", "--version"], what="kubelet --version", timeout=60).split()[-1]
    said = run(programs.command("containerd", "--version"), what="containerd --version", timeout=60).split()
    return f"kubelet {kubelet}, containerd {said[2]}"


def _taken() -> list[str]:
    """Return all networks and addresses that the machine has routes to; its own addresses are among them."""
    text = run(["ip", "-json", "-4", "route", "show", "table", "all"], what="Reading the routes", timeout=30)
    return [str(route["dst"]) for route in json.loads(text or "[]")]


def _is_well(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - an address of the node
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
