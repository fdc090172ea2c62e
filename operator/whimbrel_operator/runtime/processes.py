"""Child processes that die with their parent, and processes of a former run. Which ones run is decided elsewhere."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def spawn(argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a child in a session of its own, its output appended to the log. Where the kernel can, it dies with us.

    What it writes is for its owner alone: reports and logs may name keys of rows.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            umask=0o077,
            start_new_session=True,
            preexec_fn=_bind_to_parent(),  # noqa: PLW1509 (the only place where prctl can be called for the child)
        )


def _bind_to_parent() -> Callable[[], None] | None:
    """What a child calls before exec, so that the kernel sends it SIGTERM when its parent's thread ends (prctl(2))."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return bind


def birth_of(pid: int) -> str:
    """When a process was born, in whatever form the system has it: same text, same process. Empty: gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def is_alive(pid: int, birth: str) -> bool:
    """Whether that very process still runs."""
    return pid > 0 and birth != "" and birth_of(pid) == birth


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child's whole group; one that is gone already is no error."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
