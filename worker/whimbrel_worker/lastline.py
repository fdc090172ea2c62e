"""Makes a given line the log's last: Kubernetes takes a failed pod's termination message from the end of its log."""

import json
import logging

from whimbrel_api.reports import ReportedError
from whimbrel_api.tasks import ExitCode

_ROOM = 2000
"""Bytes. Kubernetes takes 2048 from the end of the log (FallbackToLogsOnError); the line's own head needs some."""


class LastLine(logging.Handler):
    """Remembers what was logged last, so that the same line need not be written twice."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._to = log
        self._text = ""

    def __enter__(self) -> "LastLine":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging for each line, whoever writes it."""
        self._text = record.getMessage()

    def say(self, text: str, level: int = logging.ERROR) -> None:
        """Log this, unless it stands at the end already; also where lines of that level are not wanted."""
        if self._text != text:
            self._to.log(max(level, self._to.getEffectiveLevel()), "%s", text)


def level_of(code: ExitCode) -> int:
    """The level of a failure: ERROR where a person must act, WARNING where the worker is only started again."""
    return logging.ERROR if code in (ExitCode.CONFIGURATION, ExitCode.SOURCE_LOG_LOST) else logging.WARNING


def in_full(error: ReportedError) -> str:
    """The failure on one line."""
    return " ".join(f"{error.category.value}: {error.sentence()}".split())


def fitting(error: ReportedError, room: int = _ROOM - 150) -> str:
    """The same within `room` bytes, also in JSON: long parts are cut at their ends, so each still says something."""
    whole, longest = in_full(error), room // 4
    while len(json.dumps(whole, ensure_ascii=False).encode()) > room:
        parts = {name: _cut(getattr(error, name), longest) for name in ("what", "where", "why", "todo")}
        whole, longest = in_full(error.model_copy(update=parts)), longest * 9 // 10
    return whole


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
