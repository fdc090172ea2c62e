"""Which keys the source's change log names between two positions. What is done with them is elsewhere."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.engine.compare.merge import Key
from whimbrel_worker.engine.ports import Changes, End, Event, Idle, PositionTracker, Source, StoppedTable
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.values.canonical import Identity, identity
from whimbrel_worker.values.columns import Table

KEYS_PER_TABLE = 200_000
"""Above this many a table is compared as a whole: that is cheaper than so many lookups, and bounded."""
_LOOK_EVERY = 256
_REST_SECONDS = 60


@dataclass(slots=True)
class ChangedKeys:
    """Keys by table name. A table in `crowded` has too many; one in `stopped` is carried no further, and why."""

    keys: dict[str, dict[Identity, Key]] = field(default_factory=dict)
    crowded: set[str] = field(default_factory=set)
    stopped: dict[str, str] = field(default_factory=dict)

    def add(self, changes: Changes, limit: int) -> None:
        """Note the old and the new key of every change."""
        table = changes.table
        if table.name in self.crowded:
            return
        keys = self.keys.setdefault(table.name, {})
        for row in (row for pair in changes.rows for row in pair if row is not None):
            key = table.key_of(row)
            keys[identity(table.key_columns, key)] = key
        if len(keys) > limit:
            self.crowded.add(table.name)
            del self.keys[table.name]


def changed_keys(
    source: Source,
    tables: Sequence[Table],
    since: str,
    through: str,
    *,
    check: Callable[[], None],
    limit: int = KEYS_PER_TABLE,
) -> ChangedKeys:
    """Read the log from `since` on until all of `through` has been seen; keys changed later may be among them.

    `check` is called at every event and may raise to end it. Raises SourceLogLost when the log no longer reaches back,
    ConfigurationError when the source has never reached `through`.
    """
    found = ChangedKeys()
    if not tables or source.covers(since, through):
        return found
    if not source.covers(source.position(), through):
        raise ConfigurationError(
            "the source's log does not hold the position to compare up to",
            where=through[:200],
            why="another server answers under the source's address, or its log was reset",
            todo="see which server the source's host name leads to, then check again",
        )
    with contextlib.closing(source.changes(since, tables)) as log:
        passage = _Passage(source, log.tracker(since), through)
        for event in log:
            check()
            if isinstance(event, Changes):
                found.add(event, limit)
            elif isinstance(event, StoppedTable):
                found.stopped[event.name] = event.reason
            elif passage.complete(event):
                return found
    raise Transient("the source's change log ended before the position to compare up to", where=through[:200])


@dataclass(slots=True)
class _Passage:
    """Whether the log has been read up to a position. Idle alone proves nothing: a server is while it skips."""

    source: Source
    tracker: PositionTracker
    through: str
    _ended: int = 0
    _moved_at: float = field(default_factory=time.monotonic)

    def complete(self, event: Event) -> bool:
        """Take note of an event. Raises Transient when the log rests for long without having got there."""
        if isinstance(event, End):
            self.tracker.add(event.transaction)
            self._ended += 1
            self._moved_at = time.monotonic()
            return self._ended % _LOOK_EVERY == 0 and self._there()
        if not isinstance(event, Idle):
            return False
        if self._there():
            return True
        if time.monotonic() - self._moved_at > _REST_SECONDS:
            raise Transient(
                "the source's change log does not get to the position to compare up to",
                where=self.through[:200],
                why=f"it has been idle for {_REST_SECONDS} seconds",
            )
        return False

    def _there(self) -> bool:
        return self.source.covers(str(self.tracker), self.through)
