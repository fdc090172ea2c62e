"""The demo from end to end on little data, and what it leaves behind when it is broken off: nothing."""

import os
import signal
from pathlib import Path

import pytest

from support.demos import demo, gone, left, until

pytestmark = pytest.mark.timeout(240)


def test_the_demo_moves_everything_and_leaves_nothing(scratch: Path) -> None:
    process = demo(scratch)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "No difference in 5 tables. Nothing was lost." in output
    assert "whimbrel approve flights --plan sha256:" in output
    assert "The application has stopped writing" in output
    gone(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("moment", ["Starting a server that behaves", "An application now writes", "SchemaReady"])
def test_a_demo_that_is_broken_off_leaves_nothing(scratch: Path, moment: str) -> None:
    process = demo(scratch)
    output = until(process, moment)
    assert len(left(scratch)) > 1
    os.kill(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert process.returncode == 130, output + rest
    assert "Traceback" not in output + rest
    gone(scratch)
    assert list(scratch.iterdir()) == []
