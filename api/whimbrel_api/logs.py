"""How a line of a log looks and what it is about, for operator and workers. What is logged, and where to, they know."""

import contextvars
import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
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
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_ABOUT: Final = contextvars.ContextVar[Mapping[str, object]]("about", default=_NOTHING)
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


@contextmanager
def lines_about(**fields: object) -> Iterator[None]:
    """Within it each line of this thread or asyncio task, and of what it awaits, says these FIELDS too."""
    token = _ABOUT.set({**_ABOUT.get(), **fields})
    try:
        yield
    finally:
        _ABOUT.reset(token)


class About(logging.Filter):
    """Adds to each line what the process works for, `told`, and what the code around it is about.

    For a handler: a filter of a logger does not see the lines of those below it. A line's own `extra` goes before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: Mapping[str, object] = _NOTHING

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged: always."""
        for name, value in {**self.told, **_ABOUT.get()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def time_of(record: logging.LogRecord) -> str:
    """When it was logged: UTC with milliseconds and a Z."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def about(record: logging.LogRecord) -> dict[str, object]:
    """The fields that a record has, by its `extra` and by About."""
    found = {name: getattr(record, name, None) for name in FIELDS}
    return {name: value for name, value in found.items() if value not in (None, "")}


def places(error: BaseException) -> str:
    """Where an error happened, and those that it came of: types and places, no texts, which may quote a row."""
    chain: list[str] = []
    met: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in met:
        met.add(id(cause))
        chain.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__name__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nwhich came while handling this:\n".join(chain)


def catch_what_nobody_catches() -> None:
    """An error that ends the process or a thread is a line as the others are, and quotes nothing."""
    log = logging.getLogger(__name__)

    def told(where: str, error: BaseException) -> None:
        log.error("%s ended by an error that nobody foresaw: %s", where, type(error).__name__, exc_info=error)

    sys.excepthook = lambda _, error, __: told("the process", error)
    threading.excepthook = lambda each: told("a thread", each.exc_value or RuntimeError())


class PlacesFormatter(logging.Formatter):
    """Tells tracebacks without the values in them."""

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 (logging's own name)
        """An exception of a line."""
        return f"Traceback (most recent call last):\n{places(ei[1])}" if ei[1] is not None else ""


class JsonFormatter(PlacesFormatter):
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
