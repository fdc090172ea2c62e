"""Chunk bounds and bookmarks of a Scan: which segment of how many, and the key to read on after. Pure.

The bound ("2/8",) stands between segments 1 and 2 of 8: as a lower bound it means segment 2, as an upper bound without
a lower one segment 0 of 8. A bookmark ("2/8", '{"pk":{"S":"a"}}') is inside segment 2, behind that key.
"""

from dataclasses import dataclass
from typing import Final

from whimbrel_worker.errors import ConfigurationError

MOST: Final = 1000
"""Segments of one table; DynamoDB takes up to a million."""

Bound = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Scan begins: in segment `index` of `total`, after a key as JSON, or at the segment's beginning."""

    index: int
    total: int
    after: str = ""

    @property
    def name(self) -> str:
        """The segment in a bound or bookmark."""
        return f"{self.index}/{self.total}"


def place_of(low: Bound, high: Bound) -> Place:
    """The segment that lies behind a lower bound or bookmark."""
    if low is not None:
        index, total = _parsed(low)
        return Place(index, total, low[1] if len(low) > 1 else "")
    return Place(0, _parsed(high)[1] if high is not None else 1)


def following(after: Bound, total: int) -> Bound:
    """The bound behind another one: ("1/N",) behind none, none behind the last. `total` counts where none is given."""
    index = 0
    if after is not None:
        index, total = _parsed(after)
    return (f"{index + 1}/{total}",) if index + 1 < total else None


def segments_for(items: int, rows: int) -> int:
    """Into how many segments a table of about so many items is divided for chunks of `rows`."""
    return min(MOST, max(1, -(-items // max(1, rows))))


def _parsed(bound: tuple[str, ...]) -> tuple[int, int]:
    index, _, total = bound[0].partition("/")
    if not (index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise ConfigurationError(
            f"{bound[0][:50]!r} is no segment of a table of items",
            why="the control table's chunk was written by another version or for another kind of source",
            todo="cancel the migration and begin a new one under another name",
        )
    return int(index), int(total)
