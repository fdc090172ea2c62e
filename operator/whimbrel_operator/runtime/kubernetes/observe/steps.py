"""The next step towards the wanted instances of a task, from what is there. Pure; the runtime takes it."""

from collections.abc import Mapping, Sequence
from enum import Enum

from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.observed import TaskState
from whimbrel_operator.runtime.kubernetes.observe.look import TaskObjects
from whimbrel_operator.runtime.kubernetes.observe.objects import Job
from whimbrel_operator.specs import jobs


class Step(Enum):
    """What to do about a task now; the next one follows when it has taken effect."""

    WAIT = "wait"
    END_STRAYS = "end pods that no Job holds"
    START = "make the Job"
    RESTART = "remember the failures, delete the Job that is over"
    REPLACE = "delete the Job, another one is wanted"
    SCALE = "change the number of pods"
    STEER = "give orders"


def next_step(task: TaskObjects, states: Mapping[int, TaskState], wanted: Sequence[WantedTask]) -> Step:
    """One Job does all instances of a task, so it is made or made again only when each of them may begin."""
    job = task.job
    if job is not None and not job.over and not job.deleting:
        return _running(job, states, wanted)
    if job is None and any(pod.ended is None for pod in task.strays):
        return Step.END_STRAYS
    if (job is not None and job.deleting) or not _may_begin(states, wanted):
        return Step.WAIT
    return Step.START if job is None else Step.RESTART


def _running(job: Job, states: Mapping[int, TaskState], wanted: Sequence[WantedTask]) -> Step:
    if job.fingerprint != jobs.fingerprint(wanted[0]):
        return Step.REPLACE
    if job.count == len(wanted):
        return Step.STEER
    # A pod that is one too many and one that takes its place would speak through the same report.
    leaving = any(state.running for index, state in states.items() if index >= job.count)
    return Step.WAIT if leaving and job.count < len(wanted) else Step.SCALE


def _may_begin(states: Mapping[int, TaskState], wanted: Sequence[WantedTask]) -> bool:
    """Whether some instance is to begin and none has to wait. A finished one is done again with the others."""
    begins = [_begins(states.get(each.ref.index), each) for each in wanted]
    waits = [not begin and not _is_done(states.get(w.ref.index)) for begin, w in zip(begins, wanted, strict=True)]
    return any(begins) and not any(waits)


def _begins(state: TaskState | None, wanted: WantedTask) -> bool:
    if not wanted.start:
        return False
    return state is None or (not state.running and (not state.done or wanted.again))


def _is_done(state: TaskState | None) -> bool:
    return state is not None and state.done
