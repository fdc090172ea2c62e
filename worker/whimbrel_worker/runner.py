"""Runs one task from its file to its exit code: signals, reports, errors. What a task does stands in tasks."""

import importlib
import logging
import signal
import sys
import threading
from pathlib import Path

from pydantic import ValidationError

from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerState
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.tasks.context import OrderBook, Reporter, Stopped, TaskContext
from whimbrel_worker.tasks.sources import build_source
from whimbrel_worker.tasks.targets import build_target

_log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """`python -m whimbrel_worker TASKFILE`; the exit code says how it ended."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"
    )
    if len(arguments) != 1:
        _log.error("usage: python -m whimbrel_worker TASKFILE")
        return ExitCode.CONFIGURATION
    try:
        file = TaskFile.model_validate_json(Path(arguments[0]).read_bytes())
    except (OSError, ValidationError) as error:
        _log.error("the task file %s cannot be read: %s", arguments[0], error)
        return ExitCode.CONFIGURATION
    return run_task(file)


def run_task(file: TaskFile) -> int:
    """Run a task to its end and report how it ended."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    signal.signal(signal.SIGINT, lambda _signal, _frame: stop.set())
    try:
        context = _context(file, stop)
    except WorkerError as error:
        _log.error("%s", error)
        return error.exit_code
    with context.report.publishing(file.report_interval):
        state, code, failure = _outcome(context)
    context.report.update(state=state, last_error=failure)
    context.report.publish()
    return code


def _context(file: TaskFile, stop: threading.Event) -> TaskContext:
    target = build_target(file)
    source = build_source(file, target.profile)
    report = Reporter(file, target.tally)
    report.update(state=WorkerState.RUNNING, epoch=file.epoch)
    report.publish()
    return TaskContext(file, source, target, report, OrderBook(Path(file.orders_file)), stop)


def _outcome(context: TaskContext) -> tuple[WorkerState, ExitCode, ReportedError | None]:
    task = importlib.import_module(f"whimbrel_worker.tasks.{context.file.task.value}")
    try:
        task.run(context)
    except Stopped:
        return WorkerState.STOPPED, ExitCode.TOLD_TO_STOP, None
    except WorkerError as error:
        _log.error("%s: %s", error.category.value, error)
        return WorkerState.FAILED, error.exit_code, error.report()
    except Exception as error:  # noqa: BLE001 - the last line of defence: reported, logged, exit 1
        _log.exception("the task ended by an error that nobody foresaw")
        return WorkerState.FAILED, ExitCode.FAILED, _unexpected(error)
    return WorkerState.DONE, ExitCode.DONE, None


def _unexpected(error: Exception) -> ReportedError:
    """Only the error's type: its text may quote a row or a secret."""
    return ReportedError(
        category=ErrorCategory.UNEXPECTED,
        what=f"the worker failed with {type(error).__name__}",
        todo="the worker's log has the traceback; it is started again",
    )
