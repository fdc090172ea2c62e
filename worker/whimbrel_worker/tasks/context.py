"""What every task is given: its file, both ends, a reporter, its orders and the word to stop. No task's own work."""

import threading
from dataclasses import dataclass

from whimbrel_api.tasks import TaskFile
from whimbrel_worker.engine.ports import Source, Target
from whimbrel_worker.reporting.reporter import OrderBook, Reporter


class Stopped(Exception):
    """The worker was told to stop and has done so at a checkpoint."""


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
