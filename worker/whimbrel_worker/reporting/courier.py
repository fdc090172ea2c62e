"""Carries reports and orders over a post that may be slow or away, in a thread of its own. Knows no API server.

Of the reports that wait only the newest is kept. Each answer holds the orders; between answers they are looked at once
a second, as long as somebody asks for them. Nobody but this thread ever waits for the network.
"""

import logging
import threading
import time
from collections.abc import Iterator

from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import Orders
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.reporting.link import Link
from whimbrel_worker.reporting.ports import Deadline, Post, Undelivered

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_GONE_SECONDS = 30.0
_AGAIN = Backoff(base=0.5, cap=5.0, attempts=1_000_000)


class Courier:
    """Implements Sink and Mailbox. Tells `ending` when its thread breaks, and when there is no report any more.

    A report that stays away for 30 s was deleted: the operator makes it before the worker and deletes it with the task,
    so the worker is not wanted any more. Not every refusal counts: rights come late or are taken by mistake.

    `first`: the orders until the first have come.
    """

    def __init__(
        self, post: Post, ending: Ending, *, first: Orders | None = None, gone_seconds: float = _GONE_SECONDS
    ) -> None:
        self._post, self._ending, self._gone_seconds = post, ending, gone_seconds
        self._link = Link(post.where)
        self._changed = threading.Condition()
        self._waiting: WorkerReport | None = None
        self._numbered = self._arrived = 0
        self._orders = first or Orders()
        self._asked = self._closed = False
        self._answered_at = 0.0
        self._gone_since: float | None = None
        self._delays = _AGAIN.delays()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    def close(self) -> None:
        """Carry nothing more; does not wait for what is under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def put(self, report: WorkerReport) -> None:
        """Take the newest report over any that still waits."""
        self._take(report)

    def orders(self) -> Orders:
        """The newest orders that are known."""
        self._asked = True
        return self._orders

    def deliver(self, report: WorkerReport, deadline: Deadline) -> bool:
        """Wait until this report has arrived, the deadline is over or the thread has broken. Whether it has arrived."""
        number = self._take(report)
        with self._changed:
            while self._arrived < number and self._thread.is_alive() and not self._ending.dismissed:
                left = deadline() - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _LOOK_SECONDS))
            return self._arrived >= number

    def _take(self, report: WorkerReport) -> int:
        with self._changed:
            self._waiting = report
            self._numbered += 1
            self._changed.notify_all()
            return self._numbered

    # The thread

    def _run(self) -> None:
        try:
            for report, number in self._errands():
                self._go(report, number)
        except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
            _log.error("the thread that reports has broken: %s", type(error).__name__)
            self._ending.fail(f"the worker's reporting broke with {type(error).__name__}")

    def _errands(self) -> Iterator[tuple[WorkerReport | None, int]]:
        """A report to deliver with its number, or None: look at the orders. Ends when closed."""
        while True:
            with self._changed:
                while not self._closed and self._waiting is None and not self._look_due():
                    self._changed.wait(_LOOK_SECONDS / 4)
                if self._closed:
                    return
                report, number = self._waiting, self._numbered
            yield report, number

    def _look_due(self) -> bool:
        return self._asked and time.monotonic() - self._answered_at >= _LOOK_SECONDS

    def _go(self, report: WorkerReport | None, number: int) -> None:
        try:
            orders = self._post.look() if report is None else self._post.send(report)
        except Undelivered as trouble:
            self._failed(trouble)
            return
        self._link.found()
        self._gone_since, self._delays = None, _AGAIN.delays()
        self._orders, self._answered_at, self._asked = orders or self._orders, time.monotonic(), False
        if report is not None:
            self._settle(number)

    def _settle(self, number: int) -> None:
        with self._changed:
            self._arrived = number
            if self._numbered == number:
                self._waiting = None
            self._changed.notify_all()

    def _failed(self, trouble: Undelivered) -> None:
        self._link.lost(trouble)
        now = time.monotonic()
        self._gone_since = (self._gone_since or now) if trouble.gone else None
        if self._gone_since is not None and now - self._gone_since >= self._gone_seconds and not self._ending.dismissed:
            _log.warning(
                "%s has been gone for %.0f s: the operator does not want this worker any more, it stops",
                self._post.where, now - self._gone_since,
            )  # fmt: skip
            self._ending.dismiss(f"{self._post.where} was deleted")
        with self._changed:
            self._changed.wait_for(lambda: self._closed, next(self._delays, _AGAIN.cap))
