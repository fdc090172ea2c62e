"""The demo from end to end on little data, and what it leaves behind when it is broken off: nothing."""

from pathlib import Path

import pytest

from support.demos import broken_off, demo, gone

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
    assert broken_off(scratch, moment) > 1
