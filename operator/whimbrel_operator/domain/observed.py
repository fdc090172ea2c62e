"""What the operator knows when it decides: the resource, its tasks and their newest reports. Facts only."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from whimbrel_api.migration import Migration
from whimbrel_api.reports import Record, ReportedError, WorkerReport, WorkerState
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import Validation
from whimbrel_operator.domain.hook_jobs import HookJob

FRESH_INTERVALS = 3


@dataclass(frozen=True, order=True)
class TaskRef:
    """One instance of a task: its id and the worker's index."""

    task_id: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.task_id}-{self.index}"


@dataclass(frozen=True)
class TaskState:
    """One instance of a task as the runtime finds it.

    `exit_code` is None while it runs; a dead one whose code nobody saw has 1. `failures` counts those in a row, over
    restarts. `stopping`: told to end, not gone yet. `report_interval` in seconds.
    """

    kind: TaskKind
    ref: TaskRef
    started_at: datetime
    running: bool = True
    stopping: bool = False
    exit_code: int | None = None
    finished_at: datetime | None = None
    failures: int = 0
    last_failure_at: datetime | None = None
    last_error: ReportedError | None = None
    report: WorkerReport | None = None
    report_problem: str = ""
    report_interval: float = 2.0
    generation: int = 0
    fingerprint: str = ""

    @property
    def done(self) -> bool:
        """Ended with the exit code that only a finished task has."""
        return not self.running and self.exit_code == ExitCode.DONE

    @property
    def failed(self) -> bool:
        """Ended, and neither finished nor told to stop."""
        return not self.running and self.exit_code not in (ExitCode.DONE, ExitCode.TOLD_TO_STOP)

    @property
    def word(self) -> WorkerReport | None:
        """The newest report, if it is this instance's own."""
        report = self.report
        if report is None or (report.task, report.task_id, report.index) != (self.kind, *_pair(self.ref)):
            return None
        return report

    def fresh_word(self, now: datetime) -> WorkerReport | None:
        """The newest report of a running instance, unless it is older than three intervals, or from the future."""
        word = self.word
        if word is None or not self.running or word.state is not WorkerState.RUNNING:
            return None
        return word if is_fresh(word.observed_at, now, self.report_interval) else None


def _pair(ref: TaskRef) -> tuple[str, int]:
    return ref.task_id, ref.index


def is_fresh(moment: datetime | None, now: datetime, interval: float) -> bool:
    """Whether a figure observed then still counts. Unknown, old and from the future are all not fresh."""
    if moment is None:
        return False
    limit = timedelta(seconds=FRESH_INTERVALS * interval)
    return -limit <= now - moment <= limit


@dataclass(frozen=True)
class LagSample:
    """One reading of the lag, in seconds; None where the worker could not tell.

    `quiet`: it could not because the log has given nothing for a while and offers no proof of its end.
    """

    at: datetime
    lag: float | None
    quiet: bool = False

    def within(self, limit: float) -> bool:
        """Whether the reading is good enough: the lag is within the limit, or there is nothing to lag behind."""
        return self.quiet if self.lag is None else self.lag <= limit

    @property
    def applied_to(self) -> datetime | None:
        """Until when the target holds everything by this reading; None where that is not known."""
        if self.lag is None:
            return self.at if self.quiet else None
        return self.at - timedelta(seconds=self.lag)


@dataclass(frozen=True)
class RowSample:
    """How many rows were copied at a moment."""

    at: datetime
    rows: int


@dataclass(frozen=True)
class Memory:
    """Readings of former observations. Losing them closes the lag gate until new ones are in, and nothing else.

    `gates`: each condition, gates among them, and whether it was True when last known. `awaited`: the plan that was
    said to wait for its approval only.
    """

    lag: tuple[LagSample, ...] = ()
    rows: tuple[RowSample, ...] = ()
    gates: tuple[tuple[str, bool], ...] = ()
    awaited: str = ""


@dataclass(frozen=True)
class Tasks:
    """All instances of one resource."""

    instances: tuple[TaskState, ...] = ()

    def find(self, task_id: str, index: int = 0) -> TaskState | None:
        """One instance."""
        return next((state for state in self.instances if state.ref == TaskRef(task_id, index)), None)

    def of(self, task_id: str) -> tuple[TaskState, ...]:
        """All instances of a task, by index."""
        return tuple(sorted((s for s in self.instances if s.ref.task_id == task_id), key=lambda s: s.ref))

    def all_done(self, task_id: str, workers: int) -> bool:
        """Whether each of the workers asked for has finished."""
        states = [self.find(task_id, index) for index in range(workers)]
        return all(state is not None and state.done for state in states)

    def words(self, *task_ids: str) -> tuple[WorkerReport, ...]:
        """The reports of these tasks, by index."""
        return tuple(s.word for task_id in task_ids for s in self.of(task_id) if s.word is not None)

    def newest_record(self) -> Record | None:
        """What the target's control tables said last, from finished tasks only.

        The target's own counters come before the time of the report, because a clock may have been set back.
        """
        found = [(w.observed_at, r) for w in _finished(self.instances) if (r := record_of(w)) is not None]
        return max(found, key=lambda pair: (pair[1].epoch, pair[1].plan_attempt, pair[0]))[1] if found else None


def _finished(instances: Iterable[TaskState]) -> Iterable[WorkerReport]:
    return (s.word for s in instances if s.done and s.word is not None)


def record_of(report: WorkerReport) -> Record | None:
    """The record in a report, wherever it stands."""
    if report.record is not None:
        return report.record
    return report.preflight.record if report.preflight is not None else None


@dataclass(frozen=True)
class Observed:
    """A Migration and all that belongs to it, read once.

    `ways_back`: the ReverseSyncs that name it or bear its name.
    """

    resource: Migration
    tasks: Tasks = field(default_factory=Tasks)
    validations: tuple[Validation, ...] = ()
    ways_back: tuple[ReverseSync, ...] = field(default=(), kw_only=True)
    missing_secrets: tuple[str, ...] = ()
    memory: Memory = Memory()
    resource_version: str = ""
    hooks: tuple[HookJob, ...] = ()


@dataclass(frozen=True)
class ObservedValidation:
    """A Validation and all that belongs to it, read once. `migration` is the one that it names, if it is there."""

    resource: Validation
    tasks: Tasks = field(default_factory=Tasks)
    migration: Migration | None = None
    missing_secrets: tuple[str, ...] = ()
    memory: Memory = Memory()
    resource_version: str = ""


@dataclass(frozen=True)
class ObservedReverseSync:
    """A ReverseSync and all that belongs to it, read once. `migration` is the one that it names, if it is there."""

    resource: ReverseSync
    tasks: Tasks = field(default_factory=Tasks)
    migration: Migration | None = None
    missing_secrets: tuple[str, ...] = ()
    memory: Memory = Memory()
    resource_version: str = ""
