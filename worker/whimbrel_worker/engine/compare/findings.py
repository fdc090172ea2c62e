"""What a comparison has found: counts, a few examples and the file of differences. Nothing is read or compared here.

The file is JSON Lines, one difference a line: `table`, `kind` (missing, extra, changed, inconclusive), `key` by column,
`columns` with `source` and `target` where both sides have the row, `reason` where one is to be told. Differences in
tables of items have a file for each table beside it, whose lines item_findings makes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from whimbrel_api.migration import CheckResult, Differences
from whimbrel_worker.engine.compare.item_findings import item_difference, item_file
from whimbrel_worker.engine.compare.items import holds_items
from whimbrel_worker.engine.compare.merge import Key
from whimbrel_worker.values.canonical import differing, readable
from whimbrel_worker.values.columns import Cell, Column, Kind, Row, Table

Kinds = Literal["missing", "extra", "changed", "inconclusive"]
EXAMPLES = 20
_SHOWN = 200
_EXAMPLE_LENGTH = 300
_TEXTUAL = frozenset({Kind.TEXT, Kind.BYTES})


@dataclass(slots=True)
class Findings:
    """Collects differences. `path` empty: no file. With `redact`, values and textual keys appear as digests only.

    `limit`: how many are listed, in all tables of rows together and in each table of items.
    """

    path: str = ""
    limit: int = 1000
    redact: bool = False
    differences: Differences = field(default_factory=Differences)
    inconclusive: int = 0
    examples: list[str] = field(default_factory=list)
    by_table: dict[str, int] = field(default_factory=dict)
    _file: TextIO | None = None
    _written: int = 0
    _items: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        if self.path:
            descriptor = os.open(Path(self.path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def result(self) -> CheckResult:
        """The end of the comparison, if it ended now."""
        if self.differences.total:
            return CheckResult.DIFFERENT
        return CheckResult.INCONCLUSIVE if self.inconclusive else CheckResult.EQUAL

    @property
    def plenty(self) -> bool:
        """Whether more differences are known than are listed."""
        return self.differences.total > self.limit

    def begin(self, table: Table) -> None:
        """Make a table of items its file, empty: without differences it says so."""
        if self.path and holds_items(table):
            self._items[table.name] = 0
            path = item_file(self.path, table.name)
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def row(
        self, table: Table, kind: Kinds, key: Key, *, source: Row | None, target: Row | None, reason: str = ""
    ) -> None:
        """Count one row and list it."""
        self._count(table.name, kind)
        if holds_items(table):
            self._item(table, kind, key, source=source, target=target, reason=reason)
            return
        columns = self._columns(table, source, target)
        entry = {"table": table.name, "kind": kind, "key": self._key(table, key), "columns": columns}
        self._list(entry | ({"reason": reason} if reason else {}))
        self._example(f"{table.name} {_shown_key(entry['key'])}: {kind}", [*columns], reason)

    def _item(
        self, table: Table, kind: Kinds, key: Key, *, source: Row | None, target: Row | None, reason: str
    ) -> None:
        found = item_difference(table, key, source, target, redact=self.redact)
        listed = self._items.get(table.name, self.limit)
        if listed < self.limit:
            entry = {"table": table.name, "kind": kind} | found.entry | ({"reason": reason} if reason else {})
            with item_file(self.path, table.name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._items[table.name] = listed + 1
        self._example(f"{table.name}: {kind}, key {found.digest}", found.attributes, reason)

    def whole_table(self, name: str, reason: str) -> None:
        """Count a table that cannot be compared."""
        self._count(name, "inconclusive")
        self._list({"table": name, "kind": "inconclusive", "reason": reason})
        self._example(f"{name}: inconclusive", [], reason)

    def _count(self, table: str, kind: Kinds) -> None:
        if kind == "inconclusive":
            self.inconclusive += 1
            return
        self.differences = self.differences.model_copy(update={kind: getattr(self.differences, kind) + 1})
        self.by_table[table] = self.by_table.get(table, 0) + 1

    def _columns(self, table: Table, source: Row | None, target: Row | None) -> dict[str, Any]:
        if source is None or target is None:
            return {}
        return {
            table.columns[position].name: {
                "source": self._value(table.columns[position], source[position]),
                "target": self._value(table.columns[position], target[position]),
            }
            for position in differing(table.columns, source, target)
        }

    def _key(self, table: Table, key: Key) -> dict[str, str | None]:
        """Numbers and times stay readable: without them nobody finds the row."""
        return {
            column.name: self._value(column, cell) if column.kind in _TEXTUAL else readable(column.kind, cell)
            for column, cell in zip(table.key_columns, key, strict=True)
        }

    def _value(self, column: Column, cell: Cell) -> str | None:
        text = readable(column.kind, cell)
        if text is None:
            return None
        digest = hashlib.sha256(cell if isinstance(cell, bytes) else text.encode()).hexdigest()[:16]
        if self.redact:
            return f"sha256:{digest}"
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters, sha256:{digest})"

    def _list(self, entry: Mapping[str, object]) -> None:
        if self._file is not None and self._written < self.limit:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
            self._written += 1

    def _example(self, what: str, columns: list[str], reason: str) -> None:
        """Examples go into status and logs: they name columns and never show what is in them."""
        if len(self.examples) < EXAMPLES:
            parts = (what, " in " + ", ".join(columns) if columns else "", f" ({reason})" if reason else "")
            self.examples.append("".join(parts)[:_EXAMPLE_LENGTH])


def _shown_key(key: object) -> str:
    return json.dumps(key, ensure_ascii=False)
