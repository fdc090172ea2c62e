"""Many rows in one buffer: cells stay where the source's bytes are, and whole columns become text forms at once.

A Python object a cell costs more than everything else a worker does (docs/decisions/0002-reading-mysql.md). So a
block keeps
the offsets of its cells as arrays and builds COPY blocks and array literals by marking separators in a copy of the
buffer
and gathering columns. The marks are bytes that UTF-8 never holds (0xF8 to 0xFF, RFC 3629); a block whose text does hold
one is carried by the cell-wise functions of literals instead, so that the target says what it thinks of it.
"""

from binascii import hexlify, unhexlify
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from whimbrel_worker.values.columns import Column, Kind

Offsets = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Cells = tuple[bytes | None, ...]

_CELL, _LINE, _NULL, _NULL_LINE, _BINARY, _GONE = range(0xF8, 0xFE)
_FIRST_MARK = _CELL
_COMMA = ord(",")
_TO_COPY = bytes.maketrans(bytes([_CELL, _LINE]), b"\t\n")
_ESCAPES = ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r"))
_ROWS_AT_ONCE = 4096
"""Rows whose bytes stay in the processor's cache from one step to the next."""
_LONG_CELL = 48
"""Mean bytes a cell from which slicing beats gathering byte by byte."""


def _mark(code: int) -> bytes:
    return bytes([code])


class RowBlock(Sequence[Cells]):
    """Rows whose cells lie in `data` in row order, each cell (NULL too) after at least one byte that belongs to none.

    `starts` and `ends` have one line a column and one entry a row; a NULL is empty and true in `nulls`, where that
    column has any. Cells of the columns in `hexed` lie there as PostgreSQL writes bytes in hex, `\\x0aff`. Indexing and
    iterating make cells, the bytes themselves where they were hexed; the text forms make none.
    """

    __slots__ = ("__dict__", "_ends", "_hexed", "_nulls", "_starts", "data")

    def __init__(
        self,
        data: bytes,
        starts: Sequence[Offsets],
        ends: Sequence[Offsets],
        nulls: Sequence[NDArray[np.bool_] | None],
        hexed: frozenset[int] = frozenset(),
    ) -> None:
        self.data = data
        self._starts, self._ends, self._nulls, self._hexed = starts, ends, nulls, hexed

    def __len__(self) -> int:
        return len(self._starts[0]) if self._starts else 0

    @property
    def size(self) -> int:
        """The buffer's bytes."""
        return len(self.data)

    @overload
    def __getitem__(self, index: int) -> Cells: ...
    @overload
    def __getitem__(self, index: slice) -> "RowBlock": ...
    def __getitem__(self, index: int | slice) -> "Cells | RowBlock":
        if isinstance(index, slice):
            return self._part(index)
        return tuple(self._cell(position, index) for position in range(len(self._starts)))

    def _cell(self, position: int, row: int) -> bytes | None:
        nulls = self._nulls[position]
        if nulls is not None and nulls[row]:
            return None
        cell = self.data[self._starts[position][row] : self._ends[position][row]]
        return unhexlify(cell[2:]) if position in self._hexed else cell

    def _part(self, index: slice) -> "RowBlock":
        if index.step not in (None, 1):
            raise ValueError("a block's rows lie one after the other: no step can be taken")
        starts, ends = [column[index] for column in self._starts], [column[index] for column in self._ends]
        nulls = [None if column is None else column[index] for column in self._nulls]
        if not len(starts[0]):
            return RowBlock(b"", starts, ends, nulls, self._hexed)
        low, high = int(starts[0][0]) - 1, int(ends[-1][-1])
        return RowBlock(self.data[low:high], [s - low for s in starts], [e - low for e in ends], nulls, self._hexed)

    def __iter__(self) -> Iterator[Cells]:
        return zip(*self.columns, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by content

    @cached_property
    def columns(self) -> list[list[bytes | None]]:
        """All cells, column by column."""
        return [self._cells(position) for position in range(len(self._starts))]

    def _cells(self, position: int) -> list[bytes | None]:
        starts, ends = self._starts[position].tolist(), self._ends[position].tolist()
        cells: list[bytes | None] = [*_slices(self.data, starts, ends)]
        if position in self._hexed:
            cells = [unhexlify(cell[2:]) for cell in cells if cell is not None]
        nulls = self._nulls[position]
        for row in np.flatnonzero(nulls).tolist() if nulls is not None else ():
            cells[row] = None
        return cells

    # --- arrays, one a column ---

    def array_literals(self, columns: Sequence[Column]) -> list[bytes] | None:
        """Each column as an array literal of PostgreSQL; None where text holds bytes that no UTF-8 has."""
        marked = self._writable()
        literals = []
        for position, column in enumerate(columns):
            literal = self._literal(marked, position, column.kind)
            if literal is None:
                return None
            literals.append(literal)
        return literals

    def _writable(self) -> Bytes:
        return np.frombuffer(bytearray(self.data), dtype=np.uint8)

    def _literal(self, marked: Bytes, position: int, kind: Kind) -> bytes | None:
        if kind is Kind.BYTES and position not in self._hexed:
            return self._bytes_literal(position)
        quoted = kind in (Kind.TEXT, Kind.BYTES)
        gathered = self._gather(marked, position, _CELL if quoted else _COMMA)
        nulls = self._nulls[position]
        if quoted:
            return _text_literal(gathered, len(self), nulls is not None)
        if nulls is not None:
            gathered = gathered.replace(_mark(_NULL), b",NULL")
        return b"{" + gathered[1:] + b"}"

    def _gather(self, marked: Bytes, position: int, mark: int) -> bytes:
        """A column's cells one after the other, each behind its mark."""
        starts, ends, nulls = self._starts[position] - 1, self._ends[position], self._nulls[position]
        marked[starts] = mark
        if nulls is not None:
            marked[starts[nulls]] = _NULL
        lengths = ends - starts
        total = int(lengths.sum())
        if total > _LONG_CELL * len(self):
            return b"".join(_slices(marked.tobytes(), starts.tolist(), ends.tolist()))
        before = np.cumsum(lengths) - lengths
        return marked[np.repeat(starts - before, lengths) + np.arange(total)].tobytes()

    def _bytes_literal(self, position: int) -> bytes:
        cells = (b"NULL" if cell is None else b'"\\\\x%b"' % hexlify(cell) for cell in self._cells(position))
        return b"{" + b",".join(cells) + b"}"

    # --- COPY, all columns at once ---

    def copy_block(self, columns: Sequence[Column]) -> bytes | None:
        """The rows in COPY's text format; None where text holds bytes that no UTF-8 has."""
        parts = [self[start : start + _ROWS_AT_ONCE] for start in range(0, len(self), _ROWS_AT_ONCE)]
        blocks = [part._copy_part(columns) for part in parts]
        return None if None in blocks else b"".join(blocks)  # type: ignore[arg-type]  # none is None, as just seen

    def _copy_part(self, columns: Sequence[Column]) -> bytes | None:
        marked = self._marked()
        binary = [position for position, column in enumerate(columns) if self._is_raw(position, column)]
        text = self._without(marked, binary) if binary else marked.tobytes()
        if not self._is_clean(text, len(binary) * len(self)):
            return None
        lines = _copy_lines(text)
        return self._with_binary(lines, binary) if binary else lines

    def _is_raw(self, position: int, column: Column) -> bool:
        return column.kind is Kind.BYTES and position not in self._hexed

    def _marked(self) -> Bytes:
        """The buffer with every byte that belongs to no cell turned into a mark."""
        marked = self._writable()
        previous: Offsets = np.concatenate((np.zeros(1, dtype=np.int64), self._ends[-1][:-1]))
        for position, (starts, ends, nulls) in enumerate(zip(self._starts, self._ends, self._nulls, strict=True)):
            _mark_gaps(marked, previous, starts)
            marked[starts - 1] = _CELL if position else _LINE
            if nulls is not None:
                marked[starts[nulls] - 1] = _NULL if position else _NULL_LINE
            previous = ends
        return marked

    def _is_clean(self, text: bytes, extra: int) -> bool:
        """Whether the marks are the only bytes in their range; `extra` is how many were added to the buffer's own."""
        cells = sum(int((ends - starts).sum()) for starts, ends in zip(self._starts, self._ends, strict=True))
        marks = np.count_nonzero(np.frombuffer(text, dtype=np.uint8) >= _FIRST_MARK)
        return bool(marks == len(self.data) - cells + extra)

    def _without(self, marked: Bytes, binary: Sequence[int]) -> bytes:
        """The buffer with a mark in place of each cell of these columns."""
        starts, ends = self._row_major(self._starts, binary), self._row_major(self._ends, binary)
        return _mark(_BINARY).join(_slices(marked.tobytes(), [0, *ends], [*starts, len(marked)]))

    def _row_major(self, offsets: Sequence[Offsets], positions: Sequence[int]) -> list[int]:
        found: list[int] = np.stack([offsets[position] for position in positions], axis=1).ravel().tolist()
        return found

    def _with_binary(self, lines: bytes, binary: Sequence[int]) -> bytes:
        cells = chain.from_iterable(zip(*(self._cells(position) for position in binary), strict=True))
        texts = (b"" if cell is None else b"\\\\x" + hexlify(cell) for cell in cells)
        first, *pieces = lines.split(_mark(_BINARY))
        return first + b"".join(chain.from_iterable(zip(texts, pieces, strict=True)))


def _slices(data: bytes, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def _mark_gaps(marked: Bytes, previous: Offsets, starts: Offsets) -> None:
    gaps = starts - previous
    for back in range(2, int(gaps.max()) + 1):
        marked[starts[gaps >= back] - back] = _GONE


def _copy_lines(text: bytes) -> bytes:
    """Marked cells to lines. The first mark starts a line, so it goes to the end."""
    for plain, escaped in _ESCAPES:
        if plain in text:
            text = text.replace(plain, escaped)
    lines = text.translate(_TO_COPY, _mark(_GONE))
    lines = lines.replace(_mark(_NULL), b"\t\\N").replace(_mark(_NULL_LINE), b"\n\\N")
    return lines[1:] + b"\n"


def _text_literal(gathered: bytes, rows: int, with_nulls: bool) -> bytes | None:
    """Marked cells of a text column to an array literal."""
    marks = np.count_nonzero(np.frombuffer(gathered, dtype=np.uint8) >= _FIRST_MARK)
    if marks != rows:
        return None
    if b"\\" in gathered:
        gathered = gathered.replace(b"\\", b"\\\\")
    if b'"' in gathered:
        gathered = gathered.replace(b'"', b'\\"')
    if with_nulls:
        gathered = gathered.replace(_mark(_NULL), _mark(_CELL) + _mark(_NULL))
    literal = b'{"' + gathered[1:].replace(_mark(_CELL), b'","') + b'"}'
    return literal.replace(b'"' + _mark(_NULL) + b'"', b"NULL") if with_nulls else literal
