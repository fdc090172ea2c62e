"""One table's rows: checks an image's columns and picks the generated decoder for its NULLs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from whimbrel_worker.endpoints.mysql.binlog.codegen import (
    RowDecoder,
    RunDecoder,
    general_decoder,
    row_decoder,
    run_decoder,
)
from whimbrel_worker.endpoints.mysql.binlog.events import packed_int
from whimbrel_worker.endpoints.mysql.binlog.fields import Field, Unsupported, field_of
from whimbrel_worker.endpoints.mysql.binlog.model import Row, TableInfo
from whimbrel_worker.errors import Incompatible

COMPILE_AFTER: Final = 16
"""A pattern of NULLs gets a decoder of its own when it has been seen this often; compiling costs about 0.5 ms."""
MAX_COMPILED: Final = 256
"""Patterns with a decoder of their own, for each table; the others share the general one."""

_D = TypeVar("_D")


class _Patterns(dict[bytes, _D], Generic[_D]):
    """Decoders by NULL bitmap; one that is missing is the general one until it has been asked for often enough."""

    def __init__(self, make: Callable[[bytes], _D], general: Callable[[], _D]) -> None:
        super().__init__()
        self._make = make
        self._general = general
        self._cached_general: _D | None = None
        self._seen: dict[bytes, int] = {}

    def __missing__(self, nulls: bytes) -> _D:
        seen = self._seen[nulls] = self._seen.get(nulls, 0) + 1
        if seen >= COMPILE_AFTER and len(self) < MAX_COMPILED:
            decoder = self[nulls] = self._make(nulls)
            return decoder
        if len(self._seen) > MAX_COMPILED * COMPILE_AFTER:
            self._seen.clear()
        if self._cached_general is None:
            self._cached_general = self._general()
        return self._cached_general


class TableDecoder:
    """Decodes the rows events of one table definition.

    ``reason`` says why the table cannot be decoded, and is empty when it can.
    """

    def __init__(self, table: TableInfo) -> None:
        self.table = table
        layouts = [field_of(column) for column in table.columns]
        unsupported = [layout for layout in layouts if isinstance(layout, Unsupported)]
        self.reason = "; ".join(f"column {bad.column}: {bad.reason}" for bad in unsupported)
        self._fields: Sequence[Field] = [layout for layout in layouts if isinstance(layout, Field)]
        self._null_bytes = (len(table.columns) + 7) // 8
        self._complete: set[bytes] = set()
        nullable = [column.nullable for column in table.columns]

        def general() -> RowDecoder:
            return general_decoder(self._fields, nullable)

        def general_run() -> RunDecoder:
            return _one_row(general())

        self._row: _Patterns[RowDecoder] = _Patterns(lambda nulls: row_decoder(self._fields, nulls), general)
        self._run: _Patterns[RunDecoder] = _Patterns(lambda nulls: run_decoder(self._fields, nulls), general_run)

    def rows(self, data: bytes, position: int, end: int) -> list[Row]:
        """The rows of a WRITE_ROWS or DELETE_ROWS body, which starts with the number of columns."""
        position = self._skip_bitmaps(data, position, 1)
        size, runs = self._null_bytes, self._run
        rows: list[Row] = []
        append = rows.append
        while position < end:
            position = runs[data[position : position + size]](data, position, end, append)
        self._check_end(position, end)
        return rows

    def updates(self, data: bytes, position: int, end: int) -> list[tuple[Row, Row]]:
        """The pairs (before, after) of an UPDATE_ROWS body."""
        position = self._skip_bitmaps(data, position, 2)
        size, decoders = self._null_bytes, self._row
        pairs: list[tuple[Row, Row]] = []
        while position < end:
            before, position = decoders[data[position : position + size]](data, position)
            after, position = decoders[data[position : position + size]](data, position)
            pairs.append((before, after))
        self._check_end(position, end)
        return pairs

    def _skip_bitmaps(self, data: bytes, position: int, images: int) -> int:
        """Make sure that every image holds every column; the position of the first row."""
        width = len(self.table.columns)
        start = position + 1 if width < 251 else packed_int(data, position)[1]
        end = start + images * self._null_bytes
        head = data[position:end]
        if head not in self._complete:
            self._check_complete(head, start - position, width)
            self._complete.add(head)
        return end

    def _check_complete(self, head: bytes, start: int, width: int) -> None:
        if packed_int(head, 0)[0] != width:
            raise self._malformed("its number of columns is not the one of its table map")
        full = (1 << width) - 1
        for at in range(start, len(head), self._null_bytes):
            if int.from_bytes(head[at : at + self._null_bytes], "little") & full != full:
                raise Incompatible(
                    "a change was logged without all of its columns",
                    where=f"table {self.table.name}",
                    why="binlog_row_image was not FULL in the session that made it.",
                    todo="SET GLOBAL binlog_row_image=FULL, end the sessions that have set it otherwise, and start "
                    "this migration anew: the columns that were left out are in no log.",
                )

    def _check_end(self, position: int, end: int) -> None:
        if position != end:
            raise self._malformed(f"its rows end {position - end:+d} bytes off the event's end")

    def _malformed(self, why: str) -> Incompatible:
        return Incompatible(
            "a change in the log could not be decoded", where=f"table {self.table.name}", why=f"The event: {why}.",
            todo="Report this with the table's definition; nothing of the event was applied.",
        )  # fmt: skip


def _one_row(decode: RowDecoder) -> RunDecoder:
    def run(data: bytes, position: int, _end: int, append: Callable[[Row], Any]) -> int:
        row, position = decode(data, position)
        append(row)
        return position

    return run
