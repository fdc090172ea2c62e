"""The demo from end to end on little data, and what it leaves behind when it is broken off: nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that the servers' own account may pass through, too."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _demo(scratch: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "whimbrel_cli", "demo", "--rows", "500", *options]
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


def _belongs(process: Path, scratch: Path) -> bool:
    """Whether a process works in the folder, or was started with it for its temporary files."""
    try:
        told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        return str(scratch).encode() in told or str(scratch) in str((process / "cwd").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _left(scratch: Path) -> list[str]:
    """The processes that a demo with this folder has left behind."""
    found = [process for process in Path("/proc").glob("[0-9]*") if _belongs(process, scratch)]
    return [process.name for process in found if process.name != str(os.getpid())]


def _gone(scratch: Path) -> None:
    """Waits until none is left; the keeper of the servers is the last to go."""
    deadline = time.monotonic() + 20
    while left := _left(scratch):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)


def test_the_demo_moves_everything_and_leaves_nothing(scratch: Path) -> None:
    process = _demo(scratch)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "No difference in 5 tables. Nothing was lost." in output
    assert "whimbrel approve flights --plan sha256:" in output
    assert "The application has stopped writing" in output
    _gone(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("moment", ["Starting a server that behaves", "An application now writes", "SchemaReady"])
def test_a_demo_that_is_broken_off_leaves_nothing(scratch: Path, moment: str) -> None:
    process = _demo(scratch)
    output = _until(process, moment)
    assert len(_left(scratch)) > 1
    os.kill(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 130, output + rest
    assert "Traceback" not in output + rest
    _gone(scratch)
    assert list(scratch.iterdir()) == []
