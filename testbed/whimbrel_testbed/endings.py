"""How a command of the test bed ends when it is told to: what it began is taken back, and what it runs ends first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def end_by_exception() -> None:
    """From now on SIGTERM and SIGHUP end this process as an exception does, with the exit code that a shell tells."""
    for number in _ENDING:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.exit(128 + number)


def run_to_its_end(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command, and wait for it whatever comes: it has its own to take away. Return its exit code as a shell does.

    A terminal's Ctrl-C reaches the command too; SIGTERM and SIGHUP are passed on. `environment` is added to this one.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # Not ignored, where nothing is to be done: the command would inherit that.
    handlers = {signal.SIGINT: lambda *_: None, **dict.fromkeys(_ENDING, pass_on)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})
        for number in early:
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
