"""Runs one task from its file to its exit code: signals, reports, errors. What a task does stands in tasks."""

import importlib
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerState
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_worker import logs, taskfile
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.lastline import LastLine, fitting, in_full
from whimbrel_worker.reporting.channel import Channel, opened
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.reporting.reporter import OrderBook, Reporter
from whimbrel_worker.signals import watching
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.sources import build_source
from whimbrel_worker.tasks.targets import build_target

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a task ended."""

    state: WorkerState
    code: ExitCode
    failure: ReportedError | None = None


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a task's run needs beside its file."""

    report: Reporter
    orders: OrderBook
    ending: Ending


def main(arguments: list[str]) -> int:
    """`python -m whimbrel_worker TASKFILE`; the exit code says how it ended."""
    logs.configure()
    if len(arguments) != 1:
        _log.error("usage: python -m whimbrel_worker TASKFILE")
        return ExitCode.CONFIGURATION
    try:
        file = taskfile.read(Path(arguments[0]), os.environ)
    except taskfile.Unreadable as error:
        return _refuse(error)
    return run_task(file)


def run_task(file: TaskFile) -> int:
    """Run a task to its end and report how it ended."""
    return _reported(file, lambda desk: _outcome(file, desk))


def _refuse(error: taskfile.Unreadable) -> int:
    """Say that there is nothing to run, in the report too where the file tells at least that."""
    outcome = _failed(error)
    if error.partly is None:
        _log.error("%s", fitting(error.report()))
        return outcome.code
    return _reported(error.partly, lambda _: outcome)


def _reported(file: TaskFile, work: Callable[[_Desk], _Outcome]) -> int:
    """Do the work between the first report and the last one."""
    ending = Ending()
    logs.works_for(file)
    with watching(ending.told), LastLine(_log) as last:
        try:
            with opened(file, os.environ, ending) as channel:
                report = Reporter(file, channel.sink, ending)
                report.update(state=WorkerState.RUNNING, epoch=file.epoch)
                with report.publishing(file.report_interval):
                    outcome = work(_Desk(report, OrderBook(channel.mailbox), ending))
                _say(outcome, last)
                return _closed(_delivered(outcome, report, channel, ending), last)
        except WorkerError as error:
            return _closed(_failed(error), last)


def _outcome(file: TaskFile, desk: _Desk) -> _Outcome:
    try:
        context = _context(file, desk)
        importlib.import_module(f"whimbrel_worker.tasks.{file.task.value}").run(context)
        # Told here once more, so that a report that cannot be made counts as the task's failure.
        desk.report.publish()
    except Stopped:
        return _stopped(desk.ending)
    except WorkerError as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: reported, logged, exit 1
        _log.error("the task ended by an error that nobody foresaw:\n%s", _places(error))
        return _Outcome(WorkerState.FAILED, ExitCode.FAILED, _unexpected(f"failed with {type(error).__name__}"))
    return _Outcome(WorkerState.DONE, ExitCode.DONE)


def _context(file: TaskFile, desk: _Desk) -> TaskContext:
    target = build_target(file, desk.ending.stop)
    desk.report.tally = target.tally
    source = build_source(file, target, desk.ending.stop, desk.report.source_tally)
    return TaskContext(file, source, target, desk.report, desk.orders, desk.ending.stop)


def _failed(error: WorkerError) -> _Outcome:
    return _Outcome(WorkerState.FAILED, error.exit_code, error.report())


def _stopped(ending: Ending) -> _Outcome:
    if ending.fault:
        return _Outcome(WorkerState.FAILED, ExitCode.FAILED, _unexpected(ending.fault))
    return _Outcome(WorkerState.STOPPED, ExitCode.TOLD_TO_STOP)


def _unexpected(what: str) -> ReportedError:
    """Only the error's type: its text may quote a row or a secret."""
    return ReportedError(
        category=ErrorCategory.UNEXPECTED,
        what=f"the worker {what}",
        todo="the worker's log says where; it is started again",
    )


def _places(error: BaseException) -> str:
    """Where it happened, without the errors' texts and the values in them: the log's end goes into the pod's status."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return "\nwhich came while handling this:\n".join(chain)


def _delivered(outcome: _Outcome, report: Reporter, channel: Channel, ending: Ending) -> _Outcome:
    """The outcome once it is told. A result that nobody was told of is none: the task has to be run again."""
    if outcome.state is WorkerState.STOPPED and ending.dismissed:
        return outcome
    if outcome.code is ExitCode.FENCED_OUT:
        ending.superseded()
    if report.finish(outcome.state, outcome.failure):
        return outcome
    _log.warning("the last report (%s) could not be delivered to %s", outcome.state.value, channel.where)
    if outcome.state is not WorkerState.DONE:
        return outcome
    lost = ReportedError(
        category=ErrorCategory.TRANSIENT,
        what="the task is done, but its result could not be delivered",
        where=channel.where,
        why="what kept it back stands above in the log",
        todo="nothing is lost: the worker is started again and delivers it then",
    )
    return _Outcome(WorkerState.FAILED, ExitCode.FAILED, lost)


def _say(outcome: _Outcome, last: LastLine) -> None:
    """Log how the task ended. The last line of a failing worker's log becomes its pod's termination message."""
    if outcome.failure is not None:
        last.say(in_full(outcome.failure))
    elif outcome.code is ExitCode.TOLD_TO_STOP:
        _log.info("stopped, as told")


def _closed(outcome: _Outcome, last: LastLine) -> int:
    if outcome.failure is not None:
        last.say(fitting(outcome.failure))
    return outcome.code
