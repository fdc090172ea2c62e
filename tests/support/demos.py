"""The demo as a process, and what it leaves behind. What is expected of it stands with the tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def demo(scratch: Path, *options: str) -> subprocess.Popen[str]:
    """Starts the demo on little data, with a folder of its own for temporary files."""
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "whimbrel_cli", "demo", "--rows", "500", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def until(process: subprocess.Popen[str], text: str) -> str:
    """Reads what a command prints until a line holds `text`; the timeout of the test is the deadline."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"it ended without {text!r}:\n{read}")


def broken_off(scratch: Path, moment: str, *options: str) -> int:
    """Interrupts the demo when it says `moment`, and waits until nothing of it is left; how much there had been."""
    process = demo(scratch, *options)
    output = until(process, moment)
    there = len(left(scratch))
    os.kill(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 130, output + rest
    assert "Traceback" not in output + rest
    gone(scratch)
    assert list(scratch.iterdir()) == []
    return there


def _belongs(process: Path, scratch: Path) -> bool:
    """Whether a process works in the folder, or was started with it for its temporary files."""
    try:
        told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        return str(scratch).encode() in told or str(scratch) in str((process / "cwd").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def left(scratch: Path) -> list[str]:
    """The processes that a demo with this folder has left behind."""
    found = [process for process in Path("/proc").glob("[0-9]*") if _belongs(process, scratch)]
    return [process.name for process in found if process.name != str(os.getpid())]


def gone(scratch: Path) -> None:
    """Waits until none is left; the keeper of the servers is the last to go."""
    deadline = time.monotonic() + 20
    while there := left(scratch):
        assert time.monotonic() < deadline, f"still there: {there}"
        time.sleep(0.1)
