"""What commands cost, as the kernel counted it: CPU, time and memory. What they do is the caller's business."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Usage:
    """User and system time of all processes together, seconds passed, and the peak of the largest process in MB."""

    cpu: float
    wall: float
    memory: float


def run(commands: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None) -> Usage:
    """Run commands joined by pipes to their end; raises RuntimeError where one fails."""
    began = time.perf_counter()
    children = _start(commands, os.environ | dict(environment or {}))
    cpu, memory = _wait({child.pid: child for child in children})
    wall = time.perf_counter() - began
    for command, child in zip(commands, children, strict=True):
        if child.returncode:
            raise RuntimeError(f"{Path(command[0]).name} (of {len(commands)}) ended with {child.returncode}: see above")
    return Usage(cpu, wall, memory)


def _start(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> list[subprocess.Popen[bytes]]:
    children: list[subprocess.Popen[bytes]] = []
    for number, command in enumerate(commands):
        source = children[-1].stdout if children else None
        sink = subprocess.PIPE if number < len(commands) - 1 else None
        children.append(subprocess.Popen(command, stdin=source, stdout=sink, env=environment))
        if source is not None:
            source.close()
    return children


def _wait(running: dict[int, subprocess.Popen[bytes]]) -> tuple[float, float]:
    cpu = memory = 0.0
    while running:
        for pid in list(running):
            memory = max(memory, peak_memory(pid))
            ended, status, used = os.wait4(pid, os.WNOHANG)
            if ended:
                running.pop(pid).returncode = os.waitstatus_to_exitcode(status)
                cpu += used.ru_utime + used.ru_stime
        time.sleep(_POLL_SECONDS)
    return cpu, memory


def peak_memory(pid: int) -> float:
    """Return a process's peak so far in MB, 0 once it has ended.

    Not ru_maxrss: that starts from the parent's own peak, because it outlives exec (getrusage(2), proc(5)).
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
