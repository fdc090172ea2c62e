"""The demo from end to end on little data, there and back, and what it leaves behind when it is broken off: nothing."""

import re
from pathlib import Path

import pytest

from support.demos import broken_off, demo, gone

# Longer than the demo's own patience: it tells what has stopped it.
pytestmark = pytest.mark.timeout(360)


def test_the_demo_moves_everything_and_leaves_nothing(scratch: Path) -> None:
    process = demo(scratch)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "No difference in 5 tables. Nothing was lost." in output
    assert "whimbrel approve flights --plan sha256:" in output
    assert "The application has stopped writing" in output
    assert "The application writes to the Aurora DSQL stand-in now" in output
    assert "Compared at the cutover by plain reads" in output
    assert re.search(r"MySQL → the Aurora DSQL stand-in +\d+(\.\d| m \d+)? s +about \d", output)
    gone(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.timeout(660)
def test_the_demo_goes_there_and_back(scratch: Path) -> None:
    process = demo(scratch, "--pair", "dynamodb", "--rows", "150", "--rate", "40")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    moments = [
        "The application writes to the PolarDB stand-in now",
        "Flowing back, the PolarDB stand-in → DynamoDB: lag",
        "RollbackReady (Ready)",
        "whimbrel rollback flights",
        "Rolled back: the traffic may move to the source again",
        "The application writes to DynamoDB now",
        "On the target's server is left: no replication slot, no publication",
        "Compared at the cutover by plain reads",
        "Compared at the rollback by plain reads",
        "Compared at the end by plain reads",
        "No difference in 5 tables. Nothing was lost.",
    ]
    found = [output.find(moment) for moment in moments]
    assert found == sorted(found), list(zip(moments, found, strict=True))
    assert found[0] >= 0, output
    assert re.search(r"DynamoDB → the PolarDB stand-in +\d+(\.\d| m \d+)? s +about \d", output)
    assert re.search(r"the PolarDB stand-in → DynamoDB +\d+(\.\d| m \d+)? s +–", output)
    gone(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("moment", ["Starting a server that behaves", "An application now writes", "SchemaReady"])
def test_a_demo_that_is_broken_off_leaves_nothing(scratch: Path, moment: str) -> None:
    assert broken_off(scratch, moment) > 1
