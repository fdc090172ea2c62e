"""One container of a pod: made ready, started, probed, its end recorded. When it is started stands in pods.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from whimbrel_testbed.kubernetes.agent import environment, probes
from whimbrel_testbed.kubernetes.agent.messages import termination_message
from whimbrel_testbed.kubernetes.agent.mounts import PodVolumes
from whimbrel_testbed.kubernetes.agent.paths import rewriter
from whimbrel_testbed.kubernetes.agent.processes import Keeper, Launch, Process
from whimbrel_testbed.kubernetes.agent.shapes import Json, NotYet, Unsupported, now
from whimbrel_testbed.kubernetes.agent.states import Record, Running, Terminated, Waiting, end_of

_MESSAGE_PATH = "/dev/termination-log"
_CANNOT_START = 128
_LOGS_KEPT = 2
_INHERITED = ("LANG", "LC_ALL")

Say = Callable[[Literal["Normal", "Warning"], str, str], None]
"""Posts an Event about the pod: kind, reason, message."""


@dataclass
class Surroundings:
    """What a container has from its pod and node; `changed` is called when its record is another one."""

    pod: Callable[[], Json]
    pod_ip: str
    volumes: PodVolumes
    folder: Path
    api_address: tuple[str, int]
    keeper: Keeper
    changed: Callable[[], None]
    say: Say
    environment_file: Path | None = None


@dataclass
class Container:
    """A container with its record; at most one process at a time."""

    spec: Json
    record: Record
    around: Surroundings
    process: Process | None = None
    _probing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Where the container's logs, its home and its termination message stand."""
        return self.around.folder / "containers" / self.record.name

    def log(self, restart: int) -> Path:
        """Return the log of the run after so many restarts."""
        return self.folder / f"{restart}.log"

    @property
    def ended_with(self) -> int | None:
        """The exit code of the last process, None where none has ended or one runs."""
        return self.record.state.exit_code if isinstance(self.record.state, Terminated) else None

    def wait_because(self, reason: str, message: str = "") -> None:
        """Record that the container waits."""
        self.record.state = Waiting(reason, message)
        self.around.changed()

    async def run(self) -> None:
        """Start the process and return when it ended. NotYet or Unsupported: it cannot start as things are."""
        launch = self._launch()
        _refuse_unsupported(self.spec)
        self._forget_old_logs()
        try:
            self.process = Process(launch, self.around.keeper, self._ended)
        except OSError as error:
            self._end(Terminated(_CANNOT_START, "StartError", f"{launch.command[0]}: {error.strerror}"))
            return
        self.record.state = Running(now(), f"process://{self.process.pid}")
        self.record.started = "startupProbe" not in self.spec
        self.record.ready = self.record.started and "readinessProbe" not in self.spec
        self.around.changed()
        self.around.say("Normal", "Started", f"Container {self.record.name} started as process {self.process.pid}")
        self._probing = asyncio.create_task(self._probe(self.process))
        await self.process.ended.wait()

    async def execute(self, command: list[str], seconds: float) -> bool:
        """Run a command beside the process, in the same environment; true where it ended with 0 in time."""
        codes: list[int] = []
        try:
            launch = replace(self._launch(command), log=Path(os.devnull))
            beside = Process(launch, self.around.keeper, codes.append)
        except (OSError, NotYet):
            return False
        try:
            async with asyncio.timeout(seconds):
                await beside.ended.wait()
        except TimeoutError:
            return False
        finally:
            beside.signal(signal.SIGKILL)
        return codes == [0]

    def _launch(self, command: list[str] | None = None) -> Launch:
        pod, volumes = self.around.pod(), self.around.volumes
        folders = volumes.folders(self.spec)
        home = self.folder / "home"
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        rewrite = rewriter({**folders, self._message_path: str(self._message_file)}, self.around.pod_ip)
        given = node_variables(pod["metadata"]["name"], self.around.api_address) | self._given_by_node()
        resolved = environment.resolve(self.spec, pod, self.around.pod_ip, given, volumes.lookup)
        variables = {name: rewrite(value) for name, value in resolved.items()}
        words = command or environment.command_line(self.spec, resolved)
        places = {"HOME": str(home), "TMPDIR": folders.get("/tmp", str(home / "tmp"))}  # noqa: S108 (a mount path)
        return Launch([rewrite(word) for word in words], places | _search(variables), home, self._log_now())

    def _given_by_node(self) -> dict[str, str]:
        """Read at each start, so that the next container may be given something else."""
        file = self.around.environment_file
        return {} if file is None or not file.exists() else environment.given_by_file(file.read_text())

    def _log_now(self) -> Path:
        return self.log(self.record.restarts)

    @property
    def _message_path(self) -> str:
        return str(self.spec.get("terminationMessagePath") or _MESSAGE_PATH)

    @property
    def _message_file(self) -> Path:
        return self.folder / "termination-log"

    def _forget_old_logs(self) -> None:
        self._message_file.write_bytes(b"")
        self.log(self.record.restarts - _LOGS_KEPT).unlink(missing_ok=True)

    def _ended(self, returncode: int) -> None:
        if self._probing is not None:
            self._probing.cancel()
        state, exit_code, number, reason = self.record.state, *end_of(returncode)
        policy = self.spec.get("terminationMessagePolicy", "File")
        message = termination_message(self._message_file, self._log_now(), policy, exit_code)
        started, container_id = (state.started_at, state.container_id) if isinstance(state, Running) else (None, "")
        self._end(Terminated(exit_code, reason, message, number, started, now(), container_id))

    def _end(self, state: Terminated) -> None:
        self.process = None
        self.record.state, self.record.ready, self.record.started = state, False, False
        self.around.changed()

    async def _probe(self, process: Process) -> None:
        prober = probes.Prober(self.spec, self.around.pod_ip, self.execute)
        if "startupProbe" in self.spec:
            await self._await_startup(prober, process)
        asked = [("readinessProbe", self._set_ready), ("livenessProbe", self._judge(process, "Liveness"))]
        async with asyncio.TaskGroup() as group:
            for name, heard in asked:
                if name in self.spec:
                    group.create_task(probes.verdicts(self.spec[name], prober.ask, heard))

    async def _await_startup(self, prober: probes.Prober, process: Process) -> None:
        done, judge = asyncio.Event(), self._judge(process, "Startup")

        def heard(verdict: bool) -> None:
            judge(verdict)
            if verdict:
                done.set()

        asking = asyncio.create_task(probes.verdicts(self.spec["startupProbe"], prober.ask, heard))
        try:
            await done.wait()
        finally:
            asking.cancel()
        self.record.started, self.record.ready = True, "readinessProbe" not in self.spec
        self.around.changed()

    def _set_ready(self, verdict: bool) -> None:
        if verdict is not self.record.ready:
            self.record.ready = verdict
            self.around.changed()
            if not verdict:
                self.around.say("Warning", "Unhealthy", f"Readiness probe of container {self.record.name} failed")

    def _judge(self, process: Process, name: str) -> Callable[[bool], None]:
        ending: list[asyncio.Future[None]] = []

        def heard(verdict: bool) -> None:
            if verdict or ending:
                return
            self.around.say("Warning", "Unhealthy", f"{name} probe of container {self.record.name} failed")
            self.around.say("Normal", "Killing", f"Container {self.record.name} failed its {name.lower()} probe")
            grace = self.around.pod()["spec"].get("terminationGracePeriodSeconds", 30)
            ending.append(asyncio.ensure_future(process.end(grace)))

        return heard


def _refuse_unsupported(container: Json) -> None:
    probes.supported(container)
    if "restartPolicy" in container:
        raise Unsupported("this node agent has no sidecars: no container with a restartPolicy of its own")


def node_variables(pod_name: str, api_address: tuple[str, int]) -> dict[str, str]:
    """Return the variables that every container has, whatever its pod says; little of the agent's own is among them."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    host, port = api_address
    return inherited | {
        "HOSTNAME": pod_name, "PATH": os.environ.get("PATH", os.defpath),
        "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
    }  # fmt: skip


def _search(variables: Mapping[str, str]) -> dict[str, str]:
    """Put the folder of this Python first on PATH: what the agent can import, a pod can import."""
    first = str(Path(sys.executable).parent)
    return {**variables, "PATH": f"{first}{os.pathsep}{variables['PATH']}"}
