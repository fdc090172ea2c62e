"""How the process logs: one line a message, the resource in front; or JSON. What is logged stands where it happens."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from whimbrel_operator.settings import LogFormat, LogLevel

_KOPF: Final = ("kopf", "kopf.objects", "kopf.activities")
_QUIET: Final = ("asyncio", "aiohttp", "kubernetes", "urllib3")


class PlainFormatter(logging.Formatter):
    """`time LEVEL resource: message`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        where = _resource(record) or record.name
        line = f"{_time(record)} {record.levelname:<7} {where}: {' '.join(record.getMessage().split())}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n    ".join([line, *trace.splitlines()])


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        told = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "resource": _resource(record),
            "message": record.getMessage(),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in told.items() if value}, ensure_ascii=False)


class _Retries(logging.Filter):
    """kopf tells of each of its tries on each watch; that the API server is away is said once, by the Lease."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not ("Request attempt" in str(record.msg) and "will retry" in str(record.msg))


def configure(form: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Set up the root logger, once, at the start. kopf speaks only when something is wrong."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter())
    handler.addFilter(_Retries())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in (*_KOPF, *_QUIET):
        logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _resource(record: logging.LogRecord) -> str:
    """The resource that a record is about; kopf names it in its own way."""
    found = getattr(record, "resource", None)
    if isinstance(found, str):
        return found
    ref = getattr(record, "k8s_ref", None)
    if isinstance(ref, dict):
        return "/".join(str(ref.get(part, "")) for part in ("namespace", "kind", "name"))
    return ""
