"""The life of one pod on this node, from the moment it is bound until the API server forgets it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whimbrel_testbed.kubernetes.agent.bell import Bell
from whimbrel_testbed.kubernetes.agent.client import AWAY, Api, ApiError
from whimbrel_testbed.kubernetes.agent.containers import Container, Surroundings
from whimbrel_testbed.kubernetes.agent.events import Events
from whimbrel_testbed.kubernetes.agent.mounts import PodVolumes
from whimbrel_testbed.kubernetes.agent.processes import Keeper, Process
from whimbrel_testbed.kubernetes.agent.publisher import Publisher
from whimbrel_testbed.kubernetes.agent.shapes import Json, NotYet, Unsupported, now
from whimbrel_testbed.kubernetes.agent.sources import Sources
from whimbrel_testbed.kubernetes.agent.states import (
    LONGEST_BACKOFF_SECONDS,
    TERMINAL,
    PodView,
    Record,
    StatusField,
    Terminated,
    backoff,
    phase,
    restarts,
    restored,
)

_RETRY_SECONDS = 5.0
_DELETE_RETRY_SECONDS = 0.5
_SETTLED_SECONDS = 2 * LONGEST_BACKOFF_SECONDS
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """What the pods of a node share."""

    name: str
    api: Api
    directory: Path
    sources: Sources
    events: Events
    keeper: Keeper
    environment_file: Path | None = None


class Pod:
    """One pod; `run` returns when nothing of it is left on this node."""

    def __init__(self, node: Node, pod: Json, ip: str) -> None:
        self._node, self.pod, self.ip = node, pod, ip
        self.folder = node.directory / "pods" / pod["metadata"]["uid"]
        self._bell, self._moved, self._gone, self._ending = Bell(), Bell(), False, False
        self._start_time = (pod.get("status") or {}).get("startTime") or now()
        # What ended before this agent began, by whoever's word, is never begun again.
        self._settled = (pod.get("status") or {}).get("phase") in TERMINAL
        self._volumes = PodVolumes(node.api, node.sources, self.folder / "volumes", pod, self._bell)
        self._around = Surroundings(
            lambda: self.pod, ip, self._volumes, self.folder, (node.api.host, node.api.port), node.keeper,
            self._changed, self._say, node.environment_file,
        )  # fmt: skip
        self._inits = self._containers("initContainers", "initContainerStatuses")
        self._mains = self._containers("containers", "containerStatuses")
        self._publisher = Publisher(node.api, self._view)

    def update(self, pod: Json) -> None:
        """Take what the API server says of the pod now."""
        self.pod = pod
        self._publisher.heard(pod.get("status") or {})
        self._bell.ring()
        self._moved.ring()

    def vanish(self) -> None:
        """Take that the API server has the pod no longer."""
        self._gone = True
        self._bell.ring()
        self._moved.ring()

    def container(self, name: str) -> Container | None:
        """Return a container of the pod by name."""
        return next((one for one in [*self._inits, *self._mains] if one.record.name == name), None)

    async def run(self) -> None:
        """Run the pod, end it when it is deleted, and leave nothing behind."""
        publishing = asyncio.create_task(self._publisher.run())
        work = asyncio.create_task(self._work())
        work.add_done_callback(self._report_crash)
        try:
            await self._until_deleted()
            work.cancel()
            await asyncio.wait([work])
            await self._stop_containers()
            await self._leave()
        finally:
            work.cancel()
            publishing.cancel()
            self._volumes.release()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _work(self) -> None:
        if self._settled:
            return
        if phase(self._view()) in TERMINAL:
            self._changed()
            return
        await self._mount()
        refreshing = asyncio.create_task(self._keep_fresh())
        try:
            policy = self.pod["spec"].get("restartPolicy", "Always")
            for container in self._inits:
                if not await self._run(container, "OnFailure" if policy == "Always" else policy):
                    return
            async with asyncio.TaskGroup() as group:
                for container in self._mains:
                    group.create_task(self._run(container, policy))
        finally:
            refreshing.cancel()
        self._volumes.release()

    async def _run(self, container: Container, policy: str) -> bool:
        """Run a container as often as the policy says; return whether it ended well the last time."""
        failures = 0
        while True:
            if container.ended_with is not None:
                if not restarts(policy, container.ended_with):
                    return container.ended_with == 0
                failures += 1
                await self._back_off(container, failures)
            began = time.monotonic()
            await self._start(container)
            if time.monotonic() - began > _SETTLED_SECONDS:
                failures = 0

    async def _back_off(self, container: Container, failures: int) -> None:
        record, seconds = container.record, backoff(failures)
        if isinstance(record.state, Terminated):
            record.last = record.state
        container.wait_because("CrashLoopBackOff", f"back-off {seconds:.0f}s restarting container {record.name}")
        if failures > 1:
            self._say("Warning", "BackOff", f"Back-off restarting failed container {record.name}")
        await asyncio.sleep(seconds)
        record.restarts += 1

    async def _start(self, container: Container) -> None:
        """Run a container once; wait where something it needs is missing."""
        while True:
            rings = self._bell.rings
            try:
                await container.run()
                return
            except NotYet as error:
                reason, message = "CreateContainerConfigError", str(error)
            except Unsupported as error:
                reason, message = "CreateContainerError", str(error)
            container.wait_because(reason, message)
            self._say("Warning", "Failed", f"Container {container.record.name}: {message}")
            await self._bell.wait(rings)

    async def _mount(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._changed()
        await self._volumes.hold()
        while True:
            rings = self._bell.rings
            message = await self._refresh()
            if not message:
                return
            self._say("Warning", "FailedMount", message)
            await self._bell.wait(rings, _RETRY_SECONDS)

    async def _keep_fresh(self) -> None:
        rings = self._bell.rings
        while True:
            await self._bell.wait(rings, self._volumes.seconds_left())
            rings = self._bell.rings
            message = await self._refresh()
            if message:
                self._say("Warning", "FailedMount", message)
                await self._bell.wait(rings, _RETRY_SECONDS)

    async def _refresh(self) -> str:
        """Write the volumes anew; return why that is not possible now, empty where it is done."""
        try:
            await self._volumes.refresh(self.pod, self.ip)
        except (NotYet, Unsupported, ApiError, *AWAY) as error:
            return f"MountVolume.SetUp failed: {error or type(error).__name__}"
        return ""

    async def _until_deleted(self) -> None:
        while not self._gone and "deletionTimestamp" not in self.pod["metadata"]:
            await self._bell.wait(self._bell.rings)
        self._ending = True

    async def _stop_containers(self) -> None:
        began = time.monotonic()
        for container, process in self._running():
            self._say("Normal", "Killing", f"Stopping container {container.record.name}")
            process.signal(signal.SIGTERM)
        while self._running():
            rings = self._moved.rings
            # Looked at anew each time: a second deletion may shorten what the first one left.
            left = began + self._grace() - time.monotonic()
            if left <= 0:
                for _, process in self._running():
                    process.signal(signal.SIGKILL)
            await self._moved.wait(rings, left if left > 0 else None)

    def _running(self) -> list[tuple[Container, Process]]:
        everyone = [*self._inits, *self._mains]
        return [(container, container.process) for container in everyone if container.process is not None]

    def _grace(self) -> float:
        return 0.0 if self._gone else float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    async def _leave(self) -> None:
        """Report the end, and have the API server forget the pod."""
        if self._gone:
            return
        if not self._settled:
            self._changed()
            await self._publisher.flush()
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        while not self._gone:
            try:
                await self._node.api.call("DELETE", path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                _LOG.warning("Pod %s cannot be removed: %s", path, error)
            except AWAY as error:
                _LOG.info("Pod %s is removed later: %s", path, error or type(error).__name__)
            await asyncio.sleep(_DELETE_RETRY_SECONDS)

    def _containers(self, specs: Literal["initContainers", "containers"], statuses: StatusField) -> list[Container]:
        declared: list[Json] = self.pod["spec"].get(specs) or []
        records: list[Record] = restored(self.pod, declared, statuses, now())
        return [Container(spec, record, self._around) for spec, record in zip(declared, records, strict=True)]

    def _view(self) -> PodView:
        inits, mains = ([one.record for one in group] for group in (self._inits, self._mains))
        return PodView(self.pod, inits, mains, self.ip, self._start_time, self._ending)

    def _changed(self) -> None:
        self._moved.ring()
        self._publisher.changed()

    def _say(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._node.events.post(self.pod, kind, reason, message)

    def _report_crash(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            _LOG.error("Pod %s is run no further: a defect of the agent", self.pod["metadata"]["name"], exc_info=error)
