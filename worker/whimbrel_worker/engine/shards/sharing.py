"""Who reads which shard: a worker's fair share of those that can be read now. Pure: rows and the clock in, wishes out.

Workers do not speak to each other. Each takes free shards up to its share at once, and what is left over only when
nobody else has taken it for a while: then another worker is missing. Who holds more than its share offers the rest now
and then; when nobody wants it, it is taken back soon and offered more rarely.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from whimbrel_worker.engine.shard_ports import ShardRef, ShardRow

LEFT_SECONDS: Final = 3.0
"""A shard that is free for so long is taken beyond the share."""
_OFFER_SECONDS: Final = (5.0, 300.0)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Rows to claim, in order, and rows of one's own to give back."""

    take: Sequence[ShardRow]
    give: Sequence[ShardRow]


@dataclass(slots=True)
class Sharing:
    """One worker's view. `clock` is monotonic."""

    index: int
    clock: Callable[[], float] = time.monotonic
    _free_since: dict[ShardRef, float] = field(default_factory=dict, init=False)
    _over_since: float | None = field(default=None, init=False)
    _patience: float = field(default=_OFFER_SECONDS[0], init=False)

    def wishes(self, readable: Sequence[ShardRow], workers: int) -> Wishes:
        """What to do with the rows that can be read now, among so many workers."""
        share = -(-len(readable) // max(1, workers))
        free = self._rotated([row for row in readable if row.owner < 0], workers)
        own = [row for row in readable if row.owner == self.index]
        now = self.clock()
        self._free_since = {row.ref: self._free_since.get(row.ref, now) for row in free}
        room = max(0, share - len(own))
        left = [row for row in free[room:] if now - self._free_since[row.ref] >= LEFT_SECONDS]
        return Wishes([*free[:room], *left], self._offer(own, share, now))

    def _rotated(self, free: list[ShardRow], workers: int) -> list[ShardRow]:
        """Each worker begins elsewhere, so that they seldom want the same."""
        free = sorted(free, key=lambda row: row.ref)
        first = len(free) * self.index // max(1, workers) % max(1, len(free))
        return free[first:] + free[:first]

    def _offer(self, own: Sequence[ShardRow], share: int, now: float) -> Sequence[ShardRow]:
        if len(own) <= share:
            if self._over_since is None or now - self._over_since > 2 * LEFT_SECONDS:
                self._over_since = None
            return ()
        if self._over_since is None:
            self._over_since, self._patience = now, _OFFER_SECONDS[0]
        if now - self._over_since < self._patience:
            return ()
        self._over_since, self._patience = now, min(2 * self._patience, _OFFER_SECONDS[1])
        return own[share:]
