"""A cluster that outlives the command that started it: up, found again, used by a command, down.

    python -m whimbrel_testbed.kubernetes.standing up | down | load ARCHIVE | run COMMAND…

How a cluster is started and what its node is stand elsewhere. There is one for each cache directory.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whimbrel_testbed.cache import TestbedError, announce, cache_directory, locked
from whimbrel_testbed.endings import end_by_exception, run_to_its_end
from whimbrel_testbed.kubernetes import own
from whimbrel_testbed.kubernetes.build import control_plane_binary
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, kubernetes_cluster
from whimbrel_testbed.kubernetes.kubectl import run_kubectl
from whimbrel_testbed.kubernetes.node import probe
from whimbrel_testbed.kubernetes.node.images import load_archive
from whimbrel_testbed.kubernetes.node.probe import Choice
from whimbrel_testbed.kubernetes.node.programs import node_programs
from whimbrel_testbed.kubernetes.node.start import about
from whimbrel_testbed.processes import HOST
from whimbrel_testbed.serve import serve

ADDRESS, NODE = "WHIMBREL_TESTBED_ADDRESS", "WHIMBREL_TEST_NODE"
_NAME = "cluster"
_STATE, _LOG, _KUBECONFIG = "state.json", "log", "kubeconfig"
_DOWN_SECONDS = 90.0
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Standing:
    """A cluster that runs: the process that keeps it and its start (in the kernel's clock ticks), and how to use it.

    `node` is `kubelet` or `agent`, `words` says what that is and why; `address` is where pods reach this machine's
    servers. `socket` is containerd's, empty with the agent; `logs` are files by the name of the process.
    """

    pid: int
    born: int
    kubeconfig: str
    server: str
    version: str
    node: str
    words: str
    address: str
    socket: str
    logs: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """Return what makes kubectl, the test bed's servers and the tests use it."""
        return {
            "KUBECONFIG": self.kubeconfig, own.CLUSTER: "own", own.KUBECONFIG: self.kubeconfig,
            ADDRESS: self.address, NODE: self.node,
        }  # fmt: skip

    def told(self) -> str:
        """Return what a person needs to know of it."""
        return (
            f"Kubernetes {self.version} at {self.server}, with {self.words}\n"
            f"export KUBECONFIG={shlex.quote(self.kubeconfig)}"
        )

    def as_asked(self, wanted: str) -> Standing:
        """Return it where its node is the one that is asked for ("": any). Raises TestbedError where it is not."""
        if wanted not in ("", self.node):
            raise TestbedError(
                f"A cluster runs already, with {self.words}; {probe.CHOICE}={wanted} asks for another: "
                "make cluster-down, and again."
            )
        return self


def found() -> Standing | None:
    """Return the cluster that runs, None where none does. Raises TestbedError where its API server does not answer."""
    state = known()
    if state is None:
        return None
    try:
        run_kubectl([f"--kubeconfig={state.kubeconfig}"], ("get", "--raw", "/readyz"), None, _ANSWER_SECONDS)
    except TestbedError as error:
        raise TestbedError(f"The cluster at {state.server} does not answer: make cluster-down. {error}") from error
    return state


def known() -> Standing | None:
    """Return the cluster that runs, whether it answers or not; None where none does, or one still starts.

    Raises TestbedError where what it has written about itself cannot be read.
    """
    told = _told()
    if told.keys() <= {"pid", "born"}:
        return None
    try:
        return Standing(**told)
    except TypeError as error:
        raise TestbedError(f"{_folder() / _STATE} is of another version: make cluster-down. {error}") from error


def up(progress: Callable[[str], None] = announce) -> tuple[Standing, bool]:
    """Return the cluster that runs, and whether it was started now.

    Raises TestbedError where none can be started, and where the one that runs is not what $WHIMBREL_NODE asks for.
    """
    wanted = probe.wanted()
    with locked(_NAME):
        there = found()
        return (there.as_asked(wanted), False) if there is not None else (_start(progress), True)


def down() -> bool:
    """End the cluster, one that still starts too, and wait until nothing of it is left; False where there was none."""
    with locked(_NAME):
        return _ended()


def _ended() -> bool:
    told = _told()
    if told:
        _end(told["pid"], told["born"])
    shutil.rmtree(_folder(), ignore_errors=True)
    return bool(told)


def load(archive: Path) -> None:
    """Give an image archive to the node, under the name that stands in it. Raises TestbedError where that cannot be."""
    state = found()
    if state is None:
        raise TestbedError("No cluster runs: make cluster")
    if not state.socket:
        raise TestbedError(f"The cluster has {state.words}: it takes no images.")
    load_archive(node_programs(), Path(state.socket), archive)


def _start(progress: Callable[[str], None]) -> Standing:
    # One whose starter was killed starts still, with nobody to follow it.
    _ended()
    folder = _folder()
    folder.mkdir(mode=0o700)
    # The address of the last cluster, maybe, which went with it.
    environment = {name: text for name, text in os.environ.items() if name != ADDRESS}
    with (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__, "serve"], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        _write({"pid": process.pid, "born": _born(process.pid) or 0})
        return _followed(process, folder / _LOG, progress)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _followed(process: subprocess.Popen[bytes], log: Path, progress: Callable[[str], None]) -> Standing:
    """Pass on what it says until it runs."""
    told = 0
    while (state := known()) is None:
        ended = process.poll() is not None
        told = _tell(log, told, progress)
        if ended:
            raise TestbedError("The cluster did not start: see the lines above.")
        time.sleep(_POLL_SECONDS)
    _tell(log, told, progress)
    return state


def _tell(log: Path, told: int, progress: Callable[[str], None]) -> int:
    """Pass on whole lines from that place of the log on; return where the next ones begin."""
    new = log.read_bytes()[told:]
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if not line.startswith("{"):
            progress(line.removeprefix("testbed: "))
    return told + len(whole)


def _end(pid: int, born: int) -> None:
    deadline = time.monotonic() + _DOWN_SECONDS
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while _born(pid) == born:
            if time.monotonic() > deadline:
                # What watches over its servers ends them then.
                os.kill(pid, signal.SIGKILL)
                raise TestbedError(f"The cluster did not end within {_DOWN_SECONDS:.0f} s and was killed.")
            time.sleep(_POLL_SECONDS)


def _folder() -> Path:
    return cache_directory() / _NAME


def _told() -> dict[str, Any]:
    """Return what is written of a cluster whose process lives, while it starts that process alone; else nothing."""
    try:
        told: dict[str, Any] = json.loads((_folder() / _STATE).read_text(encoding="utf-8"))
        return told if _born(told["pid"]) == told["born"] else {}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise TestbedError(f"{_folder() / _STATE} is not what a cluster writes: remove it. {error!r}") from error


def _write(told: Mapping[str, Any]) -> None:
    written = _folder() / f"{_STATE}.new"
    written.write_text(json.dumps(told), encoding="utf-8")
    written.rename(_folder() / _STATE)


def _born(pid: int) -> int | None:
    """Return when a process began (proc(5), stat, field 22), None where it has ended; a process id is used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


@contextmanager
def _kept() -> Iterator[Mapping[str, Any]]:
    """Run a cluster, and say of it in the folder that it runs."""
    choice = probe.choose()
    with kubernetes_cluster(real_node=choice.programs) as cluster:
        kubeconfig = _folder() / _KUBECONFIG
        shutil.copy(cluster.kubeconfig, kubeconfig)
        state = asdict(_standing(cluster, choice, kubeconfig))
        _write(state)
        yield state


def _standing(cluster: KubernetesCluster, choice: Choice, kubeconfig: Path) -> Standing:
    real = cluster.real_node
    words = f"the process agent in a node's place: pods run as processes, without containers, as {choice.why_not}"
    if choice.programs is not None:
        words = f"a real node: {about(control_plane_binary(), choice.programs)}"
    return Standing(
        pid=os.getpid(), born=_born(os.getpid()) or 0, kubeconfig=str(kubeconfig), server=cluster.server,
        version=cluster.version, node=choice.node.value, words=words,
        address=HOST if real is None else real.network.machine, socket="" if real is None else str(real.socket),
        logs={name: str(path) for name, path in cluster.logs.items()},
    )  # fmt: skip


def run_with(command: list[str]) -> int:
    """Run a command with a cluster, the one that runs or one for it alone; return its exit code."""
    state, started = up()
    try:
        print(state.told(), flush=True)
        return run_to_its_end(command, state.environment())
    finally:
        if started:
            down()
            print("The cluster is down again.", flush=True)


def main(arguments: list[str]) -> int:
    """Do what the first argument says; 0, or 1 with the reason, or the exit code of the command that was run."""
    try:
        return _main(*arguments)
    except TestbedError as error:
        announce(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _main(what: str = "", *rest: str) -> int:
    if what == "up" and not rest:
        state, started = up()
        print(state.told())
        print(f"{'Started' if started else 'Found running'}; it goes with: make cluster-down")
    elif what == "down" and not rest:
        print("The cluster is down." if down() else "No cluster runs.")
    elif what == "load" and len(rest) == 1:
        load(Path(rest[0]))
    elif what == "run" and rest:
        return run_with(list(rest))
    elif what == "serve" and not rest:
        serve(_kept())
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    end_by_exception()
    sys.exit(main(sys.argv[1:]))
