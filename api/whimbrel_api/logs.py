"""How a line of a log looks as JSON, the same for operator and workers. What is logged, and where to, they know."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

LogFormat = Literal["plain", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
FORMAT_VARIABLE: Final = "WHIMBREL_LOG_FORMAT"
LEVEL_VARIABLE: Final = "WHIMBREL_LOG_LEVEL"
USUAL_FORMAT: Final[LogFormat] = "plain"
USUAL_LEVEL: Final[LogLevel] = "INFO"
FIELDS: Final = ("resource", "migration", "task", "index", "epoch", "table")
"""What a line may be about, as far as it is known: `migration` as namespace/name, `resource` as namespace/Kind/name."""
_MESSAGE: Final = '"message": "'


def time_of(record: logging.LogRecord) -> str:
    """When it was logged: UTC with milliseconds and a Z."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def about(record: logging.LogRecord) -> dict[str, object]:
    """The fields that a record has, by its `extra`."""
    found = {name: getattr(record, name, None) for name in FIELDS}
    return {name: value for name, value in found.items() if value not in (None, "")}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, FIELDS, a traceback, the message.

    The message is the last: of a pod that failed Kubernetes keeps only the end of its log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        told: dict[str, object] = {
            "time": time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            **self.about(record),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        kept = {name: value for name, value in told.items() if value not in (None, "")}
        return json.dumps({**kept, "message": record.getMessage()}, ensure_ascii=False, default=str)

    def about(self, record: logging.LogRecord) -> Mapping[str, object]:
        """What the line is about."""
        return about(record)


def read_line(line: str) -> tuple[str, str] | None:
    """Level in capitals and message of a line of JsonFormatter; None where it is none.

    A line whose beginning was cut off has no level.
    """
    try:
        found = json.loads(line)
        return str(found["level"]).upper(), str(found["message"])
    except (ValueError, LookupError, TypeError):
        head, mark, rest = line.rpartition(_MESSAGE)
    if not mark or not rest.endswith('"}') or head.startswith("{"):
        return None
    try:
        return "", str(json.loads(f'"{rest[:-1]}'))
    except ValueError:
        return None
