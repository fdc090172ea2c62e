"""The demo from end to end on little data, and what it leaves behind when it is broken off: nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(240)


def _demo(scratch: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "whimbrel_cli", "demo", "--rows", "3000", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _until(process: subprocess.Popen[str], text: str) -> str:
    """Reads what the demo prints until a line holds `text`; the timeout of the test is the deadline."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"the demo ended without {text!r}:\n{read}")


def _gone(children: list[psutil.Process]) -> None:
    """Waits until none of them is left; the keeper of the servers is the last to go."""
    deadline = time.monotonic() + 20
    while left := [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still there: {left}"
        psutil.wait_procs(left, timeout=0.2)


def test_the_demo_moves_everything_and_leaves_nothing(tmp_path: Path) -> None:
    process = _demo(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "No difference in 5 tables. Nothing was lost." in output
    assert "whimbrel approve flights --plan sha256:" in output
    assert "The application has stopped writing" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["Starting a server that behaves", "An application now writes", "Snapshot"])
def test_a_demo_that_is_broken_off_leaves_nothing(tmp_path: Path, moment: str) -> None:
    process = _demo(tmp_path)
    output = _until(process, moment)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 130, output + rest
    assert "Traceback" not in output + rest
    _gone(children)
    assert list(tmp_path.iterdir()) == []
