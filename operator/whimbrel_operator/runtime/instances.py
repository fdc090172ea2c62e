"""The folder of one task instance: its task file, orders, report, log and what is known of its process."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whimbrel_api.reports import ReportedError, WorkerReport
from whimbrel_api.tasks import ExitCode, Orders, TaskKind
from whimbrel_operator.domain.observed import TaskRef, TaskState
from whimbrel_operator.runtime.files import make_folder, read_json, write_json, write_whole

_LONGEST_LOG = 8 * 1024 * 1024
_TAIL = 256 * 1024
_TRIED_AGAIN = "delete the folder; the task is started again"
_LONG_RUN = 120.0


@dataclass(frozen=True)
class Known:
    """What is kept of an instance over restarts of the runner. `birth` tells a process from a later namesake."""

    kind: str
    task_id: str
    index: int
    started_at: str
    pid: int = 0
    birth: str = ""
    generation: int = 0
    fingerprint: str = ""
    interval: float = 1.0
    stopping_since: str = ""
    exit_code: int | None = None
    finished_at: str = ""
    failures: int = 0
    last_failure_at: str = ""
    last_error: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether its end has not been seen."""
        return self.exit_code is None

    def ended(self, code: int, at: datetime, error: ReportedError | None) -> "Known":
        """The same after its end. One that was told to stop, and one that finished, have not failed.

        A failure after a long run counts as the first.
        """
        if self.stopping_since and code != ExitCode.DONE:
            code = ExitCode.TOLD_TO_STOP
        over = replace(self, exit_code=int(code), finished_at=at.isoformat(), stopping_since="")
        if code == ExitCode.DONE:
            return replace(over, failures=0, last_failure_at="", last_error=None)
        if code == ExitCode.TOLD_TO_STOP:
            return over
        ran = (at - datetime.fromisoformat(self.started_at)).total_seconds()
        failures = 1 if ran >= _LONG_RUN else self.failures + 1
        told = error.model_dump(mode="json", by_alias=True) if error is not None else None
        return replace(over, failures=failures, last_failure_at=at.isoformat(), last_error=told)


class Instance:
    """One folder `tasks/<taskId>-<index>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """`<taskId>-<index>`."""
        return self.folder.name

    @property
    def task_file(self) -> Path:
        """What the worker is told."""
        return self.folder / "task.json"

    @property
    def report_file(self) -> Path:
        """What the worker answers."""
        return self.folder / "report.json"

    @property
    def orders_file(self) -> Path:
        """What a running worker is told."""
        return self.folder / "orders.json"

    @property
    def log_file(self) -> Path:
        """What the worker writes on stderr."""
        return self.folder / "log"

    @property
    def former_log(self) -> Path:
        """What stood in the log before it had grown too long."""
        return self.folder / "log.1"

    def known(self) -> Known | None:
        """What is kept of it; None before its first start."""
        value = read_json(self.folder / "state.json", _TRIED_AGAIN)
        return Known(**value) if value is not None else None

    def keep(self, known: Known) -> None:
        """Keep it over restarts."""
        make_folder(self.folder)
        write_json(self.folder / "state.json", asdict(known))

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=False)

    def report(self) -> tuple[WorkerReport | None, str]:
        """The newest report, and what is wrong with it if it cannot be read."""
        try:
            return WorkerReport.model_validate_json(self.report_file.read_bytes()), ""
        except FileNotFoundError:
            return None, ""
        except (ValidationError, ValueError) as error:
            return None, f"its report cannot be read: {str(error)[:500]}"

    def give_orders(self, orders: Orders) -> None:
        """Write the orders, unless they stand there already."""
        text = json.dumps(orders.model_dump(mode="json", by_alias=True)).encode()
        if not self.orders_file.exists() or self.orders_file.read_bytes() != text:
            write_whole(self.orders_file, text)

    def fresh_log(self) -> Path:
        """The log to append to; one that has grown too long is put aside first."""
        if self.log_file.exists() and self.log_file.stat().st_size > _LONGEST_LOG:
            self.log_file.replace(self.former_log)
        return self.log_file

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the log."""
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace").splitlines()[-lines:]

    def observed(self, known: Known) -> TaskState:
        """The instance as the domain sees it."""
        report, problem = self.report()
        error = ReportedError.model_validate(known.last_error) if known.last_error is not None else None
        return TaskState(
            kind=TaskKind(known.kind),
            ref=TaskRef(known.task_id, known.index),
            started_at=datetime.fromisoformat(known.started_at),
            running=known.running,
            stopping=bool(known.stopping_since),
            exit_code=known.exit_code,
            finished_at=_moment(known.finished_at),
            failures=known.failures,
            last_failure_at=_moment(known.last_failure_at),
            last_error=error,
            report=report,
            report_problem=problem,
            report_interval=known.interval,
            generation=known.generation,
            fingerprint=known.fingerprint,
        )


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def instances_in(folder: Path) -> list[Instance]:
    """The instances below a folder, sorted by name."""
    if not folder.is_dir():
        return []
    return [Instance(path) for path in sorted(folder.iterdir()) if path.is_dir()]
