"""Reports to a file and orders from a file, as the local runtime has it. No network."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import Orders
from whimbrel_worker.reporting.link import Link
from whimbrel_worker.reporting.ports import Deadline, Undelivered

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 0.5


class FileSink:
    """Writes the report whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link = Link(f"the report file {path}")

    def put(self, report: WorkerReport) -> None:
        """Write the report; what the disk refuses is said in the log and made good by the next one."""
        self._write(report)

    def deliver(self, report: WorkerReport, deadline: Deadline) -> bool:
        """Write the last report, again and again until the deadline. Whether it stands there."""
        while not self._write(report):
            if time.monotonic() >= deadline():
                return False
            time.sleep(_RETRY_SECONDS)
        return True

    def _write(self, report: WorkerReport) -> bool:
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fresh.write_text(report.model_dump_json(by_alias=True))
            fresh.replace(self._path)
        except OSError as error:
            self._link.lost(Undelivered(type(error).__name__, error.strerror or type(error).__name__))
            return False
        self._link.found()
        return True


class FileMailbox:
    """Reads the orders; the file is looked at twice a second at most. Without a file nothing is ever ordered."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._orders = Orders()
        self._looked, self._complained = float("-inf"), ""

    def orders(self) -> Orders:
        """What is ordered now. A half-written or missing file leaves the orders as they were."""
        now = self._clock()
        if self._path is not None and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            try:
                self._orders, self._complained = Orders.model_validate_json(self._path.read_bytes()), ""
            except FileNotFoundError:
                pass
            except ValidationError as error:
                self._complain(self._path.name, str(error))
        return self._orders

    def _complain(self, name: str, why: str) -> None:
        """Once until they can be read, or cannot for another reason."""
        if why != self._complained:
            _log.warning("the orders in %s cannot be read, those before stay in force: %s", name, why)
        self._complained = why
