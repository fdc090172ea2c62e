"""One process for each container: started in a group of its own, ended as a group, never outliving the agent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed.kubernetes.agent import keeper

_PR_SET_PDEATHSIG = 1


class Keeper:
    """The program beside the agent that ends every pod process once the agent is gone, in whatever way."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", str(keeper.__file__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)

    def tell(self, line: str) -> None:
        """Send one line, unless closed: `+PID` for a group that began, `-PID` for one that ended."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End every group that still runs, and the keeper."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Launch:
    """All that a process is started with; its output is appended to the log, and its input is empty."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path


class Process:
    """A running process and its group. `on_end` is called once, in the event loop, with what `subprocess` returns."""

    def __init__(self, launch: Launch, watch: Keeper, on_end: Callable[[int], None]) -> None:
        with launch.log.open("ab") as log:
            self._popen = subprocess.Popen(
                launch.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=launch.folder,
                env=dict(launch.environment), start_new_session=True, preexec_fn=_die_with_parent(),  # noqa: PLW1509
            )  # fmt: skip
        self._keeper, self._on_end = watch, on_end
        self.ended = asyncio.Event()
        watch.tell(f"+{self.pid}")
        self._handle = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    @property
    def pid(self) -> int:
        """The process id, which is the id of the group too."""
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens where it has ended."""
        if not self.ended.is_set():
            _signal_group(self.pid, number)

    async def end(self, grace_seconds: float) -> None:
        """Ask the group to end, wait, and kill what is still there."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.ended.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        # Before the wait, while the number cannot belong to another: what the process left behind ends with it.
        _signal_group(self.pid, signal.SIGKILL)
        returncode = self._popen.wait()
        self._keeper.tell(f"-{self.pid}")
        self.ended.set()
        self._on_end(returncode)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _die_with_parent() -> Callable[[], None]:
    """What a child calls before exec, so that the kernel kills it when the agent dies (prctl(2))."""
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return bind
