"""How a worker's words get out whatever their place does: the newest counts, nothing blocks, nothing floods."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from whimbrel_api.logs import JsonFormatter, read_line
from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import ExitCode, Orders, TaskFile, TaskKind
from whimbrel_worker.lastline import LastLine, fitting, level_of
from whimbrel_worker.reporting.channel import _first_orders
from whimbrel_worker.reporting.courier import Courier
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.reporting.files import FileMailbox, FileSink
from whimbrel_worker.reporting.link import Link
from whimbrel_worker.reporting.ports import Undelivered
from whimbrel_worker.reporting.reporter import Reporter
from whimbrel_worker.runner import run_task
from whimbrel_worker.signals import watching

SOURCE = {"mysql": {"host": "127.0.0.1", "credentialsSecretRef": {"name": "none"}, "tls": {"mode": "Disabled"}}}
TARGET = {"postgresql": {"host": "127.0.0.1", "database": "d", "credentialsSecretRef": {"name": "none"}}}
FILE = TaskFile.model_validate(
    {"task": "inspect", "taskId": "inspect", "migration": "default/shop", "source": SOURCE, "target": TARGET}
)


def soon() -> float:
    return time.monotonic() + 10


def until(reached: Callable[[], bool]) -> None:
    deadline = soon()
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def report(rows: int = 0) -> WorkerReport:
    return WorkerReport(task=TaskKind.INSPECT, task_id="inspect", rows_done=rows, observed_at=datetime.now(UTC))


class Place:
    """A place for reports in memory; `gate` holds its callers back, `trouble` is what they get."""

    where = "the place"

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.ordered: Orders | None = Orders()
        self.looks = 0
        self.trouble: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def send(self, told: WorkerReport) -> Orders | None:
        self._pass()
        self.arrived.append(told.rows_done)
        return self.ordered

    def look(self) -> Orders | None:
        self.looks += 1
        self._pass()
        return self.ordered

    def _pass(self) -> None:
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def ending() -> Ending:
    return Ending()


@pytest.fixture
def courier(place: Place, ending: Ending) -> Iterator[Courier]:
    with closing(Courier(place, ending, gone_seconds=0.3)) as made:
        made.start()
        yield made
        place.gate.set()


def test_a_slow_place_never_holds_the_task_up_and_gets_the_newest_report_only(courier: Courier, place: Place) -> None:
    place.gate.clear()
    before = time.monotonic()
    for rows in range(1, 100):
        courier.put(report(rows))
        courier.orders()
    assert time.monotonic() - before < 1
    place.gate.set()
    until(lambda: 99 in place.arrived)
    assert len(place.arrived) <= 2, "one was under way, the newest came after it"


def test_orders_come_with_answers_and_are_looked_for_while_somebody_asks(courier: Courier, place: Place) -> None:
    place.ordered = Orders(drain_to="one")
    courier.put(report())
    until(lambda: courier.orders().drain_to == "one")
    place.ordered = Orders(drain_to="two")
    until(lambda: courier.orders().drain_to == "two")
    assert 1 <= place.looks <= 3
    place.ordered = None
    looks = place.looks
    until(lambda: courier.orders() is not None and place.looks > looks)
    assert courier.orders().drain_to == "two", "what makes no sense leaves the orders as they were"


def test_until_orders_have_come_the_first_hold(place: Place, ending: Ending) -> None:
    place.trouble = Undelivered("away", "nobody answers")
    with closing(Courier(place, ending, first=Orders(hold=True))) as made:
        made.start()
        made.orders()
        until(lambda: place.looks > 0)
        assert made.orders() == Orders(hold=True)
        place.trouble = None
        until(lambda: made.orders() == place.ordered)
        assert not made.orders().hold
        place.trouble = Undelivered("away", "nobody answers")
        looks = place.looks
        until(lambda: not made.orders().hold and place.looks > looks)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_way_back_alone_is_held_until_it_was_told_otherwise(kind: TaskKind) -> None:
    file = TaskFile.model_construct(task=kind)
    assert _first_orders(file) == Orders(hold=kind is TaskKind.REVERSE)


def test_the_last_word_is_tried_until_it_arrives(
    courier: Courier, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place.trouble = Undelivered("away", "nobody answers")
    courier.put(report(1))
    until(lambda: "nobody answers" in caplog.text)
    threading.Timer(0.5, lambda: setattr(place, "trouble", None)).start()
    assert courier.deliver(report(2), soon)
    assert place.arrived == [2]
    lines = [record.getMessage() for record in caplog.records]
    assert [("do not get through" in line, "through again" in line) for line in lines] == [(True, False), (False, True)]


def test_the_last_word_is_given_up_at_the_deadline(courier: Courier, place: Place) -> None:
    place.trouble = Undelivered("away", "nobody answers")
    deadline = time.monotonic() + 0.5
    assert not courier.deliver(report(), lambda: deadline)
    assert time.monotonic() >= deadline


def test_a_report_that_stays_away_dismisses_the_worker(courier: Courier, place: Place, ending: Ending) -> None:
    place.trouble = Undelivered("HTTP 404", "not found", gone=True)
    for _ in range(2):
        courier.put(report())
    assert ending.stop.wait(10)
    assert "deleted" in ending.dismissed
    assert not courier.deliver(report(), soon), "nobody is left to tell"


def test_a_refusal_dismisses_nobody(courier: Courier, place: Place, ending: Ending) -> None:
    place.trouble = Undelivered("HTTP 403", "forbidden")
    courier.put(report())
    assert not ending.stop.wait(1)


def test_a_broken_reporting_thread_ends_the_worker(courier: Courier, place: Place, ending: Ending) -> None:
    place.trouble = RuntimeError("with a secret in it")
    courier.put(report())
    assert ending.stop.wait(10)
    assert ending.fault == "the worker's reporting broke with RuntimeError"
    assert not courier.deliver(report(), soon)


def test_a_report_that_cannot_be_made_ends_the_worker(tmp_path: Path, ending: Ending) -> None:
    reporter = Reporter(FILE, FileSink(tmp_path / "report"), ending)
    with reporter.publishing(0.01):
        reporter.update(rows_done="many")
        assert ending.stop.wait(10)
    assert "ValidationError" in ending.fault
    failure = ReportedError(category=ErrorCategory.UNEXPECTED, what="it broke")
    assert reporter.finish(WorkerState.FAILED, failure), "the failure is told all the same"
    told = WorkerReport.model_validate_json((tmp_path / "report").read_bytes())
    assert told.last_error == failure


def test_a_full_disk_is_said_once_and_made_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = FileSink(tmp_path / "folder" / "report")
    for _ in range(3):
        sink.put(report())
    assert len(caplog.records) == 1
    (tmp_path / "folder").mkdir()
    assert sink.deliver(report(), soon)
    assert len(caplog.records) == 2


def test_no_orders_file_orders_nothing() -> None:
    assert FileMailbox(None).orders() == Orders()


def test_each_cause_is_said_once_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    link = Link("there")
    for kind in ("a", "a", "b", "a", "b"):
        link.lost(Undelivered(kind, kind))
    assert len(caplog.records) == 2


def test_the_grace_after_a_signal_ends_before_the_pod_is_killed(ending: Ending) -> None:
    now = time.monotonic()
    assert ending.deadline(now) == now + 60
    ending.told()
    assert now + 49 < ending.deadline(now + 30) <= time.monotonic() + 50


def test_a_signal_is_heard_while_the_main_thread_holds_the_lock_that_it_needs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    lock, told = threading.Lock(), threading.Event()

    def tell() -> None:
        with lock:
            told.set()

    with watching(tell):
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(10)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_without_a_place_for_its_reports_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert run_task(FILE) == 2
    assert "reportResource" in caplog.text


def test_what_fails_in_the_start_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "report"
    assert run_task(FILE.model_copy(update={"report_file": str(path)})) == 2
    told = WorkerReport.model_validate_json(path.read_bytes())
    assert told.state is WorkerState.FAILED
    assert told.last_error is not None
    assert told.last_error.category is ErrorCategory.CONFIGURATION


def test_the_last_line_fits_a_termination_message(caplog: pytest.LogCaptureFixture) -> None:
    error = ReportedError(category=ErrorCategory.CONFIGURATION, what="what", why="é" * 4000, todo="do\nthis")
    assert len(fitting(error).encode()) <= 1900
    assert fitting(error).startswith("ConfigurationError: what; é")
    assert fitting(error).endswith("…; do this")
    short = error.model_copy(update={"why": "why"})
    assert fitting(short) == "ConfigurationError: what; why; do this"
    told = dict.fromkeys(("what", "where", "why", "todo"), '"x" \\ ' * 500)
    quoting = fitting(error.model_copy(update=told))
    record = logging.LogRecord("last", logging.ERROR, "", 0, quoting, None, None)
    line = f"{JsonFormatter().format(record)}\n".encode()
    assert read_line(line[-2048:].decode().strip()) in (("", quoting), ("ERROR", quoting))
    log = logging.getLogger("last")
    with LastLine(log) as last:
        last.say("the end")
        last.say("the end")
        log.warning("something else")
        last.say("the end")
    assert [record.getMessage() for record in caplog.records] == ["the end", "something else", "the end"]
    caplog.clear()
    with caplog.at_level(logging.ERROR), LastLine(log) as last:
        last.say("tried again", level_of(ExitCode.FAILED))
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "a termination message is always there"
    assert level_of(ExitCode.FAILED) == level_of(ExitCode.FENCED_OUT) == logging.WARNING
    assert level_of(ExitCode.CONFIGURATION) == level_of(ExitCode.SOURCE_LOG_LOST) == logging.ERROR


def test_a_superseded_workers_last_word_is_tried_briefly(ending: Ending) -> None:
    assert ending.deadline(100.0) == 160.0
    ending.superseded()
    assert ending.deadline(100.0) == 105.0
