"""How the process logs: one line a message, the resource in front; or JSON. What is logged stands where it happens."""

import logging
import sys
from collections.abc import Mapping
from typing import Final, TextIO

from whimbrel_api import logs
from whimbrel_api.logs import LogFormat, LogLevel

_KOPF: Final = ("kopf", "kopf.objects", "kopf.activities")
_QUIET: Final = ("asyncio", "aiohttp", "kubernetes", "urllib3")


class PlainFormatter(logging.Formatter):
    """`time LEVEL resource: message`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        epoch = getattr(record, "epoch", 0)
        where = (_resource(record) or record.name) + (f" (epoch {epoch})" if epoch else "")
        line = f"{logs.time_of(record)} {record.levelname:<7} {where}: {' '.join(record.getMessage().split())}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n    ".join([line, *trace.splitlines()])


class JsonFormatter(logs.JsonFormatter):
    """One JSON object a line; a Migration's has its name as workers say it, too."""

    def about(self, record: logging.LogRecord) -> Mapping[str, object]:
        """What the line is about."""
        resource = _resource(record)
        namespace, _, rest = resource.partition("/")
        kind, _, name = rest.partition("/")
        named = {"migration": f"{namespace}/{name}"} if kind == "Migration" else {}
        return {"resource": resource, **named, **logs.about(record)}


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


def _resource(record: logging.LogRecord) -> str:
    """The resource that a record is about; kopf names it in its own way."""
    found = getattr(record, "resource", None)
    if isinstance(found, str):
        return found
    ref = getattr(record, "k8s_ref", None)
    if isinstance(ref, dict):
        return "/".join(str(ref.get(part, "")) for part in ("namespace", "kind", "name"))
    return ""
