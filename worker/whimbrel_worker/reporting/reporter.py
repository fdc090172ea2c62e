"""What a task reports with and takes its orders from, wherever both may go."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from whimbrel_api.reports import Counters, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import Orders, TaskFile
from whimbrel_worker import logs
from whimbrel_worker.engine.ports import Tally
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.reporting.ports import Mailbox, Sink

_log = logging.getLogger(__name__)


class Reporter:
    """Collects what a worker has to say and hands it to a sink.

    `tally` is the target's, once there is one; `source_tally` the source's.
    """

    def __init__(self, file: TaskFile, sink: Sink, ending: Ending | None = None) -> None:
        self.tally, self.source_tally = Tally(), Tally()
        self._sink, self._ending = sink, ending or Ending()
        self._lock = threading.Lock()
        self._basics: dict[str, Any] = {"task": file.task, "task_id": file.task_id, "index": file.index}
        self._basics["started_at"] = datetime.now(UTC)
        self._fields: dict[str, Any] = {}

    def update(self, **fields: Any) -> None:
        """Set fields of the report; cheap, told at the next interval."""
        if "epoch" in fields:
            logs.in_epoch(fields["epoch"])
        with self._lock:
            self._fields.update(fields)

    def publish(self) -> None:
        """Tell it now; does not wait for the network."""
        with self._lock:
            self._sink.put(self._report(self._fields))

    def finish(self, state: WorkerState, failure: ReportedError | None) -> bool:
        """The last word, delivered before this returns if that can be done at all. Whether it was."""
        self.update(state=state, last_error=failure)
        with self._lock:
            report = self._last()
        since = time.monotonic()
        return self._sink.deliver(report, lambda: self._ending.deadline(since))

    @contextlib.contextmanager
    def publishing(self, interval: float) -> Iterator[None]:
        """Publish now and every `interval` seconds while the block runs. The task is stopped if that breaks."""
        done = threading.Event()
        thread = threading.Thread(target=self._publish_until, args=(done, interval), name="report", daemon=True)
        self.publish()
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _publish_until(self, done: threading.Event, interval: float) -> None:
        try:
            while not done.wait(interval):
                self.publish()
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            _log.error("the thread that makes reports has broken: %s", type(error).__name__)
            self._ending.fail(f"the worker's reports broke with {type(error).__name__}")

    def _report(self, fields: dict[str, Any]) -> WorkerReport:
        return WorkerReport(observed_at=datetime.now(UTC), **{"counters": self._counters(), **self._basics, **fields})

    def _last(self) -> WorkerReport:
        try:
            return self._report(self._fields)
        except ValidationError:
            # A field that breaks every report must not keep a failure from being told.
            if self._fields["state"] is WorkerState.DONE:
                raise
            return self._report({name: self._fields[name] for name in ("state", "last_error")})

    def _counters(self) -> Counters:
        tally = self.tally
        return Counters(
            rows=tally.rows,
            bytes=tally.bytes,
            transactions=tally.transactions,
            retries=tally.retries,
            conflicts=tally.conflicts,
            connections=tally.connections,
            throttled=tally.throttled,
            source_retries=self.source_tally.retries,
            source_throttled=self.source_tally.throttled,
        )


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The newest orders, for a task."""

    mailbox: Mailbox

    def current(self) -> Orders:
        """What is ordered now, as far as it is known; returns at once."""
        return self.mailbox.orders()
