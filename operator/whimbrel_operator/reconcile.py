"""Observe → decide → act → report, the same for every kind and every runtime. What is decided stands in domain."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from whimbrel_api.migration import Phase
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.decision import Decision, ReverseSyncDecision, ValidationDecision, WantedTask
from whimbrel_operator.domain.migration.decide import decide
from whimbrel_operator.domain.observed import Memory, Observed, ObservedValidation, TaskState
from whimbrel_operator.domain.reverse.decide import decide_reverse_sync
from whimbrel_operator.domain.validation import decide_validation
from whimbrel_operator.errors import OperatorError, Refused, StatusConflict, TaskTooLarge
from whimbrel_operator.runtime.port import Key, Observation, Runtime, Status

AnyDecision = Decision | ValidationDecision | ReverseSyncDecision


@dataclass(frozen=True)
class Outcome:
    """What a pass came to. `gone`: the resource is not there. `moved`: the phase changed, so look again at once.

    `status` is what this pass decided, never what merely stood there: None when it could not be written. `busy`: tasks
    are there or wanted, so time alone may change something. `looking`: the target is being read, and until then what
    the status says may not be so. `released`: it is being deleted, and what it made on servers is taken away.
    `observed`: what it was decided from.
    """

    status: Status | None = None
    changed: bool = False
    moved: bool = False
    busy: bool = False
    looking: bool = False
    released: bool = False
    observed: Observation | None = None

    @property
    def gone(self) -> bool:
        """Whether there was nothing to reconcile."""
        return self.status is None and not self.moved


class Reconciler:
    """Brings resources a step nearer to what is wanted, each time it is asked to. Keeps what may be lost."""

    def __init__(self, runtime: Runtime, clock: Callable[[], datetime]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._memory: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> Outcome:
        """One pass over one resource. A status that somebody else wrote meanwhile is looked at again."""
        observed = await self._runtime.observe(key, self._memory.get(key, Memory()))
        if observed is None:
            self._memory.pop(key, None)
            return Outcome()
        decision = _decide(observed, self._clock())
        self._memory[key] = decision.memory
        asked = _by_task(decision.wanted)
        unwanted = sorted({state.ref.task_id for state in observed.tasks.instances} - asked.keys())
        told = [task_id for task_id in unwanted if _told_first(observed.tasks.of(task_id), decision)]
        await self._act(key, [task_id for task_id in unwanted if task_id not in told], asked.values())
        await self._make_ways_back(key, observed, decision)
        if isinstance(decision, Decision):
            await self._act_on_hooks(key, decision)
        try:
            outcome = replace(await self._report(key, observed, decision), observed=observed)
        except StatusConflict:
            return Outcome(moved=True)
        await self._end_ways_back(key, observed, decision)
        await self._act(key, told)
        return outcome

    def forget(self, key: Key) -> None:
        """A resource is gone: what is remembered of it is of no use."""
        self._memory.pop(key, None)

    async def _act(self, key: Key, unwanted: Iterable[str], asked: Iterable[list[WantedTask]] = ()) -> None:
        """Unwanted tasks go before wanted ones come, and both before the status says so.

        So a step's results are gone before it can be entered again: a second freeze never reads the first. What is
        refused keeps no other task from being started, such as the one that opens the source again.
        """
        for task_id in unwanted:
            await self._runtime.remove(key, task_id)
        refused: list[OperatorError] = []
        for wanted in asked:
            try:
                await self._runtime.apply(key, wanted)
            except (Refused, TaskTooLarge) as error:
                refused.append(error)
        if refused:
            raise refused[0]

    async def _end_ways_back(self, key: Key, observed: Observation, decision: AnyDecision) -> None:
        """Delete the ReverseSyncs of a Migration's own that are not wanted; a finalizer may hold them for a while.

        Only once the status says why: a pass that is lost before that must not find it gone and call it broken.
        """
        for found in _own_ways_back(observed):
            kept = isinstance(decision, Decision) and found.metadata.name in {each.name for each in decision.ways_back}
            if not kept and found.metadata.deletion_timestamp is None:
                await self._runtime.end_way_back(key, found)

    async def _make_ways_back(self, key: Key, observed: Observation, decision: AnyDecision) -> None:
        there = {each.metadata.name for each in observed.ways_back} if isinstance(observed, Observed) else set()
        for wanted in decision.ways_back if isinstance(decision, Decision) else ():
            if wanted.make and wanted.name not in there:
                await self._runtime.make_way_back(key, wanted)

    async def _act_on_hooks(self, key: Key, decision: Decision) -> None:
        """Hooks that are not wanted any more are ended, before another one starts."""
        for run_id in decision.unwanted_hooks:
            await self._runtime.end_hook(key, run_id)
        for each in decision.hooks:
            await self._runtime.run_hook(key, each)

    async def _report(self, key: Key, observed: Observation, decision: AnyDecision) -> Outcome:
        before, after = observed.resource.status, decision.status
        hooked = isinstance(decision, Decision) and any(each.start for each in decision.hooks)
        busy = bool(decision.wanted or observed.tasks.instances or hooked or _own_ways_back(observed))
        looking = any(_looks(observed, wanted) for wanted in decision.wanted)
        released = isinstance(decision, ReverseSyncDecision) and decision.released
        if after == before:
            return Outcome(after, busy=busy, looking=looking, released=released)
        await self._runtime.report(key, after, observed.resource_version)
        for event in decision.events:
            await self._runtime.event(key, event)
        moved = after.phase is not before.phase
        return Outcome(after, changed=True, moved=moved, busy=busy, looking=looking, released=released)


def _looks(observed: Observation, wanted: WantedTask) -> bool:
    """Whether the task reads the target and has not ended yet. One that has failed is waited for no more."""
    state = observed.tasks.find(wanted.ref.task_id, wanted.ref.index)
    return wanted.kind is TaskKind.INSPECT and (state is None or (not state.done and not state.failures))


def _own_ways_back(observed: Observation) -> tuple[ReverseSync, ...]:
    if not isinstance(observed, Observed):
        return ()
    uid = observed.resource.metadata.uid
    return tuple(each for each in observed.ways_back if each.metadata.belongs_to(uid))


def _told_first(states: Iterable[TaskState], decision: AnyDecision) -> bool:
    """Whether this has ended and goes only after the status has its result.

    A comparison, because it may be the work of hours and its id is used once. A fence, because with it goes the proof
    that the traffic has moved; but before a cutover begins, which must not take it for its own.
    """
    begins = isinstance(decision, Decision) and decision.status.phase is Phase.CUTTING_OVER
    kinds = {TaskKind.CHECK} if begins else {TaskKind.CHECK, TaskKind.FENCE}
    return all(state.kind in kinds and state.done for state in states)


def _by_task(wanted: Iterable[WantedTask]) -> dict[str, list[WantedTask]]:
    """The wanted instances by task, in the order asked for, each by index."""
    found: dict[str, list[WantedTask]] = {}
    for task in wanted:
        found.setdefault(task.ref.task_id, []).append(task)
    return {task_id: sorted(tasks, key=lambda task: task.ref) for task_id, tasks in found.items()}


def _decide(observed: Observation, now: datetime) -> AnyDecision:
    if isinstance(observed, Observed):
        return decide(observed, now)
    if isinstance(observed, ObservedValidation):
        return decide_validation(observed, now)
    return decide_reverse_sync(observed, now)
