"""How each column type lies in a row image, and which expression makes its Python value: the code generator's input.

Values: integers and YEAR are int; FLOAT and DOUBLE float; DECIMAL, dates and times bytes of the text that SELECT prints
(TIMESTAMP in UTC); strings bytes in UTF-8; binary strings raw bytes, BINARY(n) filled up to n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_worker.endpoints.mysql.binlog import tablemap as types
from whimbrel_worker.endpoints.mysql.binlog import temporal
from whimbrel_worker.endpoints.mysql.binlog.charsets import BINARY, UTF8, transcoder
from whimbrel_worker.endpoints.mysql.binlog.decimals import decimal_bytes, decimal_expression
from whimbrel_worker.endpoints.mysql.binlog.model import BinlogColumn


@dataclass(frozen=True, slots=True)
class Field:
    """A column's layout. Templates: ``{0}``, ``{1}`` are what ``codes`` unpack to, ``{k0}``, ``{k1}`` the constants."""

    codes: tuple[str, ...]
    """struct codes, little-endian: of the value, or of a variable value's length."""
    value: str = "{0}"
    constants: tuple[Any, ...] = ()
    length_bytes: int = 0
    """0: the codes hold the value. Else they hold its length in this many bytes; ``{0}`` in ``value`` is the bytes."""


_INTEGERS: Final = {types.TINY: "b", types.SHORT: "h", types.INT24: "Hb", types.LONG: "i", types.LONGLONG: "q"}
_PREFIX_CODES: Final = {1: ("B",), 2: ("H",), 3: ("H", "B"), 4: ("I",)}
_INT24: Final = "{0} | {1} << 16"
_FIXED: Final = {
    types.FLOAT: Field(("f",)),
    types.DOUBLE: Field(("d",)),
    types.YEAR: Field(("B",), "{k0}[{0}]", (temporal.YEARS,)),
    types.DATE: Field(("3s",), "{k0}[{0}]", (temporal.DATES,)),
}


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why a column cannot be decoded."""

    column: str
    reason: str = field(default="")


def field_of(column: BinlogColumn) -> Field | Unsupported:
    """The layout of a column, or why this version cannot decode it."""
    code, metadata = column.type_code, column.metadata
    if code in _FIXED:
        return _FIXED[code]
    if code in _INTEGERS:
        *low, high = tuple(_INTEGERS[code])
        return Field((*low, high.upper() if column.unsigned else high), _INT24 if low else "{0}")
    if code == types.NEWDECIMAL:
        shape = metadata >> 8, metadata & 0xFF
        return Field((f"{decimal_bytes(*shape)}s",), *decimal_expression(*shape))
    if code in (types.DATETIME2, types.TIMESTAMP2, types.TIME2):
        return _time_field(code, metadata)
    if code in (types.STRING, types.VARCHAR, types.BLOB):
        return _string_field(column)
    return Unsupported(column.name, f"type {column.type_name} is not carried by this version")


_DATETIME: Final = Field(("3s", "H"), "(d := {k0}[{0}])[0] + d[1][{1}]", (temporal.HALF_DAYS,))
_TIMESTAMP: Final = Field(
    ("4s",), "({k0}[v // 86400] + {k1}[v % 86400] if (v := {k2}({0})) else {k3})",
    (temporal.EPOCH_DAYS, temporal.TIMES_OF_DAY, int.from_bytes, temporal.ZERO_DATETIME),
)  # fmt: skip
_TIME: Final = Field(
    ("3s",), "({k0}[v >> 12] + {k1}[v & 4095] if (v := {k2}({0}) - {k4}) >= 0 else {k3}({0}))",
    (temporal.HOURS, temporal.MINUTE_SECOND, int.from_bytes, temporal.time_text(0), temporal.TIME_ZERO),
)  # fmt: skip


def _time_field(code: int, digits: int) -> Field:
    size = temporal.fraction_bytes(digits)
    if code == types.TIME2:
        return Field((f"{3 + size}s",), "{k0}({0})", (temporal.time_text(digits),)) if digits else _TIME
    whole = _DATETIME if code == types.DATETIME2 else _TIMESTAMP
    return _with_fraction(whole, digits, size) if digits else whole


def _with_fraction(whole: Field, digits: int, size: int) -> Field:
    """The same with a fraction behind it: two bytes have few enough values to be looked up, three are printed."""
    at, k = len(whole.codes), len(whole.constants)
    if size == 3:
        look_up, constant = f"{{k{k}}}({{{at}}})", temporal.fraction_text(digits)
        return Field((*whole.codes, "3s"), f"{whole.value} + {look_up}", (*whole.constants, constant))
    look_up = f"{{k{k}}}[{{{at}}}]"
    return Field(
        (*whole.codes, f"{size}s"), f"{whole.value} + {look_up}", (*whole.constants, temporal.FRACTIONS[digits])
    )


def _string_field(column: BinlogColumn) -> Field | Unsupported:
    size = column.metadata if column.type_code == types.BLOB else 1 + (column.metadata > 255)
    codes = _PREFIX_CODES[size]
    if column.charset == BINARY and column.type_code == types.STRING:
        return Field(codes, "{0}.ljust({k0}, {k1})", (column.metadata, b"\0"), size)
    if column.charset == BINARY or column.charset in UTF8:
        return Field(codes, "{0}", (), size)
    convert = transcoder(column.charset)
    if convert is None:
        reason = f"{column.type_name} in character set {column.charset} is not carried by this version"
        return Unsupported(column.name, reason)
    return Field(codes, "{k0}({0})", (convert,), size)
