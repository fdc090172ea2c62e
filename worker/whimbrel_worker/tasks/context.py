"""What every task is given: its file, both ends, a reporter, its orders and the word to stop. No task's own work."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whimbrel_api.reports import Counters, WorkerReport
from whimbrel_api.tasks import Orders, TaskFile
from whimbrel_worker.engine.ports import Source, Tally, Target

_log = logging.getLogger(__name__)
_ORDERS_SECONDS = 0.5


class Stopped(Exception):
    """The worker was told to stop and has done so at a checkpoint."""


class Reporter:
    """Collects what a worker has to say and writes it to its report file, whole or not at all."""

    def __init__(self, file: TaskFile, tally: Tally) -> None:
        self._path = Path(file.report_file)
        self._tally = tally
        self._lock = threading.Lock()
        self._fields: dict[str, Any] = {"task": file.task, "task_id": file.task_id, "index": file.index}

    def update(self, **fields: Any) -> None:
        """Set fields of the report; cheap, written at the next interval."""
        with self._lock:
            self._fields.update(fields)

    def publish(self) -> None:
        """Write the report now."""
        with self._lock:
            report = WorkerReport(observed_at=datetime.now(UTC), **{"counters": self._counters(), **self._fields})
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(report.model_dump_json(by_alias=True))
            fresh.replace(self._path)

    @contextlib.contextmanager
    def publishing(self, interval: float) -> Iterator[None]:
        """Publish every `interval` seconds while the block runs."""
        done = threading.Event()

        def publish_until_done() -> None:
            while not done.wait(interval):
                self.publish()

        thread = threading.Thread(target=publish_until_done, name="report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _counters(self) -> Counters:
        tally = self._tally
        return Counters(
            rows=tally.rows,
            bytes=tally.bytes,
            transactions=tally.transactions,
            retries=tally.retries,
            conflicts=tally.conflicts,
            connections=tally.connections,
        )


@dataclass(slots=True)
class OrderBook:
    """The newest orders; the file is looked at twice a second at most."""

    path: Path
    _orders: Orders = field(default_factory=Orders)
    _looked: float = 0.0

    def current(self) -> Orders:
        """What is ordered now. A half-written or missing file leaves the orders as they were."""
        now = time.monotonic()
        if now - self._looked >= _ORDERS_SECONDS:
            self._looked = now
            try:
                self._orders = Orders.model_validate_json(self.path.read_bytes())
            except FileNotFoundError:
                pass
            except ValidationError as error:
                _log.warning("the orders in %s cannot be read and are left out: %s", self.path.name, error)
        return self._orders


@dataclass(slots=True)
class TaskContext:
    """All that a task works with."""

    file: TaskFile
    source: Source
    target: Target
    report: Reporter
    orders: OrderBook
    stop: threading.Event

    def check_stop(self) -> None:
        """Raise Stopped when the worker was told to stop."""
        if self.stop.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the word to stop. Raises Stopped then."""
        if self.stop.wait(seconds):
            raise Stopped
