"""When a task that ended badly is started again, and how its trouble reads. Nothing is started here."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from whimbrel_api.reports import ErrorCategory, WorkerState
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.observed import TaskState


@dataclass(frozen=True)
class Backoff:
    """A delay that doubles with each failure. In seconds."""

    first: float
    most: float

    def delay(self, failures: int) -> timedelta:
        """The wait after that many failures in a row."""
        return timedelta(seconds=min(self.most, self.first * 2.0 ** min(max(failures, 1) - 1, 30)))


_PATIENT = Backoff(5.0, 300.0)
_QUICK = Backoff(1.0, 60.0)
BACKOFFS: dict[int, Backoff] = {
    ExitCode.FAILED: _QUICK,
    ExitCode.CONFIGURATION: _PATIENT,
    ExitCode.SOURCE_LOG_LOST: _PATIENT,
    ExitCode.FENCED_OUT: _QUICK,
}
_UNASKED_END = timedelta(seconds=1)
_SHOWS_PROGRESS = {TaskKind.SNAPSHOT, TaskKind.STREAM, TaskKind.CHECK, TaskKind.FREEZE, TaskKind.REVERSE}


def may_start(state: TaskState | None, now: datetime, generation: int, *, again: bool) -> bool:
    """Whether an instance in that state may be started now. A changed spec cuts every backoff short."""
    if state is None or state.exit_code == ExitCode.TOLD_TO_STOP:
        return True
    if state.running:
        return False
    if state.done:
        return again and _passed(state.finished_at, _UNASKED_END, now)
    return generation > state.generation or _passed(state.last_failure_at, retry_delay(state), now)


def retry_delay(state: TaskState) -> timedelta:
    """How long a failed instance waits before it is started again. A source that stays frozen never waits for long."""
    if state.kind is TaskKind.UNFREEZE:
        return _QUICK.delay(state.failures)
    return BACKOFFS.get(state.exit_code or ExitCode.FAILED, _QUICK).delay(state.failures)


def _passed(since: datetime | None, delay: timedelta, now: datetime) -> bool:
    return since is None or now - since >= delay or since > now + delay


@dataclass(frozen=True)
class Trouble:
    """A task that does not get on. `stalls`: a person has to act, or the log is lost."""

    reason: str
    message: str
    stalls: bool


_STALLS = {ExitCode.CONFIGURATION: ErrorCategory.CONFIGURATION, ExitCode.SOURCE_LOG_LOST: ErrorCategory.SOURCE_LOG_LOST}


def trouble(state: TaskState) -> Trouble | None:
    """What is wrong with an instance. A restarted one is in trouble until it shows progress, so that nothing flaps."""
    if state.failures == 0 or state.stopping or not (state.failed or _unproven(state)):
        return None
    error = state.last_error
    code = _code_of(error.category) if error and state.running else state.exit_code
    stalls = code in _STALLS
    reason = (error.category if error else _STALLS[ExitCode(code)]) if stalls and code is not None else "Retrying"
    said = error.sentence() if error else f"its worker ended with exit code {code} and left no report; read its log"
    return Trouble(reason, f"task {state.ref}: {said}{_when(state)}", stalls)


def _code_of(category: ErrorCategory) -> ExitCode:
    codes = {
        ErrorCategory.CONFIGURATION: ExitCode.CONFIGURATION,
        ErrorCategory.INCOMPATIBLE: ExitCode.CONFIGURATION,
        ErrorCategory.SOURCE_LOG_LOST: ExitCode.SOURCE_LOG_LOST,
        ErrorCategory.FENCED_OUT: ExitCode.FENCED_OUT,
    }
    return codes.get(category, ExitCode.FAILED)


def _unproven(state: TaskState) -> bool:
    """Whether it runs and has not shown yet that it gets on. What is done runs until its process has ended."""
    if not state.running:
        return False
    said = state.word.state if state.word is not None else None
    moving = said is WorkerState.RUNNING and state.kind in _SHOWS_PROGRESS
    return not (moving or said is WorkerState.DONE)


def _when(state: TaskState) -> str:
    times = "once" if state.failures == 1 else f"{state.failures} times"
    if state.running:
        return f" (failed {times}, running again)"
    return f" (failed {times}, tried again {retry_delay(state).total_seconds():g} s later)"
