"""A sample of a table of items: which segments are drawn and how many items of each are taken. How they are read is
the caller's business.

A segment is a part of the hash's range, so the items of a random segment are a random set of partition keys.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from whimbrel_worker.engine.compare.items import Segment

T = TypeVar("T")

PIECES: Final = 10
"""From how many places of a large table a worker takes its share."""
_TRIES: Final = 4 * PIECES
_MOST_SEGMENTS: Final = 1_000_000
"""DynamoDB's limit for TotalSegments."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One worker's share of a sample of `rows` items a table."""

    rows: int
    index: int
    workers: int

    @property
    def share(self) -> int:
        """How many items this worker takes of each table, at most."""
        return -(-self.rows // self.workers)

    def segments(self, known: int, rng: random.Random) -> list[Segment]:
        """This worker's segments in the order in which they are read until the share is full.

        `known` is about how many items the table has; with no more than the sample asks for, these are all segments.
        """
        parts = self._parts(known)
        numbers = rng.sample(range(parts), min(parts, _TRIES))
        return [Segment(self.index + self.workers * number, self.workers * parts) for number in numbers]

    def piece(self, known: int) -> int:
        """How many items are taken of one segment, at most."""
        return self.share if self._parts(known) <= PIECES else -(-self.share // PIECES)

    def _parts(self, known: int) -> int:
        """So that one segment holds about a piece."""
        piece = -(-self.share // PIECES)
        return max(1, min(known // (self.workers * piece), _MOST_SEGMENTS // self.workers))


def drawn(
    draw: Draw, known: int, rng: random.Random, read: Callable[[Segment], Iterable[Sequence[T]]]
) -> Iterator[Sequence[T]]:
    """A share of the sample, in batches. Where an estimate was far too high, a plain part of the table gives it."""
    left = draw.share
    for segment in draw.segments(known, rng):
        for batch in _first(read(segment), min(left, draw.piece(known))):
            left -= len(batch)
            yield batch
        if left <= 0:
            return
    if left == draw.share:
        yield from _first(read(Segment(draw.index, draw.workers)), left)


def _first(batches: Iterable[Sequence[T]], most: int) -> Iterator[Sequence[T]]:
    """The first `most` elements, still in batches."""
    left = most
    for batch in batches:
        yield list(islice(batch, left))
        left -= len(batch)
        if left <= 0:
            return
