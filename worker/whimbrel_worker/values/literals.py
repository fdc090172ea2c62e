"""Cells to PostgreSQL's text forms: array literals, COPY text blocks and single parameters. No SQL and no I/O.

Forms: PostgreSQL manual, "Array Input and Output Syntax" and "COPY, Text Format". bytea is written as hex. Values of
numbers, dates and times hold no character that needs quoting, so whole columns of them are joined as they stand.
"""

import re
from collections.abc import Callable, Sequence

from whimbrel_worker.values.blocks import RowBlock
from whimbrel_worker.values.columns import Cell, Column, Kind, Row

_PLAIN = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP, Kind.TIME})
_COPY_ESCAPES = {b"\\": b"\\\\", b"\t": b"\\t", b"\n": b"\\n", b"\r": b"\\r"}
_COPY_SPECIAL = re.compile(rb"[\\\t\n\r]")


def text_of(kind: Kind, cell: bytes | float) -> bytes:
    """One value that is not NULL in PostgreSQL's text form, unquoted."""
    if isinstance(cell, int):
        return b"%d" % cell
    if isinstance(cell, float):
        return repr(cell).encode()
    return b"\\x" + cell.hex().encode() if kind is Kind.BYTES else cell


def parameter(kind: Kind, cell: Cell) -> bytes | None:
    """One cell as a text parameter of a statement."""
    return None if cell is None else text_of(kind, cell)


def array_literal(kind: Kind, cells: Sequence[Cell]) -> bytes:
    """A column of cells as one array literal such as `{1,2,NULL}` or `{"a","b"}`."""
    if kind is Kind.TEXT:
        return _text_array(cells)
    if kind is Kind.BYTES:
        return b"{" + b",".join([_bytes_element(cell) for cell in cells]) + b"}"
    return b"{" + b",".join(_plain_elements(cells)) + b"}"


def array_literals(columns: Sequence[Column], rows: Sequence[Row]) -> list[bytes]:
    """Rows as one array literal a column."""
    literals = rows.array_literals(columns) if isinstance(rows, RowBlock) else None
    if literals is not None:
        return literals
    cells = zip(*rows, strict=True) if rows else ((),) * len(columns)
    return [array_literal(column.kind, part) for column, part in zip(columns, cells, strict=True)]


def _plain_elements(cells: Sequence[Cell]) -> Sequence[bytes]:
    kinds = set(map(type, cells))
    if kinds == {bytes}:
        return cells  # type: ignore[return-value]  # every cell is bytes, as just seen
    if kinds == {int}:
        return str(list(cells))[1:-1].encode().split(b", ")
    return [b"NULL" if cell is None else text_of(Kind.INTEGER, cell) for cell in cells]


def _text_array(cells: Sequence[Cell]) -> bytes:
    if None in cells:
        return b"{" + b",".join([b"NULL" if cell is None else _quoted(cell) for cell in cells]) + b"}"
    joined = b'","'.join(cells)  # type: ignore[arg-type]  # text cells are bytes from either origin
    if b"\\" not in joined and joined.count(b'"') == 2 * (len(cells) - 1):
        return b'{"' + joined + b'"}' if cells else b"{}"
    return b"{" + b",".join(map(_quoted, cells)) + b"}"


def _quoted(cell: Cell) -> bytes:
    if not isinstance(cell, bytes):
        raise TypeError(f"a text cell is bytes, not {type(cell).__name__}")
    if b"\\" in cell or b'"' in cell:
        cell = cell.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % cell


def _bytes_element(cell: Cell) -> bytes:
    if cell is None:
        return b"NULL"
    if not isinstance(cell, bytes):
        raise TypeError(f"a binary cell is bytes, not {type(cell).__name__}")
    return b'"\\\\x%b"' % cell.hex().encode()


def copy_block(columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
    """Rows as a block of COPY's text format, one line a row."""
    if not rows:
        return b""
    block = rows.copy_block(columns) if isinstance(rows, RowBlock) else None
    if block is not None:
        return block
    prepared = [
        _copy_column(column.kind, cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    lines = map(b"\t".join, zip(*prepared, strict=True))
    return b"\n".join(lines) + b"\n"


def _copy_column(kind: Kind, cells: Sequence[Cell]) -> Sequence[bytes]:
    element = _COPY_ELEMENTS.get(kind, _copy_plain)
    if kind in _PLAIN and set(map(type, cells)) == {bytes}:
        return cells  # type: ignore[return-value]  # every cell is bytes, as just seen
    if kind is Kind.TEXT and None not in cells and not _COPY_SPECIAL.search(b"".join(cells)):  # type: ignore[arg-type]
        return cells  # type: ignore[return-value]  # text cells are bytes from either origin
    return [b"\\N" if cell is None else element(cell) for cell in cells]


def _copy_plain(cell: bytes | float) -> bytes:
    return text_of(Kind.INTEGER, cell)


def _copy_text(cell: bytes | float) -> bytes:
    raw = text_of(Kind.TEXT, cell)
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], raw)


def _copy_bytes(cell: bytes | float) -> bytes:
    return b"\\" + text_of(Kind.BYTES, cell)


_COPY_ELEMENTS: dict[Kind, Callable[[bytes | float], bytes]] = {Kind.TEXT: _copy_text, Kind.BYTES: _copy_bytes}
