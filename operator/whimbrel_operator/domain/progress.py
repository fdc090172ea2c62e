"""Real figures of the copy: rows per second from successive reports, time left, percent. Nothing is made up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from whimbrel_api.migration import SnapshotStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_operator.domain.observed import Memory, RowSample

WINDOW = timedelta(seconds=15)


@dataclass(frozen=True)
class Rate:
    """Rows per second, and the seconds left at that rate; None where that is not known."""

    rows_per_second: float = 0.0
    eta: float | None = None


def remember_rows(memory: Memory, words: Sequence[WorkerReport], total_done: int) -> Memory:
    """The memory with the newest figure, not older than the window. A figure that falls starts anew."""
    if not words:
        return replace(memory, rows=())
    newest = RowSample(max(word.observed_at for word in words), total_done)
    kept = memory.rows
    if kept and (newest.rows < kept[-1].rows or newest.at < kept[-1].at):
        kept = ()
    if kept and newest.at == kept[-1].at:
        kept = kept[:-1]
    return replace(memory, rows=tuple(s for s in (*kept, newest) if newest.at - s.at <= WINDOW))


def rate(memory: Memory, left: int) -> Rate:
    """Rows per second over the window and the time for the rows that are left."""
    if len(memory.rows) < 2:
        return Rate()
    first, last = memory.rows[0], memory.rows[-1]
    passed = (last.at - first.at).total_seconds()
    speed = (last.rows - first.rows) / passed if passed > 0 else 0.0
    return Rate(round(speed, 1), round(max(0, left) / speed, 1) if speed > 0 else None)


def percent(copied: SnapshotStatus) -> int:
    """How much of the copy is done, in whole percent; 100 only when every table is."""
    if copied.rows_total <= 0:
        return 100 if 0 < copied.tables_total == copied.tables_done else 0
    share = 100 * copied.rows_copied // copied.rows_total
    return min(share, 100 if copied.tables_done >= copied.tables_total > 0 else 99)
