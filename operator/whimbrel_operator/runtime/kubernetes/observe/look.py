"""What a task's Job, pods and WorkerReports mean: the state of each instance. What is done about it is not here.

A Job that is being deleted has been told to stop, unless it had failed: that one stays the failure it is until a new
one stands in its place. An instance without a Job is what a Job left behind: failed, if that was written into its
WorkerReport before the Job went, else told to stop. So whatever is left of a task is seen, and removed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import ExitCode
from whimbrel_api.worker_reports import Failures
from whimbrel_operator.domain.observed import TaskRef, Tasks, TaskState
from whimbrel_operator.runtime.kubernetes.observe.objects import Job, Pod, Report
from whimbrel_operator.runtime.kubernetes.observe.words import (
    failure_of,
    job_failure,
    no_word,
    why_it_is_silent,
    why_it_waits,
)
from whimbrel_operator.specs.taskfile import report_interval

LONG_RUN: Final = timedelta(seconds=120)
_UNASKED: Final = (ExitCode.DONE, ExitCode.TOLD_TO_STOP)
_CODES: Final[Mapping[ErrorCategory, ExitCode]] = {
    ErrorCategory.CONFIGURATION: ExitCode.CONFIGURATION,
    ErrorCategory.INCOMPATIBLE: ExitCode.CONFIGURATION,
    ErrorCategory.SOURCE_LOG_LOST: ExitCode.SOURCE_LOG_LOST,
    ErrorCategory.FENCED_OUT: ExitCode.FENCED_OUT,
}


@dataclass(frozen=True)
class TaskObjects:
    """All that a cluster holds of one task. `strays` are pods of no Job: somebody deleted theirs and left them."""

    namespace: str
    task_id: str
    job: Job | None = None
    pods: tuple[Pod, ...] = ()
    strays: tuple[Pod, ...] = ()
    reports: tuple[Report, ...] = ()

    def report(self, index: int) -> Report | None:
        """The report of one instance."""
        return next((each for each in self.reports if each.index == index), None)

    def pods_of(self, index: int) -> tuple[Pod, ...]:
        """The pods of one instance, the oldest first."""
        return tuple(sorted((pod for pod in self.pods if pod.index == index), key=_age))


def _age(pod: Pod) -> tuple[datetime, bool]:
    return pod.created, pod.ended is None


def by_task(
    namespace: str, jobs: Iterable[Job], pods: Iterable[Pod], reports: Iterable[Report]
) -> dict[str, TaskObjects]:
    """The objects of a resource, sorted out by task."""
    found: dict[str, TaskObjects] = {}
    for job in jobs:
        found[job.task_id] = TaskObjects(namespace, job.task_id, job)
    for pod in pods:
        task = found.get(pod.task_id, TaskObjects(namespace, pod.task_id))
        own = task.job is not None and task.job.uid == pod.job_uid
        found[pod.task_id] = replace(task, pods=(*task.pods, pod)) if own else replace(task, strays=(*task.strays, pod))
    for report in reports:
        task = found.get(report.task_id, TaskObjects(namespace, report.task_id))
        found[report.task_id] = replace(task, reports=(*task.reports, report))
    return found


def look(objects: Mapping[str, TaskObjects], now: datetime) -> Tasks:
    """The state of every instance of a resource."""
    states = [state for task in objects.values() for state in instances(task, now)]
    return Tasks(tuple(sorted(states, key=lambda state: state.ref)))


def instances(task: TaskObjects, now: datetime) -> list[TaskState]:
    """The state of each instance of one task, by index."""
    job = task.job
    if job is None:
        found = {report.index for report in task.reports} | {pod.index for pod in task.strays}
        return [_left_behind(task, index) for index in sorted(found)]
    surplus = {pod.index for pod in task.pods if pod.ended is None} | {report.index for report in task.reports}
    extra = sorted(index for index in surplus if index >= job.count) if not job.complete else []
    return [_instance(task, job, index, now) for index in [*range(job.count), *extra]]


def _left_behind(task: TaskObjects, index: int) -> TaskState:
    """What is left of an instance whose Job is gone."""
    strays = sorted((pod for pod in task.strays if pod.index == index), key=_age)
    report = task.report(index)
    if strays and (strays[-1].ended is None or report is None):
        return _stray(strays[-1])
    assert report is not None, "an instance is seen by a pod or by its report"
    return _remembered(report)


def _stray(pod: Pod) -> TaskState:
    runs = pod.ended is None
    code = None if runs else int(ExitCode.TOLD_TO_STOP)
    return TaskState(
        pod.kind, TaskRef(pod.task_id, pod.index), pod.created, running=runs, stopping=runs, exit_code=code
    )


def _remembered(report: Report) -> TaskState:
    failures, failed = report.failures, bool(report.counted)
    code = _code_of(failures.last_error) if failed else ExitCode.TOLD_TO_STOP
    return TaskState(
        kind=report.kind,
        ref=TaskRef(report.task_id, report.index),
        started_at=report.created,
        running=False,
        exit_code=int(code),
        finished_at=failures.last_at if failed else None,
        failures=failures.count,
        last_failure_at=failures.last_at,
        last_error=failures.last_error,
        report=report.word if failed else None,
        report_interval=report_interval(report.kind),
        generation=report.generation,
    )


def _instance(task: TaskObjects, job: Job, index: int, now: datetime) -> TaskState:
    bare = _bare(task, job, index)
    if index >= job.count or (job.deleting and not job.failed):
        return _told_to_stop(task, job, bare, now)
    if job.complete or index in job.completed:
        return _done(task, job, bare)
    if job.failed:
        return _failed(task, job, bare)
    pod = next(reversed(task.pods_of(index)), None)
    waits = why_it_waits(task.namespace, job.name, pod, job.started_at, now)
    heard = bare.report.observed_at if bare.report is not None else None
    silent = why_it_is_silent(task.namespace, pod, heard, now)
    return replace(bare, report_problem=bare.report_problem or waits or silent)


def _bare(task: TaskObjects, job: Job, index: int) -> TaskState:
    """A running instance with what is known of its failures."""
    report, pods = task.report(index), task.pods_of(index)
    past = history(task, job, index)
    return TaskState(
        kind=job.kind,
        ref=TaskRef(job.task_id, index),
        started_at=job.started_at,
        failures=past.count,
        last_failure_at=past.last_at,
        last_error=past.last_error,
        report=_own_word(report, pods),
        report_problem=report.problem if report is not None else "",
        report_interval=report_interval(job.kind),
        generation=job.generation,
        fingerprint=job.fingerprint,
    )


def _own_word(report: Report | None, pods: tuple[Pod, ...]) -> WorkerReport | None:
    """The report, unless a former pod of the Job spoke last. A Job's first pod finds a report without a status."""
    word = report.word if report is not None else None
    if word is None or len(pods) < 2 or pods[-1].ended is not None:
        return word
    return word if word.observed_at >= pods[-1].created else None


def _told_to_stop(task: TaskObjects, job: Job, bare: TaskState, now: datetime) -> TaskState:
    """An instance too many, or one whose Job is being deleted: it stops until nothing of it runs."""
    index = bare.ref.index
    running = [pod for pod in task.pods_of(index) if pod.ended is None]
    if index < job.count or running:
        waits = why_it_waits(task.namespace, job.name, running[-1], job.started_at, now) if running else ""
        problem = bare.report_problem or waits
        return replace(bare, stopping=True, report=None if job.over else bare.report, report_problem=problem)
    return replace(bare, running=False, exit_code=int(ExitCode.TOLD_TO_STOP), report=None)


def _done(task: TaskObjects, job: Job, bare: TaskState) -> TaskState:
    """A finished instance. A worker ends with 0 only when its last word was heard; without that it has failed."""
    at = _end_of(task, job, bare)
    over = replace(bare, running=False, exit_code=int(ExitCode.DONE), finished_at=at, failures=0)
    if bare.report is not None and bare.report.state is WorkerState.DONE:
        return replace(over, last_failure_at=None, last_error=None, report_problem="")
    lost = no_word(task.namespace, job.name, bare.ref.index)
    failures = bare.failures + (0 if counted(task, job, bare.ref.index) else 1)
    return replace(over, exit_code=int(ExitCode.FAILED), failures=failures, last_failure_at=at, last_error=lost)


def _end_of(task: TaskObjects, job: Job, bare: TaskState) -> datetime:
    """When an instance ended. Kubernetes knows whole seconds, the worker's last word is finer."""
    ends = [pod.ended.at for pod in task.pods_of(bare.ref.index) if pod.ended is not None]
    if bare.report is not None and bare.report.state in (WorkerState.DONE, WorkerState.FAILED):
        ends.append(bare.report.observed_at)
    closed = [each.since for each in (job.complete, job.failed) if each is not None]
    return max(ends or closed or [bare.started_at])


def _failed(task: TaskObjects, job: Job, bare: TaskState) -> TaskState:
    """An instance of a failed Job: failed itself, or ended together with one that had."""
    code = _own_code(task, bare)
    if code is None:
        guilty = any(_own_code(task, _bare(task, job, index)) is not None for index in range(job.count))
        code = ExitCode.TOLD_TO_STOP if guilty else ExitCode.FAILED
    over = replace(bare, running=False, exit_code=int(code), finished_at=_end_of(task, job, bare))
    if code == ExitCode.TOLD_TO_STOP or over.failures > _before(task, bare.ref.index).count:
        return over
    if counted(task, job, bare.ref.index):
        return over
    error = _reported(bare.report) or job_failure(task.namespace, job)
    return replace(over, failures=over.failures + 1, last_failure_at=over.finished_at, last_error=error)


def _own_code(task: TaskObjects, bare: TaskState) -> ExitCode | None:
    """The code that an instance itself failed with; None where it did not."""
    failed = [pod.ended for pod in task.pods_of(bare.ref.index) if _counts(pod)]
    if failed and failed[-1] is not None:
        known = failed[-1].code in tuple(ExitCode)
        return ExitCode(failed[-1].code) if known else ExitCode.FAILED
    error = _reported(bare.report)
    return _code_of(error) if error is not None else None


def _reported(word: WorkerReport | None) -> ReportedError | None:
    """The error of a worker whose last word is that it failed."""
    return word.last_error if word is not None and word.state is WorkerState.FAILED else None


def _code_of(error: ReportedError | None) -> ExitCode:
    return _CODES.get(error.category, ExitCode.FAILED) if error is not None else ExitCode.FAILED


def _counts(pod: Pod) -> bool:
    """Whether a pod's end is a failure: not when it finished, was told to stop, or was driven out."""
    return pod.ended is not None and pod.ended.code not in _UNASKED and not pod.disrupted


def counted(task: TaskObjects, job: Job, index: int) -> bool:
    """Whether the failures of this Job stand in the WorkerReport already."""
    report = task.report(index)
    return report is not None and report.counted == job.uid


def _before(task: TaskObjects, index: int) -> Failures:
    report = task.report(index)
    return report.failures if report is not None else Failures()


def history(task: TaskObjects, job: Job, index: int) -> Failures:
    """The failures in a row of an instance, over former Jobs and the pods of this one.

    A failure after a long run counts as the first.
    """
    past = _before(task, index)
    pods = [pod for pod in task.pods_of(index) if _counts(pod)]
    if counted(task, job, index) or not pods:
        return past
    report = task.report(index)
    word = report.word if report is not None else None
    count = past.count
    for pod in pods:
        count = 1 if _ran_long(pod) else count + 1
    newest = pods[-1]
    at = newest.ended.at if newest.ended is not None else newest.created
    last = task.pods_of(index)[-1] is newest
    error = (_reported(word) if last else None) or failure_of(task.namespace, newest)
    return Failures(count=count, last_at=at, last_error=error)


def _ran_long(pod: Pod) -> bool:
    ended = pod.ended
    return ended is not None and ended.began is not None and ended.at - ended.began >= LONG_RUN
