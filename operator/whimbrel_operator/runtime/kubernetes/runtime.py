"""The runtime port on a cluster. Reads once a pass, writes what a step asks for; what things mean stands in observe."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from kubernetes.aio.client import ApiClient

from whimbrel_api.base import API_VERSION
from whimbrel_api.logs import lines_about
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_operator.domain.decision import Event, WantedTask, WantedWayBack
from whimbrel_operator.domain.hook_jobs import HookJob, WantedHook
from whimbrel_operator.domain.observed import (
    Memory,
    Observed,
    ObservedReverseSync,
    ObservedValidation,
    Tasks,
    TaskState,
)
from whimbrel_operator.errors import Outdated, Refused, StatusConflict, TaskTooLarge
from whimbrel_operator.runtime.kubernetes import events, kinds, reads
from whimbrel_operator.runtime.kubernetes.api import TIMEOUT, Api, always
from whimbrel_operator.runtime.kubernetes.observe.look import TaskObjects, look
from whimbrel_operator.runtime.kubernetes.observe.objects import Job
from whimbrel_operator.runtime.kubernetes.observe.steps import Step, next_step
from whimbrel_operator.runtime.kubernetes.observe.words import why_it_waits
from whimbrel_operator.runtime.kubernetes.writes import Writer
from whimbrel_operator.runtime.port import Key, Observation, Status
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings
from whimbrel_operator.specs.ways_back import reverse_sync

NOT_STARTED: Final = "TaskRefused"
HOOK_REFUSED: Final = "HookRefused"
NOT_GONE: Final = "DeletionWaits"
LOG: Final = logging.getLogger("whimbrel.runtime")


@dataclass
class _Seen:
    """What the last look at a resource found. A task in `acted` has been written to since."""

    owner: Owner
    objects: dict[str, TaskObjects] = field(default_factory=dict)
    tasks: Tasks = field(default_factory=Tasks)
    hooks: tuple[HookJob, ...] = ()
    acted: set[str] = field(default_factory=set)
    ways_back: dict[str, str] = field(default_factory=dict)
    """The resourceVersion of each ReverseSync, by uid."""

    def of(self, task_id: str) -> TaskObjects:
        return self.objects.get(task_id, TaskObjects(self.owner.namespace, task_id))

    def states(self, task_id: str) -> dict[int, TaskState]:
        return {state.ref.index: state for state in self.tasks.of(task_id)}


class KubernetesRuntime:
    """Runs tasks as Jobs. `identity` names this operator in events. `timeout` in seconds holds for each request,
    and `may_write` is asked before each that writes.

    Every method raises OperatorError: Transient where trying again may help, Forbidden where a right is missing.
    """

    def __init__(
        self,
        client: ApiClient,
        settings: PodSettings,
        clock: Callable[[], datetime],
        *,
        identity: str = "whimbrel-operator",
        timeout: float = TIMEOUT,
        may_write: Callable[[], bool] = always,
    ) -> None:
        self.api = Api(client, timeout, may_write)
        self._writer, self._clock = Writer(self.api, settings), clock
        self._events = events.Recorder(self.api, identity, clock)
        self._seen: dict[Key, _Seen] = {}
        self._told: dict[str, set[str]] = {}

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to a resource; None when it is gone. Raises ResourceUnreadable.

        Secrets are not looked at, so none is ever missing here: a worker that misses one says so itself.
        """
        found = await reads.resource(self.api, key)
        if found is None:
            self._forget(key)
            return None
        resource, version = found
        seen = await self._look(key, _owner(resource))
        if isinstance(resource, Migration):
            others, ways = await reads.validations_of(self.api, resource), await reads.ways_back_of(self.api, resource)
            seen.ways_back = {each.metadata.uid: as_of for each, as_of in ways}
            back = tuple(each for each, _ in ways)
            return Observed(resource, seen.tasks, others, (), memory, version, seen.hooks, ways_back=back)
        if isinstance(resource, ReverseSync):
            migration = await reads.migration_of(self.api, resource)
            return ObservedReverseSync(resource, seen.tasks, migration, (), memory, version)
        migration = await reads.migration_of(self.api, resource)
        return ObservedValidation(resource, seen.tasks, migration, (), memory, version)

    async def apply(self, key: Key, wanted: Sequence[WantedTask]) -> None:
        """Take the next step towards these instances of one task; the ones after it follow in later passes.

        What a person has to put right becomes an Event as well, because nobody reads the operator's log.
        """
        task_id = wanted[0].ref.task_id
        with lines_about(task=task_id):
            try:
                await self._apply(key, task_id, wanted)
            except (Refused, TaskTooLarge) as error:
                if (seen := self._seen.get(key)) is not None:
                    told = Event("Warning", NOT_STARTED, f"task {task_id}: {error}")
                    await self._events.tell_refusal(seen.owner, task_id, told)
                    error.told = True
                raise

    async def _apply(self, key: Key, task_id: str, wanted: Sequence[WantedTask]) -> None:
        seen = await self._fresh(key, task_id)
        if seen is None:
            return
        task, states = seen.of(task_id), seen.states(task_id)
        step = next_step(task, states, wanted)
        if step is Step.STEER:
            await self._steer(seen, task, states, wanted)
        elif step is not Step.WAIT:
            seen.acted.add(task_id)
            await self._take(step, seen.owner, task, states, wanted)
            self._events.taken(seen.owner.uid, task_id)

    async def remove(self, key: Key, task_id: str) -> None:
        """Delete a task's Job; once that is gone, all else of the task."""
        with lines_about(task=task_id):
            seen = await self._fresh(key, task_id)
            if seen is not None:
                seen.acted.add(task_id)
                await self._end(seen.owner, seen.of(task_id))

    async def make_way_back(self, key: Key, wanted: WantedWayBack) -> None:
        """Make a ReverseSync with this Migration as its owner. One that is there already is seen in the next pass."""
        seen = self._seen.get(key)
        if seen is not None:
            with contextlib.suppress(Outdated):
                await self.api.create(kinds.REVERSE_SYNCS, reverse_sync(seen.owner, wanted))

    async def end_way_back(self, key: Key, found: ReverseSync) -> None:
        """Delete this very ReverseSync; its finalizer holds it until slot and publication are gone.

        Only as it was seen: an operator that stood still must not end, by what it had decided long before, one that
        another has made and switched with. One that was written since is looked at again in the next pass.
        """
        meta, seen = found.metadata, self._seen.get(key)
        version = seen.ways_back.get(meta.uid, "") if seen is not None else ""
        with contextlib.suppress(Outdated):
            await self.api.delete(kinds.REVERSE_SYNCS, key.namespace, meta.name, uid=meta.uid, version=version)

    async def run_hook(self, key: Key, wanted: WantedHook) -> None:
        """Make the Job of a hook or switch that may start. One that the cluster refuses becomes an Event.

        It raises nothing then: the status must go on being written, or no cutover would ever time out.
        """
        seen = self._seen.get(key)
        if seen is None or not wanted.start:
            return
        try:
            await self._writer.start_hook(seen.owner, wanted)
        except Refused as error:
            told = Event("Warning", HOOK_REFUSED, f"{wanted.run.run_id}: {error}")
            if await self._events.tell_refusal(seen.owner, wanted.run.run_id, told):
                LOG.error("%s: %s", told.reason, told.message)
        else:
            self._events.taken(seen.owner.uid, wanted.run.run_id)

    async def end_hook(self, key: Key, run_id: str) -> None:
        """Delete the Job of a hook."""
        seen = self._seen.get(key)
        if seen is not None:
            await self._writer.end_hook(seen.owner, run_id)

    async def report(self, key: Key, status: Status, resource_version: str) -> None:
        """Write the status under its version. Raises StatusConflict, also where the resource is gone."""
        seen = self._seen.get(key)
        meta = {"name": key.name, "namespace": key.namespace, "resourceVersion": resource_version}
        body = {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "metadata": meta | ({"uid": seen.owner.uid} if seen is not None else {}),
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            await self.api.replace(kinds.RESOURCES[key.kind], key.namespace, key.name, body, "status")
        except Outdated as error:
            raise StatusConflict(
                "the status was written meanwhile", where=str(key), why=error.why, todo="observe again"
            ) from error

    async def event(self, key: Key, event: Event) -> None:
        """Record an event. One that cannot be written is logged: no work waits for it."""
        seen = self._seen.get(key)
        if seen is None:
            LOG.warning("no event %s: the resource has not been observed", event.reason)
            return
        await self._events.tell(seen.owner, event)

    async def tell(self, owner: Owner, event: Event) -> None:
        """Record an event of a resource that could not be observed."""
        await self._events.tell(owner, event)

    async def clear(self, key: Key, uid: str) -> bool:
        """Take a step towards nothing of a resource being left; whether its pods may still run. Then ask again.

        Makes nothing, so it works in a namespace that is being deleted.
        """
        owner = Owner(key.kind, key.namespace, key.name, uid)
        self._seen.pop(key, None)
        found = await reads.children(self.api, owner)
        tasks = found.tasks
        for task in tasks.values():
            await self._end(owner, task)
        for job in found.hook_jobs:
            await self._writer.end_job(owner.namespace, job)
        runs = any(task.job is not None or any(pod.ended is None for pod in task.strays) for task in tasks.values())
        left = runs or bool(found.hook_jobs)
        if left:
            await self._say_what_stays(owner, tasks.values())
        else:
            self._told.pop(uid, None)
            self._events.forget(uid)
        return left

    async def _say_what_stays(self, owner: Owner, tasks: Iterable[TaskObjects]) -> None:
        """Tell once of each pod that does not end, as whoever deletes the resource waits for it."""
        told = self._told.setdefault(owner.uid, set())
        for pod in (pod for task in tasks for pod in (*task.pods, *task.strays) if pod.deleting is not None):
            why = why_it_waits(owner.namespace, "", pod, pod.created, self._clock())
            if why and why not in told:
                told.add(why)
                LOG.warning("the deletion waits: %s", why)
                await self._events.tell(owner, Event("Warning", NOT_GONE, why))

    def _forget(self, key: Key) -> None:
        seen = self._seen.pop(key, None)
        if seen is not None:
            self._events.forget(seen.owner.uid)

    async def _look(self, key: Key, owner: Owner) -> _Seen:
        found = await reads.children(self.api, owner)
        seen = _Seen(owner, found.tasks, look(found.tasks, self._clock()), found.hooks)
        self._seen[key] = seen
        return seen

    async def _fresh(self, key: Key, task_id: str) -> _Seen | None:
        """What was last seen, unless this task has been written to since; None where the resource is gone."""
        seen = self._seen.get(key)
        if seen is None:
            await self.observe(key, Memory())
        elif task_id in seen.acted:
            await self._look(key, seen.owner)
        return self._seen.get(key)

    async def _take(
        self,
        step: Step,
        owner: Owner,
        task: TaskObjects,
        states: dict[int, TaskState],
        wanted: Sequence[WantedTask],
    ) -> None:
        writer, job = self._writer, task.job
        if step is Step.START:
            await writer.start(owner, task, wanted, self._clock())
        elif step is Step.END_STRAYS:
            await writer.end_strays(task)
        elif job is not None and step is Step.SCALE:
            await writer.scale(owner, task, job, wanted)
        elif job is not None:
            if step is Step.RESTART:
                await writer.remember(owner, job, _worth_remembering(task, job, states))
            await writer.end(owner, job)

    async def _steer(
        self, seen: _Seen, task: TaskObjects, states: dict[int, TaskState], wanted: Sequence[WantedTask]
    ) -> None:
        """Orders where they differ; reports of instances too many go once their pods are gone."""
        await self._writer.order(seen.owner, task, wanted)
        if any(state.running and state.report_problem for state in states.values()):
            await self._writer.repair(seen.owner, wanted)
        gone = [each for each in task.reports if each.index >= len(wanted) and not states[each.index].running]
        if gone:
            seen.acted.add(task.task_id)
            await self._writer.shed(seen.owner, gone, wanted)

    async def _end(self, owner: Owner, task: TaskObjects) -> None:
        if task.job is not None:
            await self._writer.end(owner, task.job)
        else:
            await self._writer.forget(owner, task)


def _owner(resource: reads.Resource) -> Owner:
    meta = resource.metadata
    return Owner(resource.kind, meta.namespace, meta.name, meta.uid)


def _worth_remembering(task: TaskObjects, job: Job, states: dict[int, TaskState]) -> list[TaskState]:
    """The instances whose reports do not hold their failures yet."""
    found = []
    for index, state in states.items():
        report = task.report(index)
        if report is not None and report.counted == job.uid:
            continue
        if state.failed or (report is not None and report.failures.count != state.failures):
            found.append(state)
    return found
