"""Watches all shards of a source for new records without applying any, until nothing has come for long enough.

It reads on from where the stream stands, so that what it sees last is where the stream has to come to. Neither the
control table nor the target's items are changed.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import Page, ShardedSource, ShardRef, ShardRow, ShardStore
from whimbrel_worker.engine.shards.lag import EmptyRun, advanced
from whimbrel_worker.engine.shards.lineage import is_open, newcomers, number
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.columns import Table

ROUND_SECONDS: Final = 0.3
"""A shard takes five readings a second, and the stream needs its part of them."""
_PAGES: Final = 3
"""So many empty pages of a shard, at least."""
_READERS: Final = 16
_LISTINGS_A_SECOND: Final = 4.0
_AGAIN: Final = Backoff(base=0.2, cap=5.0, attempts=20)


@dataclass(slots=True)
class _Watched:
    """One shard: its row as it would be if all that was seen were in the target."""

    table: Table
    row: ShardRow
    run: EmptyRun = field(default_factory=EmptyRun)
    pages: Iterator[Page] | None = None
    records: int = 0

    def look(self, source: ShardedSource) -> bool:
        """Read one page. Whether it held a record."""
        try:
            page = self._next(source)
        except Transient:
            self.pages, self.run = None, EmptyRun()
            raise
        before = self.row.position
        self.row, self.run = advanced(self.row, page, self.run, len(page.changes))
        self.records += len(page.changes)
        return self.row.position != before

    def _next(self, source: ShardedSource) -> Page:
        if self.pages is None:
            self.pages = source.read(self.table, self.row)
        page = next(self.pages, None)
        if page is None:
            raise Transient(f"reading shard {self.row.ref.shard} broke off before its end", where=self.row.ref.table)
        return page

    @property
    def is_still(self) -> bool:
        """Whether enough empty pages came in a row, or no page can come any more."""
        return not is_open(self.row) or self.run.pages >= _PAGES


@dataclass(slots=True)
class Stillness:
    """`wait` may raise to end the task; `clock` is monotonic."""

    source: ShardedSource
    store: ShardStore
    tables: Mapping[str, Table]
    wait: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic
    _watched: dict[ShardRef, _Watched] = field(default_factory=dict, init=False)
    _since: float = field(default=0.0, init=False)
    _listed: dict[str, float] = field(default_factory=dict, init=False)
    _list_due: float = field(default=0.0, init=False)

    def rows(self) -> list[ShardRow]:
        """All shards as far as they were seen."""
        return [watched.row for watched in self._watched.values()]

    def records(self) -> dict[str, int]:
        """How many records were seen here, by table; tables without any are left out."""
        found: dict[str, int] = {}
        for ref, watched in self._watched.items():
            found[ref.table] = found.get(ref.table, 0) + watched.records
        return {table: count for table, count in sorted(found.items()) if count}

    def until_quiet(self, seconds: float, heard: Callable[[float], None]) -> list[ShardRow]:
        """Wait until no shard has given a record for so long, and none was added. `heard` is told of each round."""
        self._since = self.clock()
        self._meet(self._kept())
        with ThreadPoolExecutor(_READERS) as readers:
            try:
                while not self._is_quiet(seconds):
                    began = self.clock()
                    self._round(readers)
                    heard(self.clock() - self._since)
                    self.wait(max(0.0, ROUND_SECONDS - (self.clock() - began)))
            finally:
                self._close()
        return self.rows()

    def _kept(self) -> list[ShardRow]:
        rows = retrying(self.store.all, backoff=_AGAIN)
        return [row for row in rows if row.ref.table in self.tables]

    def _meet(self, rows: Iterable[ShardRow]) -> bool:
        """Take in rows. Whether one was new or further on than what was seen of it here."""
        ahead = False
        for row in rows:
            watched = self._watched.get(row.ref)
            if watched is None:
                self._watched[row.ref] = _Watched(self.tables[row.ref.table], row)
                ahead = True
            elif number(row.position) > number(watched.row.position):
                self._watched[row.ref] = replace(watched, row=row, run=EmptyRun(), pages=None)
                ahead = True
        return ahead

    def _round(self, readers: ThreadPoolExecutor) -> None:
        """One page of every open shard, and the listings that are due."""
        watched = [each for each in self._watched.values() if is_open(each.row)]
        found = list(readers.map(self._look, watched))
        if self._list_some() or any(found):
            self._since = self.clock()

    def _look(self, watched: _Watched) -> bool:
        return retrying(lambda: watched.look(self.source), backoff=_AGAIN)

    def _list_some(self) -> bool:
        """List a table's shards, the longest waiting first, as often as is allowed. Whether a new one came."""
        new = False
        while self.clock() >= self._list_due and (table := self._longest_unlisted()) is not None:
            self._list_due = max(self._list_due, self.clock() - 1.0) + 1.0 / _LISTINGS_A_SECOND
            listed = retrying(lambda table=table: self.source.shards(table), backoff=_AGAIN)  # type: ignore[misc]
            self._listed[table.name] = self.clock()
            rows = [each.row for each in self._watched.values() if each.row.ref.table == table.name]
            for generation in newcomers(table.name, rows, listed):
                new = self._meet(generation) or new
        return new

    def _longest_unlisted(self) -> Table | None:
        """A table that was not listed since the quiet began."""
        late = [table for table in self.tables.values() if self._listed.get(table.name, -1.0) <= self._since]
        return min(late, key=lambda table: self._listed.get(table.name, -1.0), default=None)

    def _is_quiet(self, seconds: float) -> bool:
        lasted = self.clock() - self._since >= seconds
        still = all(watched.is_still for watched in self._watched.values())
        if not lasted or not still or self._longest_unlisted() is not None:
            return False
        if self._meet(self._kept()):
            self._since = self.clock()
            return False
        return True

    def _close(self) -> None:
        for watched in self._watched.values():
            if watched.pages is not None:
                with contextlib.suppress(AttributeError):
                    watched.pages.close()  # type: ignore[attr-defined]  # generators have it: it frees the connection
