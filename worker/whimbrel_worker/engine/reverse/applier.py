"""Applies a log to items: items first, then the position is kept, then the source may forget. Knows ports only.

A transaction's items are written as they come; what is kept is the end of a transaction alone. Whatever dies in
between, the same whole items are written again, which changes nothing: a position never speaks of items that are not
in the target.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.engine.reverse.buffer import Buffer
from whimbrel_worker.engine.reverse.ledger import Ledger
from whimbrel_worker.engine.reverse_ports import (
    Beat,
    Emptied,
    Ended,
    ItemsChanged,
    Keeper,
    Kept,
    Refused,
    ReverseEvent,
    ReverseLog,
)
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.failpoints import reach
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.1
_EMPTIED: Final = (
    "a TRUNCATE emptied the table on the source, and it names no items: delete its items in DynamoDB, set "
    "spec.onTruncate to Skip and resume, or exclude the table"
)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Options:
    """`changes`, `bytes`, `flush_seconds`: when what waits is written; `checkpoint_seconds`: for positions alone."""

    skip_truncates: bool = False
    changes: int = 2000
    bytes: int = 4 << 20
    flush_seconds: float = 0.2
    checkpoint_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What was done since the worker began. `last_change_at`: the newest commit applied, source clock; 0 for none."""

    changes: int = 0
    last_change_at: float = 0.0
    truncates_skipped: int = 0


class Applier:
    """Follows one log after another from where the ledger stands. For one thread; what is public is read by others.

    `heard_at`: when a change came last, in seconds since 1970 by the worker's clock; its start where none has.
    `heard`: the newest commit of a change that came, be it applied, refused or passed over; 0 where none has.

    `text`: what is kept, as text; `returned`: told of each heartbeat that came back once all before it is written.
    `hurry`, set by others: a position is waited for, so each one is kept at once.
    """

    def __init__(
        self,
        keeper: Keeper,
        ledger: Ledger,
        text: Callable[[Kept], str],
        returned: Callable[[bytes], None],
        options: Options,
    ) -> None:
        self.ledger, self.progress, self.hurry = ledger, Progress(), False
        self._keeper, self._text, self._returned, self._options = keeper, text, returned, options
        self._buffer, self._beats = Buffer(), list[bytes]()
        self.heard_at, self.heard = time.time(), 0
        self._tables: Mapping[str, Table] = {}
        self._since, self._kept_at, self._newest, self._skipped = 0.0, 0.0, 0.0, 0

    def follow(self, log: ReverseLog, tables: Mapping[str, Table], ending: Callable[[], bool]) -> None:
        """Apply what comes until `ending`; then write and keep what was read. Raises what log and keeper raise.

        The ledger was restarted before, and the log begins at its floor.
        """
        self._tables, self._keeper.alive = tables, log.keep_alive
        try:
            self._follow(log, ending)
        finally:
            self._keeper.alive = _nothing

    def _follow(self, log: ReverseLog, ending: Callable[[], bool]) -> None:
        self._buffer.clear()
        self._beats.clear()
        self._kept_at = time.monotonic()
        while not ending():
            for event in log.poll(_POLL_SECONDS):
                self._take(event)
                if self._full():
                    self._flush(log)
            if self._due():
                self._flush(log)
        self._flush(log)

    def _full(self) -> bool:
        return self._buffer.changes >= self._options.changes or self._buffer.bytes >= self._options.bytes

    def _due(self) -> bool:
        now = time.monotonic()
        if self._buffer:
            return self.hurry or now - self._since >= self._options.flush_seconds
        return self.hurry or now - self._kept_at >= self._options.checkpoint_seconds

    def _take(self, event: ReverseEvent) -> None:
        if isinstance(event, ItemsChanged | Refused | Emptied):
            self.heard_at, self.heard = time.time(), max(self.heard, event.commit)
        match event:
            case ItemsChanged() if self.ledger.takes(event.table, event.commit):
                self._add(event)
            case Refused() if self.ledger.takes(event.table, event.commit):
                self._stop(event.table, event.reason)
            case Emptied() if self.ledger.takes(event.table, event.commit):
                self._emptied(event)
            case Beat():
                self._beats.append(event.content)
            case Ended():
                self.ledger.ended(event.end)
                if not self._buffer:
                    self._tell_beats()
            case _:
                pass  # applied before, or of a stopped table, which keeps its position

    def _add(self, event: ItemsChanged) -> None:
        if event.writes and not self._buffer:
            self._since = time.monotonic()
        for key, item in event.writes:
            self._buffer.put(event.table, key, item)
        self._newest = max(self._newest, event.at)

    def _emptied(self, event: Emptied) -> None:
        if not self._options.skip_truncates:
            self._stop(event.table, _EMPTIED)
            return
        self._skipped += 1
        self._tell_progress(0)
        _LOG.warning(
            "a TRUNCATE of table %s is passed over (spec.onTruncate: Skip)", event.table, extra={"table": event.table}
        )

    def _stop(self, table: str, reason: str, at: int | None = None) -> None:
        _LOG.error("table %s is stopped: %s", table, reason, extra={"table": table})
        self.ledger.stop(table, reason, at)

    def _flush(self, log: ReverseLog) -> None:
        """Write what waits, keep the position, then acknowledge it."""
        while not self._committed():
            pass
        self._tell_beats()
        reach("reverse.before_acknowledge")
        log.acknowledge(self.ledger.kept.floor)

    def _committed(self) -> bool:
        """Whether all of it is in the target. A table whose items are refused is stopped; the rest is tried again.

        It stands at its kept position then: some of the items that were refused may be older than this transaction.
        """
        kept = self.ledger.next()
        self._kept_at = time.monotonic()
        if not self._buffer and kept == self.ledger.kept:
            return True
        try:
            self._keeper.commit(self._buffer.writes(self._tables), position=self._text(kept))
        except Incompatible as error:
            if error.where not in self._buffer:
                raise
            self._stop(error.where, str(error), self.ledger.position_of(error.where))
            self._buffer.drop(error.where)
            return False
        self.ledger.kept = kept
        self._tell_progress(self._buffer.changes)
        self._buffer.clear()
        return True

    def _tell_progress(self, changes: int) -> None:
        self.progress = Progress(self.progress.changes + changes, self._newest, self._skipped)

    def _tell_beats(self) -> None:
        for content in self._beats:
            self._returned(content)
        self._beats.clear()
