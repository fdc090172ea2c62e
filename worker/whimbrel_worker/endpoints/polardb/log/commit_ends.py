"""Ends of commits that were read and not acknowledged yet: few are kept, however many there are. Pure."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

_MOST: Final = 10_000


class CommitEnds:
    """In log order. Of more than `most` some are forgotten: a stopped table holds acknowledgement back for days.

    What stands for a forgotten one is the nearest before it, so that never more is acknowledged than was asked for.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._ends, self._thinned = most, list[int](), False

    def __len__(self) -> int:
        return len(self._ends)

    def extend(self, ends: Iterable[int]) -> None:
        """These came, each after all before it."""
        self._ends.extend(ends)
        while len(self._ends) > self._most:
            del self._ends[-2::-2]  # the newest stays
            self._thinned = True

    def take(self, end: int) -> int | None:
        """What may be acknowledged for this end, forgotten with all before it; None where that is nothing new.

        Raises ValueError for what cannot be the end of a commit that came.
        """
        count = bisect_right(self._ends, end)
        found = self._ends[count - 1] if count else None
        if found != end and not (self._thinned and count < len(self._ends)):
            raise ValueError(f"{end} is not the end of a commit that was read and not yet acknowledged")
        del self._ends[:count]
        return found
