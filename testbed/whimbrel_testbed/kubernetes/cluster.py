"""A Kubernetes cluster for tests and demonstrations: the real control plane, and a node.

How each server is called stands in `servers`, where the program comes from in `build`, what a real node is in `node`.
"""

from __future__ import annotations

import json
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel_testbed.cache import TestbedError, announce
from whimbrel_testbed.kubernetes import credentials as who
from whimbrel_testbed.kubernetes.build import control_plane_binary
from whimbrel_testbed.kubernetes.health import answers, client_context, steady_ports
from whimbrel_testbed.kubernetes.kubectl import TIMEOUT_SECONDS, run_kubectl
from whimbrel_testbed.kubernetes.node.programs import Programs
from whimbrel_testbed.kubernetes.node.start import Identity, RealNode
from whimbrel_testbed.kubernetes.servers import Layout, Ports
from whimbrel_testbed.processes import HOST, Child

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLERS, SCHEDULER = "kube-controller-manager", "kube-scheduler"
NODE_AGENT = "node-agent"
_READY_SECONDS = 90.0
_LOOK_SECONDS = 0.05
_NO_CONDITIONS = ".status.conditions accessor error"
"""What `kubectl wait` gives up with at once where a controller has not written the first condition yet (v1.36)."""


@dataclass
class KubernetesCluster:
    """A cluster that answers; `kubeconfig` is its administrator's, `directory` a place for files that go with it."""

    kubeconfig: Path
    server: str
    version: str
    directory: Path
    _options: list[str] = field(repr=False)
    _servers: _Servers | None = field(repr=False, default=None)

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = TIMEOUT_SECONDS) -> str:
        """Run kubectl as the administrator; return what it printed. TestbedError holds its message where it fails."""
        return run_kubectl(self._options, arguments, input, timeout)

    def install(self, crds: Path) -> None:
        """Apply custom resource definitions, a file or a directory, and wait until the API server serves them."""
        self.kubectl("apply", "--server-side", "-f", str(crds))
        self.wait("Established", "-f", str(crds))

    def wait(self, condition: str, *what: str, seconds: float = _READY_SECONDS) -> None:
        """Return once the condition is true of what `kubectl wait` takes as its arguments; TestbedError otherwise."""
        arguments = ("wait", f"--for=condition={condition}", f"--timeout={seconds:.0f}s", *what)
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.kubectl(*arguments, timeout=seconds + 10)
                return
            except TestbedError as error:
                if _NO_CONDITIONS not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_SECONDS)

    def stop_api_server(self) -> None:
        """Take the API server away, as a crash does: connections break, and nobody listens on its port."""
        self._started().child(API_SERVER).kill()

    def start_api_server(self) -> None:
        """Bring the API server back on the same port with the same data; returns when it is ready."""
        self._started().restart_api_server()

    def server_process(self, name: str) -> Child:
        """Return one of the processes by name (`etcd`, `kube-scheduler`, `node-agent` …), to suspend or to kill it."""
        return self._started().child(name)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by name; empty for a cluster of one's own."""
        return {} if self._servers is None else self._servers.pids()

    @property
    def logs(self) -> dict[str, Path]:
        """What its processes print, by name; the files go with the cluster."""
        return {} if self._servers is None else self._servers.logs()

    @property
    def real_node(self) -> RealNode | None:
        """Its node, where that is a real one of the test bed's."""
        return None if self._servers is None else self._servers.real_node

    def _started(self) -> _Servers:
        if self._servers is None:
            raise TestbedError(f"{self.server} was not started by the test bed, so it does not stop or start it.")
        return self._servers


@contextmanager
def kubernetes_cluster(
    *,
    nodes: bool = True,
    progress: Callable[[str], None] = announce,
    crds: Path | None = None,
    real_node: Programs | None = None,
) -> Iterator[KubernetesCluster]:
    """Start a cluster and end it: etcd, API server, controllers, scheduler and, with `nodes`, a node.

    The node runs pods as processes; with the programs of a real one it runs them as containers, and the API server
    listens where they reach it.

    `crds` is a file or directory applied before the controllers start: the garbage collector learns of a kind that
    comes later only within half a minute. Nothing is left behind, even where this process is killed.
    """
    binary = control_plane_binary(progress)
    with ExitStack() as stack:
        started = time.monotonic()
        servers = _Servers(binary, stack, real_node)
        servers.start_store_and_api()
        cluster = servers.cluster()
        if crds is not None:
            cluster.install(crds)
        servers.start_others(nodes=nodes)
        if nodes:
            cluster.wait("Ready", f"node/{who.NODE_NAME}")
        progress(f"Kubernetes {cluster.version} is ready at {cluster.server} ({time.monotonic() - started:.1f} s)")
        yield cluster


class _Servers:
    """The processes of one cluster; whoever made it closes the stack."""

    def __init__(self, binary: Path, stack: ExitStack, programs: Programs | None = None) -> None:
        self._stack = stack
        self._children: dict[str, Child] = {}
        self.real_node = None if programs is None else RealNode(programs, stack)
        network = None if self.real_node is None else self.real_node.network
        addresses = [] if network is None else [network.machine, network.node]
        # The API server's directory holds what belongs to the cluster as a whole: its keeper removes it.
        self.directory = self._make(API_SERVER).directory
        own = who.make_credentials(_folder(self.directory / "credentials"), addresses)
        self._layout = Layout(binary, Ports(*steady_ports(5)), own, addresses[0] if addresses else HOST)
        self._context = _context(own)
        self.server = f"https://{self._layout.address}:{self._layout.ports.api_server}"
        self.kubeconfig = self._kubeconfig(who.ADMINISTRATOR, self.directory / "kubeconfig")

    def child(self, name: str) -> Child:
        if name not in self._all():
            raise TestbedError(f"This cluster has no process {name}; it has {', '.join(self._all())}.")
        return self._all()[name]

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._all().items() if child.is_running}

    def logs(self) -> dict[str, Path]:
        return {name: child.log for name, child in self._all().items()}

    def _all(self) -> dict[str, Child]:
        return self._children | ({} if self.real_node is None else self.real_node.children)

    def start_store_and_api(self) -> None:
        if self.real_node is not None:
            self.real_node.start_network()
        layout, etcd = self._layout, self._make(ETCD)
        etcd.start(layout.etcd(etcd.directory / "data"), self._answers(layout.ports.etcd, "/health"))
        self.start_api_server()

    def start_api_server(self) -> None:
        ready = self._api_answers("/readyz")
        self.child(API_SERVER).start(self._layout.api_server(), ready)

    def restart_api_server(self) -> None:
        """Start it again, and after it what ended without it, as the kubelet of a real control plane does."""
        if not self._children[API_SERVER].is_running:
            self.start_api_server()
        for name, start in ((CONTROLLERS, self._start_controllers), (SCHEDULER, self._start_scheduler)):
            if name in self._children and not self._children[name].is_running:
                start()

    def start_others(self, *, nodes: bool) -> None:
        """Start, side by side, what needs the API server."""
        starts = [self._start_controllers, self._start_scheduler]
        if nodes:
            starts.append(self._start_node_agent if self.real_node is None else self._start_real_node)
        with ThreadPoolExecutor(len(starts)) as pool:
            for done in [pool.submit(start) for start in starts]:
                done.result()

    def cluster(self) -> KubernetesCluster:
        # Discovery is kept by address and port, which the next cluster may have again.
        options = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.directory / 'kubectl-cache'}"]
        version = _server_version(options)
        return KubernetesCluster(self.kubeconfig, self.server, version, self.directory, options, self)

    def _start_controllers(self) -> None:
        child, kubeconfig = self._with_kubeconfig(CONTROLLERS, who.CONTROLLERS)
        # Its own /healthz is there before the first controller: what they make for each namespace comes after all.
        ready = self._api_answers("/api/v1/namespaces/default/serviceaccounts/default")
        child.start(self._layout.controllers(kubeconfig), ready)

    def _start_scheduler(self) -> None:
        child, kubeconfig = self._with_kubeconfig(SCHEDULER, who.SCHEDULER)
        child.start(self._layout.scheduler(kubeconfig), self._answers(self._layout.ports.scheduler, "/healthz"))

    def _start_node_agent(self) -> None:
        # Its pods are processes of their own, which it ends on SIGTERM.
        child, kubeconfig = self._with_kubeconfig(NODE_AGENT, who.NODE, end_signal=signal.SIGTERM)
        child.start(self._layout.node_agent(kubeconfig, _folder(child.directory / "node")), self._registered())

    def _start_real_node(self) -> None:
        if self.real_node is None:
            raise TestbedError("This cluster has no real node.")
        kubelet, proxy = (
            self._kubeconfig(user, self.directory / f"kubeconfig-{user.replace(':', '-')}")
            for user in (who.NODE, who.KUBE_PROXY)
        )
        identity = Identity(self._layout.credentials, kubelet, proxy)
        self.real_node.start_programs(self._layout.binary, identity, self._registered())

    def _registered(self) -> Callable[[], bool]:
        return self._api_answers(f"/api/v1/nodes/{who.NODE_NAME}")

    def _make(self, name: str, end_signal: int = signal.SIGKILL) -> Child:
        child = Child(name, end_signal=end_signal)
        self._stack.callback(child.close)
        self._children[name] = child
        return child

    def _with_kubeconfig(self, name: str, user: str, end_signal: int = signal.SIGKILL) -> tuple[Child, Path]:
        """Return the child of that name, made where it is missing, and its kubeconfig."""
        child = self._children.get(name) or self._make(name, end_signal)
        kubeconfig = child.directory / "kubeconfig"
        return child, kubeconfig if kubeconfig.exists() else self._kubeconfig(user, kubeconfig)

    def _kubeconfig(self, user: str, path: Path) -> Path:
        return self._layout.credentials.kubeconfig(user, self.server, path)

    def _answers(self, port: int, path: str) -> Callable[[], bool]:
        return lambda: answers(port, path, self._context)

    def _api_answers(self, path: str) -> Callable[[], bool]:
        return lambda: answers(self._layout.ports.api_server, path, self._context, self._layout.address)


def _context(own: who.Credentials) -> ssl.SSLContext:
    # etcd takes any client of the authority; the others let the administrator in.
    pair = own.users[who.ADMINISTRATOR]
    return client_context(own.ca_file, pair.certificate, pair.key)


def existing_cluster(kubeconfig: Path, directory: Path) -> KubernetesCluster:
    """Return the cluster that a kubeconfig's current context names, which somebody else started.

    `directory` is an empty one for files that go with the use of the cluster.
    """
    options = [f"--kubeconfig={kubeconfig}"]
    view = ("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    server = run_kubectl(options, view, None, TIMEOUT_SECONDS).strip()
    return KubernetesCluster(kubeconfig, server, _server_version(options), directory, options)


def _server_version(options: list[str]) -> str:
    said = json.loads(run_kubectl(options, ("version", "-o", "json"), None, TIMEOUT_SECONDS))
    return str(said["serverVersion"]["gitVersion"])


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
