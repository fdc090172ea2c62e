"""Termination messages: the file that a container may leave, or the end of its log. Sizes are those of Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path

FILE_BYTES = 4096
LOG_BYTES, LOG_LINES = 2048, 80


def termination_message(file: Path, log: Path, policy: str, exit_code: int) -> str:
    """Return the message of a container that ended; the log is asked only after an error, and where the pod says so."""
    message = file.read_bytes()[:FILE_BYTES].decode("utf-8", "replace") if file.is_file() else ""
    if message or policy != "FallbackToLogsOnError" or exit_code == 0:
        return message
    return last_lines(log, LOG_LINES, LOG_BYTES)


def last_lines(log: Path, lines: int, most_bytes: int) -> str:
    """Return the end of a log: at most so many lines, and so many bytes."""
    if not log.is_file():
        return ""
    with log.open("rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - most_bytes))
        kept = handle.read().splitlines(keepends=True)[-lines:]
    return b"".join(kept).decode("utf-8", "replace")
