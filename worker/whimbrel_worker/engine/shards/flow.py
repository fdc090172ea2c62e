"""Whether items may still be on their way, where the log is divided into shards. No item is read here."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.engine.ports import ControlStore, Source
from whimbrel_worker.engine.shard_ports import ShardRow, ShardStore
from whimbrel_worker.engine.shards.lag import unsettled
from whimbrel_worker.engine.shards.lineage import is_open

_LOOK_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 1.0
"""Seconds to wait once a first wait has failed: a stream that stands still is not waited for again and again."""


@dataclass(slots=True)
class ShardFlow:
    """The stream into the target, if there is one: `store` None for none. `wait` may raise to end the task."""

    source: Source
    control: ControlStore
    store: ShardStore | None
    wait: Callable[[float], None]
    patience: float = 60.0

    @property
    def exists(self) -> bool:
        """Whether there are shards to follow."""
        return self.store is not None and bool(self.store.all())

    def caught_up(self) -> bool:
        """Wait until each open shard has either given what was written by now, or nothing when asked later.

        False: not in time. An empty page is no proof, so what still differs then may yet be on its way: it is looked
        at again.
        """
        now = self.source.clock()
        deadline = time.monotonic() + self.patience
        while not self._passed(now):
            if time.monotonic() >= deadline:
                self.patience = min(self.patience, _AGAIN_SECONDS)
                return False
            self.wait(_LOOK_SECONDS)
        return True

    def _passed(self, moment: float) -> bool:
        if self.store is None:
            return True
        stopped = {row.name for row in self.control.tables() if row.state == "Stopped"}
        rows = [row for row in self.store.all() if row.ref.table not in stopped]
        return all_passed(rows, moment, self.source.clock())


def all_passed(rows: Iterable[ShardRow], moment: float, now: float) -> bool:
    """Whether each open shard proved to be applied beyond a moment, or has given nothing for a while, asked after it.

    Times in seconds since 1970, source clock. A shard that has ended lately and shows no child yet is waited for.
    """
    return all(is_open(row) and _has_passed(row, moment) for row in unsettled(rows, now))


def _has_passed(row: ShardRow, moment: float) -> bool:
    return row.read_to >= moment or (row.quiet_since > 0 and row.asked_at >= moment)
