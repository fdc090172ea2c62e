"""Sets of MySQL transaction numbers (GTIDs): text and wire form, and set arithmetic. No I/O."""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}\Z")
_INTERVAL = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?\Z")
_MAX_NUMBER = 2**63 - 2
_TAGGED_FORMAT = 1
NOTHING = "nothing"
"""The position of a server that has no GTID yet: it must not read like a position that nobody has taken."""


class GtidSet:
    """A mutable set of GTIDs, kept for each source as sorted bounds ``[start, end, start, end, …]`` with open ends.

    A source is ``uuid`` or ``uuid:tag`` (tags: MySQL 8.3 and later), in lower case.
    """

    __slots__ = ("_bounds",)

    def __init__(self) -> None:
        self._bounds: dict[str, list[int]] = {}

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """Read MySQL's text form, such as ``uuid:1-5:7:tag:1-3,uuid:1``; ValueError says what is wrong with it."""
        result = cls()
        if text == NOTHING:
            return result
        for entry in filter(None, (part.strip() for part in text.split(","))):
            uuid, *items = (item.strip().lower() for item in entry.split(":"))
            if not _UUID.match(uuid) or not items:
                raise ValueError(f"not a GTID set: {entry!r} does not start with a server UUID and an interval")
            result._add_items(uuid, items)
        return result

    def _add_items(self, uuid: str, items: Iterable[str]) -> None:
        source = uuid
        for item in items:
            if _TAG.match(item):
                source = f"{uuid}:{item}"
                continue
            match = _INTERVAL.match(item)
            first = int(match[1]) if match else 0
            last = int(match[2] or first) if match else 0
            if first < 1 or last > _MAX_NUMBER:
                raise ValueError(f"not a GTID set: {item!r} is neither a tag nor an interval from 1 to {_MAX_NUMBER}")
            if last >= first:
                self.add_range(source, first, last + 1)

    def __str__(self) -> str:
        return ",".join(":".join(items) for items in self._texts())

    def position(self) -> str:
        """The text form, and a word of its own for the empty set."""
        return str(self) or NOTHING

    def _texts(self) -> Iterator[list[str]]:
        items: list[str] = []
        for source, bounds in self._sorted():
            uuid, _, tag = source.partition(":")
            if not items or items[0] != uuid:
                if items:
                    yield items
                items = [uuid]
            items.extend([tag] if tag else [])
            items.extend(_interval_text(start, end) for start, end in _pairs(bounds))
        if items:
            yield items

    def _sorted(self) -> list[tuple[str, list[int]]]:
        return sorted((source, bounds) for source, bounds in self._bounds.items() if bounds)

    def __repr__(self) -> str:
        return f"GtidSet.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and self._sorted() == other._sorted()

    __hash__ = None  # type: ignore[assignment]  # a mutable set has no hash

    def __bool__(self) -> bool:
        return any(self._bounds.values())

    def __len__(self) -> int:
        return sum(end - start for bounds in self._bounds.values() for start, end in _pairs(bounds))

    def copy(self) -> GtidSet:
        """An independent copy."""
        result = GtidSet()
        result._bounds = {source: list(bounds) for source, bounds in self._bounds.items()}
        return result

    def add(self, source: str, number: int) -> None:
        """Add one transaction of a source; constant time when it is the one that follows the last."""
        bounds = self._bounds.get(source)
        if bounds and bounds[-1] == number:
            bounds[-1] = number + 1
        else:
            self.add_range(source, number, number + 1)

    def add_gtid(self, gtid: str) -> None:
        """Add one transaction given as text, ``uuid:number`` or ``uuid:tag:number``."""
        source, _, number = gtid.rpartition(":")
        self.add(source, int(number))

    def add_range(self, source: str, start: int, end: int) -> None:
        """Add the transactions from ``start`` up to, not including, ``end``."""
        bounds = self._bounds.setdefault(source, [])
        # An even index lies between intervals: there the new bound stays; an odd one lies inside one that swallows it.
        left = bisect_left(bounds, start)
        right = bisect_right(bounds, end)
        replacement = ([start] if left % 2 == 0 else []) + ([end] if right % 2 == 0 else [])
        bounds[left:right] = replacement

    def contains(self, gtid: str) -> bool:
        """Whether one transaction, given as text, is in the set."""
        source, _, number = gtid.rpartition(":")
        return bisect_right(self._bounds.get(source, []), int(number)) % 2 == 1

    def issubset(self, other: GtidSet) -> bool:
        """Whether every transaction of this set is in the other."""
        return not self.difference(other)

    def union(self, other: GtidSet) -> GtidSet:
        """What is in either set."""
        result = self.copy()
        for source, bounds in other._bounds.items():
            for start, end in _pairs(bounds):
                result.add_range(source, start, end)
        return result

    def intersection(self, other: GtidSet) -> GtidSet:
        """What is in both sets: of several positions, the least one."""
        return self._combine(other, both=True)

    def difference(self, other: GtidSet) -> GtidSet:
        """What is in this set and not in the other."""
        return self._combine(other, both=False)

    def _combine(self, other: GtidSet, *, both: bool) -> GtidSet:
        result = GtidSet()
        for source, bounds in self._bounds.items():
            theirs = other._bounds.get(source, [])
            for start, end in _sweep(bounds, theirs, both=both):
                result.add_range(source, start, end)
        return result

    def encode(self) -> bytes:
        """The set as COM_BINLOG_DUMP_GTID and PREVIOUS_GTIDS carry it (``Gtid_set::encode`` of the server).

        Without tags: count u64, then for each source UUID, interval count u64, bounds u64. With tags the first number
        holds the format in its highest and lowest byte, and each UUID is followed by its tag's length and text.
        """
        entries = self._sorted()
        tagged = any(":" in source for source, _ in entries)
        count = len(entries)
        head = (_TAGGED_FORMAT << 56) | (count << 8) | _TAGGED_FORMAT if tagged else count
        return struct.pack("<Q", head) + b"".join(_encode_source(s, bounds, tagged=tagged) for s, bounds in entries)


def _encode_source(source: str, bounds: list[int], *, tagged: bool) -> bytes:
    uuid, _, tag = source.partition(":")
    # A length below 64 is one byte of the server's variable-length integers: the value, shifted by one.
    tag_part = bytes([len(tag) << 1]) + tag.encode("ascii") if tagged else b""
    return bytes.fromhex(uuid.replace("-", "")) + tag_part + struct.pack(f"<Q{len(bounds)}Q", len(bounds) // 2, *bounds)


def _pairs(bounds: list[int]) -> Iterator[tuple[int, int]]:
    return zip(bounds[::2], bounds[1::2], strict=True)


def _interval_text(start: int, end: int) -> str:
    return str(start) if end == start + 1 else f"{start}-{end - 1}"


def _sweep(ours: list[int], theirs: list[int], *, both: bool) -> Iterator[tuple[int, int]]:
    """Walk over all bounds and yield the pieces of ours that lie inside (both) or outside of theirs."""
    points = sorted({*ours, *theirs})
    for start, end in pairwise(points):
        if bisect_right(ours, start) % 2 and bool(bisect_right(theirs, start) % 2) == both:
            yield start, end
