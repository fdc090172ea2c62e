"""How a worker logs: plain lines or JSON, each with the migration, task and epoch that it works for. Nothing is logged.

The table of a line comes from the code around it, `lines_about(table=name)`, or with the line: `extra={"table": name}`.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO, get_args

from whimbrel_api.hooks import SwitchOrder
from whimbrel_api.logs import (
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    USUAL_FORMAT,
    USUAL_LEVEL,
    About,
    JsonFormatter,
    LogFormat,
    LogLevel,
    PlacesFormatter,
    about,
)
from whimbrel_api.tasks import TaskFile

_log = logging.getLogger(__name__)
# As the operator reads it from the end of a failed pod's log.
_PLAIN: Final = "%(asctime)s %(levelname)s%(about)s %(threadName)s %(name)s: %(message)s"
# Clients tell of each request, also of its headers; psycopg of errors on its way out, whose texts may quote a row.
_QUIET: Final = {"urllib3": "WARNING", "kubernetes": "WARNING", "botocore": "WARNING", "boto3": "WARNING",
                 "psycopg": "ERROR"}  # fmt: skip
_WORK: Final = About()


class _PlainFormatter(PlacesFormatter):
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
    root = logging.getLogger()
    if root.handlers:
        return
    form, wrong_form = _chosen(environment, FORMAT_VARIABLE, get_args(LogFormat), USUAL_FORMAT)
    level, wrong_level = _chosen(environment, LEVEL_VARIABLE, get_args(LogLevel), USUAL_LEVEL)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else _PlainFormatter(_PLAIN))
    handler.addFilter(_WORK)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    for wrong in filter(None, (wrong_form, wrong_level)):
        _log.warning("%s", wrong)


def _chosen(environment: Mapping[str, str], name: str, known: Sequence[str], usual: str) -> tuple[str, str]:
    """The value of a variable, the usual one where it is not known; and what is to be said then."""
    value = environment.get(name, usual)
    return (value, "") if value in known else (usual, f"{name}={value} is not known: {usual} is taken")


def works_for(file: TaskFile) -> None:
    """From now on each line says what this worker works for."""
    told = {"migration": file.migration, "task": file.task_id, "index": file.index, "epoch": file.epoch or None}
    _WORK.told = {name: value for name, value in told.items() if value is not None}


def switches(order: SwitchOrder) -> None:
    """The same of a process that carries out a switch."""
    _WORK.told = {"migration": f"{order.namespace}/{order.owner_name}", "task": f"switch-{order.switch.name}"}


def in_epoch(epoch: int) -> None:
    """From now on each line says this epoch: the one that the worker has taken in the target."""
    _WORK.told = {**_WORK.told, **({"epoch": epoch} if epoch else {})}
