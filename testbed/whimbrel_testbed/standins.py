"""Stand-ins as processes of their own: settings go in through standard input, the port comes out, and they end with it.

What a stand-in does stands in its own package.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from whimbrel_testbed.cache import TestbedError

_STOP_SECONDS: Final = 10.0


@contextmanager
def standin_process(module: str, name: str, settings: Mapping[str, Any]) -> Iterator[int]:
    """Run a module that calls `serve_standin`; yields its port. The settings may hold secrets: no argument shows them.

    `name` is for messages. Raises TestbedError where it does not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield _port(process, name, settings)
    finally:
        _stop(process)


def _port(process: subprocess.Popen[bytes], name: str, settings: Mapping[str, Any]) -> int:
    if process.stdin is None or process.stdout is None:
        raise TestbedError(f"the process of {name} has no pipes")
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise TestbedError(f"{name[0].upper()}{name[1:]} ended at once (exit code {process.wait()}); see above why.")
    return int(json.loads(line)["port"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve_standin(run: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
    """Read the settings and serve; for the process's own side."""
    asyncio.run(run(json.loads(sys.stdin.buffer.readline())))


def tell_port(port: int) -> None:
    """Say that the server can be reached."""
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()


async def input_ends() -> None:
    """Wait until whoever started this process closes its standard input, or is gone."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        while sys.stdin.buffer.read(1):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
