"""How a worker logs: plain lines or JSON, each with the migration, task and epoch that it works for. Nothing is logged.

The table of a line, where it is about one, comes with the line: `extra={"table": name}`.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO, get_args

from whimbrel_api.logs import (
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    USUAL_FORMAT,
    USUAL_LEVEL,
    JsonFormatter,
    LogFormat,
    LogLevel,
    about,
)
from whimbrel_api.tasks import TaskFile

_log = logging.getLogger(__name__)
# As the operator reads it from the end of a failed pod's log.
_PLAIN: Final = "%(asctime)s %(levelname)s%(about)s %(threadName)s %(name)s: %(message)s"
_QUIET: Final = ("urllib3", "kubernetes", "botocore")


class _Work(logging.Filter):
    """Adds to each line what this process works for."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, object] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged: always."""
        for name, value in self.told.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


_WORK: Final = _Work()


class _PlainFormatter(logging.Formatter):
    """`time LEVEL [migration task epoch table] thread logger: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        record.about = _in_brackets(about(record))
        return super().format(record)


def _in_brackets(found: Mapping[str, object]) -> str:
    task = "-".join(str(found[name]) for name in ("task", "index") if name in found)
    epoch = f"epoch {found['epoch']}" if "epoch" in found else ""
    words = [str(found.get("migration", "")), task, epoch, str(found.get("table", ""))]
    text = " ".join(word for word in words if word)
    return f" [{text}]" if text else ""


def configure(environment: Mapping[str, str] = os.environ, stream: TextIO | None = None) -> None:
    """Set up the root logger at the start, as the operator's settings of the same names say; one that is stays."""
    form, level = environment.get(FORMAT_VARIABLE, USUAL_FORMAT), environment.get(LEVEL_VARIABLE, USUAL_LEVEL)
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else _PlainFormatter(_PLAIN))
    handler.addFilter(_WORK)
    root.addHandler(handler)
    known = level in get_args(LogLevel)
    root.setLevel(level if known else USUAL_LEVEL)
    for name in _QUIET:
        # They tell of each request, also of its headers.
        logging.getLogger(name).setLevel(logging.WARNING)
    if not known or form not in get_args(LogFormat):
        _log.warning("%s=%s %s=%s is not known: plain, INFO are taken", FORMAT_VARIABLE, form, LEVEL_VARIABLE, level)


def works_for(file: TaskFile) -> None:
    """From now on each line says what this worker works for."""
    told = {"migration": file.migration, "task": file.task_id, "index": file.index, "epoch": file.epoch or None}
    _WORK.told = {name: value for name, value in told.items() if value is not None}


def in_epoch(epoch: int) -> None:
    """From now on each line says this epoch: the one that the worker has taken in the target."""
    _WORK.told = {**_WORK.told, **({"epoch": epoch} if epoch else {})}
