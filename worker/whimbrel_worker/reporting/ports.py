"""The ports between a worker's words and the place they go to. The places stand in files and in courier."""

from collections.abc import Callable
from typing import Protocol

from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import Orders

Deadline = Callable[[], float]
"""Until when the last word is tried, on the monotonic clock; asked again before each wait, as it may draw in."""


class Undelivered(Exception):
    """A report did not arrive, or orders could not be read, this time.

    `kind` is the same for the same cause; `gone` says that there is no such report at all; `why` holds no secret.
    """

    def __init__(self, kind: str, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.kind, self.why, self.gone = kind, why, gone


class Sink(Protocol):
    """Takes reports."""

    def put(self, report: WorkerReport) -> None:
        """Take the newest report over any that still waits; returns at once, whatever the network does."""

    def deliver(self, report: WorkerReport, deadline: Deadline) -> bool:
        """Deliver the last word, tried again until the deadline. Whether it has arrived."""


class Mailbox(Protocol):
    """Holds orders."""

    def orders(self) -> Orders:
        """The newest orders that are known; returns at once. An unreadable place leaves them as they were."""


class Post(Protocol):
    """A place that may keep its caller waiting: one call, one try. Both raise Undelivered.

    Both give the orders, or None where those make no sense, which does not make a report undelivered.
    """

    @property
    def where(self) -> str:
        """The place, for messages."""

    def send(self, report: WorkerReport) -> Orders | None:
        """Deliver the report."""

    def look(self) -> Orders | None:
        """Read the orders."""
