"""How a copy counts what it tries again. What it copies is shown on real servers: tests/component/test_snapshot.py."""

from collections.abc import Sequence
from typing import Any

import pytest

from support.memory_target import MemoryTarget
from whimbrel_worker.engine.copy.copier import Copier, CopyOptions
from whimbrel_worker.engine.ports import TableRow, Tally
from whimbrel_worker.errors import Transient


class Ended(Exception):
    """The worker ends while it waits."""


class Away:
    """A source that does not answer."""

    def position(self) -> str:
        raise Transient("the source cannot be reached")


class Target(MemoryTarget):
    """With what a copy asks of its control rows before it reads anything."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()

    def release(self, _index: int, _attempt: int) -> None:
        """It holds nothing."""

    def fix_start_position(self, position: str) -> str:
        return position


class Guide:
    """Ends the copy at its second wait for the source."""

    def __init__(self) -> None:
        self.waits = 0

    def wait(self, seconds: float) -> None:
        self.waits += seconds > 0
        if self.waits == 2:
            raise Ended

    def rate(self) -> float | None:
        return None

    def progress(self, tables: Sequence[TableRow]) -> None:
        """Nobody is told."""


def test_tries_of_a_source_that_is_away_are_not_the_targets() -> None:
    source: Any = Away()
    target: Any = Target()
    tally = Tally()
    with pytest.raises(Ended):
        Copier(source, target, CopyOptions(0, 1000, 1), Guide(), tally).run()
    assert (tally.retries, target.tally.retries) == (2, 0)
