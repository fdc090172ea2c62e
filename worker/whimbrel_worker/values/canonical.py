"""Typed canonical values: when a cell of the source and one of the target are the same value. No SQL is run here.

Most cells need none of it: `target_expression` makes the target send most values in the very bytes that the source
sends, and equal bytes are equal values. Only cells whose bytes differ are made canonical.

Forms: MySQL manual, "Fractional Seconds in Time Values" (fixed digits) and "Floating-Point Types"; PostgreSQL manual,
"Date/Time Output" (trailing zeros trimmed), "bytea Hex Format", "Floating-Point Types" (shortest exact digits).
"""

import binascii
import re
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

from whimbrel_worker.values.columns import Cell, Column, Kind, Row
from whimbrel_worker.values.items import canonical_attribute, canonical_item

Identity = tuple[object, ...]
"""A key as comparable, hashable values: the same on both sides for the same key, in the target's order."""

_WITH_ZONE = ("timestamptz", "with time zone")
_NAN = "NaN"
_ANYTHING = frozenset({Kind.TEXT, Kind.BYTES, Kind.ATTRIBUTE, Kind.ITEM})
"""Kinds whose every value may be a key of a source, too."""
_NUMBER_KEY = re.compile(rb"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)
_MOMENT_KEY = re.compile(rb"[0-9]{4}-[0-9: .-]+")
_PLAIN_KEY = {
    Kind.INTEGER: _NUMBER_KEY,
    Kind.DECIMAL: _NUMBER_KEY,
    Kind.FLOAT32: _NUMBER_KEY,
    Kind.FLOAT64: _NUMBER_KEY,
    Kind.DATE: _MOMENT_KEY,
    Kind.DATETIME: _MOMENT_KEY,
    Kind.TIMESTAMP: _MOMENT_KEY,
    Kind.TIME: re.compile(rb"[0-9:.]+"),
}


def target_expression(column: Column, quoted: str) -> str:
    """The SELECT expression under which the target's text is most often the source's, byte by byte.

    `quoted` is the column's quoted name. Needs DateStyle ISO, bytea_output hex and extra_float_digits ≥ 1, which are
    the servers' defaults; it does not depend on the session's time zone. Rows read this way go through `from_target`.
    """
    if column.kind is Kind.TIMESTAMP and any(mark in column.target_type.lower() for mark in _WITH_ZONE):
        return f"({quoted} AT TIME ZONE 'UTC')"
    if column.kind is Kind.FLOAT32:
        return f"{quoted}::double precision"
    if column.kind is Kind.INTEGER and column.target_type.lower().startswith("bool"):
        return f"{quoted}::integer"
    return quoted


def from_target(columns: Sequence[Column], rows: Sequence[Row]) -> list[tuple[Cell, ...]]:
    """Rows of the target's text as cells like a snapshot's: bytea's hex becomes raw bytes, all else stays."""
    binary = [position for position, column in enumerate(columns) if column.kind is Kind.BYTES]
    if not binary:
        return list(map(tuple, rows))
    return [_with_raw_bytes(row, binary) for row in rows]


def _with_raw_bytes(row: Row, binary: Sequence[int]) -> tuple[Cell, ...]:
    cells = list(row)
    for position in binary:
        cell = cells[position]
        if isinstance(cell, bytes):
            cells[position] = binascii.unhexlify(cell[2:])
    return tuple(cells)


def same(column: Column, source: Cell, target: Cell) -> bool:
    """Whether two cells hold the same value of this column."""
    if source is None or target is None:
        return source is target
    return canonical(column.kind, source) == canonical(column.kind, target)


def differing(columns: Sequence[Column], source: Row, target: Row) -> tuple[int, ...]:
    """The positions of the columns in which two rows, both read as text, differ."""
    return tuple(
        position
        for position, (a, b) in enumerate(zip(source, target, strict=True))
        if a != b and not same(columns[position], a, b)
    )


def canonical(kind: Kind, cell: bytes | float) -> object:
    """A value that is not NULL in a form in which equal means the same value.

    Integers and decimals by value (1.50 is 1.5, −0 is 0); floats by their bits, at the column's width (−0 is not 0;
    every NaN is one); dates and times to the last microsecond digit that is not 0; text and bytes exactly; DynamoDB's
    attributes and items as values.items says.
    """
    return _CANONICAL[kind](cell)


def identity(columns: Sequence[Column], key: Row) -> Identity:
    """A key's identity on both sides. −0 and 0 are one key, as they are to both servers' indexes."""
    return tuple(_ordered(column.kind, cell) for column, cell in zip(columns, key, strict=True))


def _ordered(kind: Kind, cell: Cell) -> object:
    if cell is None:
        return ()
    if kind in {Kind.INTEGER, Kind.DECIMAL}:
        return _rank(_number(cell))
    if kind in {Kind.FLOAT32, Kind.FLOAT64}:
        return _rank(_rounded(kind, cell))
    return canonical(kind, cell)


def _rank(value: object) -> tuple[object, ...]:
    """Numbers first, then NaN, as the target sorts them; then what is no number."""
    if isinstance(value, bytes):
        return (2, value)
    return (1,) if value == _NAN else (0, value)


def source_could_hold(columns: Sequence[Column], key: Row) -> bool:
    """Whether a key found in the target is one that a source may have: no NaN, infinity, or year BC or beyond 9999."""
    return all(
        column.kind in _ANYTHING or (cell is not None and _PLAIN_KEY[column.kind].fullmatch(_raw(cell)) is not None)
        for column, cell in zip(columns, key, strict=True)
    )


def readable(kind: Kind, cell: Cell) -> str | None:
    """A cell for people: text as it is, binary as hex, unreadable bytes escaped. None is NULL."""
    if cell is None:
        return None
    raw = _raw(cell)
    return "\\x" + raw.hex() if kind is Kind.BYTES else raw.decode(errors="backslashreplace")


def _raw(cell: Cell) -> bytes:
    if cell is None:
        raise TypeError("a key has no NULL")
    return cell if isinstance(cell, bytes) else repr(cell).encode()


def _number(cell: bytes | float) -> object:
    try:
        value = Decimal(_raw(cell).decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        return cell
    return _NAN if value.is_nan() else value


def _rounded(kind: Kind, cell: bytes | float) -> object:
    try:
        value = float(cell)
    except ValueError:
        return cell
    if value != value:  # noqa: PLR0124 - only NaN is not itself
        return _NAN
    return _single(value) if kind is Kind.FLOAT32 else value


def _single(value: float) -> float:
    try:
        rounded: float = struct.unpack(">f", struct.pack(">f", value))[0]
    except OverflowError:
        return value
    return rounded


def _float_bits(kind: Kind, cell: bytes | float) -> object:
    value = _rounded(kind, cell)
    return struct.pack(">d", value) if isinstance(value, float) else value


def _moment(cell: bytes | float) -> bytes:
    text = _raw(cell)
    if text.endswith(b"+00"):
        text = text[:-3]
    return text.rstrip(b"0").rstrip(b".") if b"." in text else text


_CANONICAL: dict[Kind, Callable[[bytes | float], object]] = {
    Kind.INTEGER: _number,
    Kind.DECIMAL: _number,
    Kind.FLOAT32: lambda cell: _float_bits(Kind.FLOAT32, cell),
    Kind.FLOAT64: lambda cell: _float_bits(Kind.FLOAT64, cell),
    Kind.TEXT: _raw,
    Kind.BYTES: _raw,
    Kind.DATE: _raw,
    Kind.DATETIME: _moment,
    Kind.TIMESTAMP: _moment,
    Kind.TIME: _moment,
    Kind.ATTRIBUTE: lambda cell: canonical_attribute(_raw(cell)),
    Kind.ITEM: lambda cell: canonical_item(_raw(cell)),
}
