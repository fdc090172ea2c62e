"""The demo on a Kubernetes cluster of its own: kubectl applies the example, the operator does the work."""

import shlex
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import helm_python
from rich.console import Console

from whimbrel_cli.demo.acts import one_way, there_and_back
from whimbrel_cli.demo.director import Director
from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.pairs import set_stage
from whimbrel_cli.demo.report import show_around, show_failure, show_figures, verdict
from whimbrel_cli.demo.shell import Shell
from whimbrel_cli.demo.stage import (
    Side,
    Stage,
    say,
    step,
    wait_for_interrupt,
    write_manifest,
    write_secrets,
)
from whimbrel_cli.demo.traveller import Traveller
from whimbrel_cli.exits import Exit
from whimbrel_cli.figures import clock, count
from whimbrel_cli.guidance import Resource
from whimbrel_operator.errors import NotFound
from whimbrel_operator.runtime.cluster_access import Cluster
from whimbrel_operator.runtime.cluster_store import ClusterStore
from whimbrel_operator.runtime.port import Key
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.build import control_plane_binary
from whimbrel_testbed.kubernetes.cluster import kubernetes_cluster

_ROOT: Final = Path(__file__).resolve().parents[3]
CHART: Final = _ROOT / "charts" / "whimbrel"
CRDS: Final = _ROOT / "crds"
NAMESPACE: Final = "flights"
SYSTEM: Final = "whimbrel-system"
_VALUES: Final = {"replicas": 1, "crds": {"enabled": False}}
_SHOWN_VALUES: Final = "--set replicas=1 --set crds.enabled=false --no-hooks"
_POLL: Final = 0.3


def play(stack: ExitStack, console: Console, options: Options) -> Exit:
    """The whole demo. What it starts is ended by `stack`. Raises TestbedError."""
    with step(console, "Making Kubernetes ready (the first time it is built, which takes minutes)"):
        control_plane_binary(lambda line: _progress(console, line))
    stage = set_stage(stack, console, options)
    kubeconfig = _start_cluster(stack, console, stage)
    shell = Shell(console, kubeconfig, stage.folder)
    _install(console, shell)
    code = move(stage, options, shell)
    if not options.keep:
        console.print("\nTo look around in the cluster afterwards: whimbrel demo --on-cluster --keep", highlight=False)
        return code
    show_around(stage, console, _around(kubeconfig, shell))
    wait_for_interrupt()
    return code


def move(stage: Stage, options: Options, shell: Shell, namespace: str = NAMESPACE) -> Exit:
    """Applies the example in a new namespace of a cluster that has the operator, and plays until its end.

    Servers and cluster stay as they are then. `shell`'s kubeconfig has the namespace from then on. Raises TestbedError.
    """
    console = shell.console
    _prepare(stage, console, shell, options.example, namespace)
    console.print(
        f"\nAn application now writes to {stage.source}, {count(options.rate)} rows a second (seed {options.seed}).\n",
        highlight=False,
    )
    store, key = ClusterStore(Cluster(shell.kubeconfig)), Key(namespace, "Migration", "flights")
    acts = there_and_back if options.way_back else one_way
    with Traveller(stage, options) as traveller:
        director = Director(stage, options, console, traveller, _Orders(shell), acts)
        traveller.start(Side.SOURCE)
        shell.run("apply", "-f", str(stage.folder / "migration.yaml"))
        with shell.following("get", "mig", "-w"):
            timed_out = _Watch(store, key, director, shell).until_over(options.timeout)
        director.stop()
    show_figures(console, director)
    if not director.played:
        return _failed(store, director, console, shell, timed_out=timed_out)
    console.print()
    shell.run("get", "mig,val", "-o", "wide")
    return verdict(console, director)


def _progress(console: Console, line: str) -> None:
    console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _start_cluster(stack: ExitStack, console: Console, stage: Stage) -> Path:
    """Starts the cluster with our kinds of resources; gives a kubeconfig whose context has the demo's namespace."""
    with step(console, "Starting Kubernetes: etcd, API server, controllers, scheduler, a node that runs processes"):
        cluster = stack.enter_context(kubernetes_cluster(crds=CRDS, progress=lambda line: _progress(console, line)))
    kubeconfig = stage.folder / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    kubeconfig.chmod(0o600)
    return kubeconfig


def _install(console: Console, shell: Shell) -> None:
    """Brings the operator up from the chart. The custom resource definitions came with the cluster."""
    console.print()
    shell.show(f"kubectl apply --server-side -f {CRDS.name}/     # done when the cluster started")
    shell.run("create", "namespace", SYSTEM)
    shown = f"helm template whimbrel charts/whimbrel -n {SYSTEM} {_SHOWN_VALUES} | kubectl apply -n {SYSTEM} -f -"
    shell.run("apply", "-n", SYSTEM, "-f", "-", given=rendered_chart(), shown=shown)
    try:
        shell.run("rollout", "status", "-n", SYSTEM, "deployment/whimbrel", "--timeout=90s")
    except TestbedError:
        shell.run("describe", "pods", "-n", SYSTEM)
        shell.run("logs", "-n", SYSTEM, "deployment/whimbrel", "--tail=30")
        raise


def rendered_chart() -> str:
    """The objects of the chart as YAML documents, with the demo's values; neither its notes nor its CRDs nor hooks."""
    helm_python.disable_logging()
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(_VALUES, name="whimbrel", namespace=SYSTEM)
    names = [name for name in files if name.endswith(".yaml") and "helm.sh/hook" not in files[name]]
    # A Deployment whose account is not there yet waits for longer than the account takes.
    return "\n---\n".join(files[name] for name in sorted(names, key=lambda name: ("deployment" in name, name)))


def _prepare(stage: Stage, console: Console, shell: Shell, example: Path, namespace: str) -> None:
    """Writes the manifest, and makes the namespace with the Secrets; their values come from files."""
    write_manifest(stage, console, example)
    folder, secrets = stage.folder / "secrets", stage.secrets()
    write_secrets(folder, secrets)
    shell.run("create", "namespace", namespace)
    shell.run("config", "set-context", "--current", f"--namespace={namespace}")
    for name in secrets:
        shell.run("create", "secret", "generic", name, f"--from-file={folder / name}")


@dataclass(frozen=True)
class _Orders:
    """What a person types."""

    shell: Shell

    def approve(self, plan: str) -> None:
        """Looks at the migration first."""
        say(self.shell.console, "A person now looks at the migration, reads the plan, and approves it:")
        self.shell.run("whimbrel", "status", "flights")
        self.shell.run("whimbrel", "approve", "flights", "--plan", plan)

    def show(self) -> None:
        """Both resources."""
        self.shell.run("whimbrel", "status", "flights")
        self.shell.run("get", "reversesyncs")

    def roll_back(self) -> None:
        """Without being asked again."""
        self.shell.run("whimbrel", "rollback", "flights", "--yes")


@dataclass
class _Watch:
    """Looks at the migration until it is over, lets the director act, and prints new events."""

    store: ClusterStore
    key: Key
    director: Director
    shell: Shell
    _told: set[tuple[datetime, str, str]] = field(default_factory=set)

    def until_over(self, timeout: float) -> bool:
        """Returns at the play's end, where something stalls, or after so many seconds: then True."""
        deadline = time.monotonic() + timeout
        back = Key(self.key.namespace, "ReverseSync", self.key.name)
        while time.monotonic() < deadline:
            over = self.director.look([self.store.get(self.key), *self._there(back)])
            self._tell_events()
            if over:
                return False
            time.sleep(_POLL)
        return True

    def _there(self, key: Key) -> list[Resource]:
        """A resource that comes and goes."""
        try:
            return [self.store.get(key)]
        except NotFound:
            return []

    def _tell_events(self) -> None:
        for event in self.store.events(self.key):
            if (event.at, event.reason, event.message) not in self._told:
                self._told.add((event.at, event.reason, event.message))
                style = "yellow" if event.type == "Warning" else "dim"
                self.shell.print(f"  {clock(event.at)} {event.type} {event.reason}: {event.message}", style)


def _failed(store: ClusterStore, director: Director, console: Console, shell: Shell, *, timed_out: bool) -> Exit:
    """Shows what operator and workers said last. Gives the exit code."""
    shell.run("describe", "mig", "flights")
    shell.run("get", "jobs,pods,workerreports,reversesyncs")
    shell.run("logs", "-n", SYSTEM, "deployment/whimbrel", "--tail=30")
    return show_failure(store, director, console, timed_out=timed_out)


def _around(kubeconfig: Path, shell: Shell) -> list[tuple[str, str]]:
    path = shell.environment["PATH"].partition(":")[0]
    return [
        ("the cluster", f'export KUBECONFIG={shlex.quote(str(kubeconfig))} PATH={shlex.quote(path)}:"$PATH"'),
        ("the migration", "kubectl get mig,val -o wide; kubectl describe mig flights; kubectl whimbrel status flights"),
        ("its workers", "kubectl get jobs,pods,workerreports; kubectl get events"),
        ("the operator", f"kubectl logs -n {SYSTEM} deployment/whimbrel"),
        ("what goes with it", "kubectl delete mig flights; kubectl get jobs,pods,workerreports"),
    ]
