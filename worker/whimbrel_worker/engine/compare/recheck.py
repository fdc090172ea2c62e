"""The second look at rows that may differ: what is in flight now will be equal then. Finding them is elsewhere.

One attempt reads the source's position, waits until the target holds it, and reads the rows again on both sides. A row
still differs for good only when the source's row was the same before the wait and after it: then all that made it had
reached the target. Otherwise it moves faster than we look, and nothing is known: inconclusive.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.engine.compare.findings import Findings, Kinds
from whimbrel_worker.engine.compare.flow import Arrival
from whimbrel_worker.engine.compare.merge import Key, by_identity
from whimbrel_worker.engine.compare.reading import looked_up
from whimbrel_worker.engine.ports import SourceReader, TargetReader
from whimbrel_worker.values.canonical import Identity, differing
from whimbrel_worker.values.columns import Row, Table

_GROWTH = 4
"""Waits double up to this many times the first one."""
_REMEMBERED = 200_000
_MOVING = "the source's row changed again between two looks at it"
_BEHIND = "the target did not reach the source's position in time; see whether the stream runs"


@dataclass(slots=True)
class _Standing:
    """A row that still differs: both sides as last read, and whether the source's moved since the look before."""

    source: Sequence[Row]
    target: Sequence[Row]
    moved_now: bool = False
    moved_ever: bool = False

    def see(self, table: Table, source: Sequence[Row]) -> None:
        """Compare with a newer look at the source."""
        if not _same(table, source, self.source):
            self.moved_now = self.moved_ever = True


@dataclass(slots=True)
class Recheck:
    """Looks again, with readers of its own, for one thread at a time. `backoff` in seconds; `wait` may raise to end the
    task."""

    source: SourceReader
    target: TargetReader
    flow: Arrival
    findings: Findings
    attempts: int
    backoff: float
    wait: Callable[[float], None]
    _found: dict[str, set[Identity]] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, table: Table, suspects: Mapping[Identity, Key]) -> None:
        """Look again at these rows and count those that differ, or whose state cannot be known."""
        with self._one:
            self._settle(table, suspects)

    def _settle(self, table: Table, suspects: Mapping[Identity, Key]) -> None:
        known = self._found.setdefault(table.name, set())
        keys = {mark: key for mark, key in suspects.items() if mark not in known}
        if not keys:
            return
        streaming = self.flow.exists
        standing, reached = self._look_again(table, keys, streaming)
        for mark, row in standing.items():
            if len(known) < _REMEMBERED:
                known.add(mark)
            self._count(table, keys[mark], row, self._doubt(row, streaming, reached))

    def _look_again(
        self, table: Table, keys: dict[Identity, Key], streaming: bool
    ) -> tuple[dict[Identity, _Standing], bool]:
        standing, reached = self._differing(table, keys, {}), True
        for attempt in range(self._attempts()):
            if not standing or not reached:
                break
            if attempt or not streaming:
                self.wait(self.backoff * min(2**attempt, _GROWTH))
            reached = self.flow.caught_up() if streaming else True
            standing = self._differing(table, {mark: keys[mark] for mark in standing}, standing)
        self._see_movement(table, standing)
        return standing, reached

    def _see_movement(self, table: Table, standing: dict[Identity, _Standing]) -> None:
        """Once more the source alone: a change may have come after that side was read and before the target was."""
        keys = [table.key_of((row.source or row.target)[0]) for row in standing.values() if row.source or row.target]
        rows = by_identity(table, looked_up(self.source.by_keys, table, keys))
        for mark, row in standing.items():
            row.see(table, rows.get(mark, []))

    def _attempts(self) -> int:
        """With more differences than are listed, one attempt must do for the rest: it proves as much for each row."""
        return min(self.attempts, 1) if self.findings.plenty else self.attempts

    def _differing(
        self, table: Table, keys: dict[Identity, Key], before: Mapping[Identity, _Standing]
    ) -> dict[Identity, _Standing]:
        wanted = list(keys.values())
        rows = by_identity(table, looked_up(self.source.by_keys, table, wanted))
        others = by_identity(table, looked_up(self.target.by_keys, table, wanted))
        result = {}
        for mark in keys:
            source, target = rows.get(mark, []), others.get(mark, [])
            if not _same(table, source, target):
                result[mark] = _stood(table, source, target, before.get(mark))
        return result

    def _doubt(self, row: _Standing, streaming: bool, reached: bool) -> str:
        if self.attempts == 0:
            return ""
        if not reached:
            return _BEHIND
        # Without a stream's position to go by, any movement leaves it open whether the target is only late.
        return _MOVING if row.moved_now or (row.moved_ever and not streaming) else ""

    def _count(self, table: Table, key: Key, row: _Standing, doubt: str) -> None:
        source = row.source[0] if row.source else None
        target = row.target[0] if row.target else None
        self.findings.row(
            table, "inconclusive" if doubt else _kind(row), key, source=source, target=target, reason=doubt
        )


def _kind(row: _Standing) -> Kinds:
    if not row.target:
        return "missing"
    return "extra" if len(row.target) > len(row.source) else "changed"


def _same(table: Table, source: Sequence[Row], target: Sequence[Row]) -> bool:
    if len(source) != len(target):
        return False
    return all(not differing(table.columns, row, other) for row, other in zip(source, target, strict=True))


def _stood(table: Table, source: Sequence[Row], target: Sequence[Row], before: _Standing | None) -> _Standing:
    if before is None:
        return _Standing(source, target)
    moved = not _same(table, source, before.source)
    return _Standing(source, target, moved, moved or before.moved_ever)
