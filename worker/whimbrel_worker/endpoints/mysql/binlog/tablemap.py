"""Reads a TABLE_MAP event: the table, its columns and its primary key. Which types are decoded is decided elsewhere.

Layout: the server's public documentation of Table_map_event and its optional metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from whimbrel_worker.endpoints.mysql.binlog.charsets import BINARY
from whimbrel_worker.endpoints.mysql.binlog.events import packed_int
from whimbrel_worker.endpoints.mysql.binlog.model import BinlogColumn, TableInfo
from whimbrel_worker.errors import Incompatible

TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24 = 1, 2, 3, 4, 5, 8, 9
DATE, YEAR, VARCHAR, BIT = 10, 13, 15, 16
TIMESTAMP2, DATETIME2, TIME2 = 17, 18, 19
NEWDECIMAL, ENUM, SET, BLOB, STRING = 246, 247, 248, 252, 254

_TYPE_NAMES: Final = {
    0: "DECIMAL of MySQL 4", TINY: "TINYINT", SHORT: "SMALLINT", LONG: "INT", FLOAT: "FLOAT", DOUBLE: "DOUBLE",
    7: "TIMESTAMP of MySQL 5.5", LONGLONG: "BIGINT", INT24: "MEDIUMINT", DATE: "DATE", 11: "TIME of MySQL 5.5",
    12: "DATETIME of MySQL 5.5", YEAR: "YEAR", VARCHAR: "VARCHAR", BIT: "BIT", TIMESTAMP2: "TIMESTAMP",
    DATETIME2: "DATETIME", TIME2: "TIME", 20: "ARRAY", 242: "VECTOR", 243: "INVALID", 244: "BOOL", 245: "JSON",
    NEWDECIMAL: "DECIMAL", ENUM: "ENUM", SET: "SET", 249: "TINYBLOB", 250: "MEDIUMBLOB", 251: "LONGBLOB",
    BLOB: "BLOB", 253: "VAR_STRING", STRING: "CHAR", 255: "GEOMETRY",
}  # fmt: skip
_BINARY_NAMES: Final = {"VARCHAR": "VARBINARY", "CHAR": "BINARY"}
_TEXT_NAMES: Final = {"BLOB": "TEXT"}
_NUMERIC: Final = frozenset({TINY, SHORT, INT24, LONG, LONGLONG, NEWDECIMAL, FLOAT, DOUBLE, YEAR})
_CHARACTER: Final = frozenset({STRING, VARCHAR, BLOB, 253})
_METADATA_SIZE: Final = {
    FLOAT: 1, DOUBLE: 1, BLOB: 1, 249: 1, 250: 1, 251: 1, 245: 1, 255: 1, 242: 1, TIMESTAMP2: 1, DATETIME2: 1, TIME2: 1,
    VARCHAR: 2, BIT: 2, NEWDECIMAL: 2, ENUM: 2, SET: 2, STRING: 2, 253: 2, 20: 4,
}  # fmt: skip
_SIGNEDNESS, _DEFAULT_CHARSET, _COLUMN_CHARSET, _NAMES, _SIMPLE_KEY, _PREFIX_KEY = 1, 2, 3, 4, 8, 9


def table_name(body: bytes) -> tuple[str, str]:
    """The database and the table of a TABLE_MAP's body, from its flags on."""
    database, position = _name(body, 2)
    return database, _name(body, position)[0]


def parse_table_map(body: bytes, collations: Mapping[int, str]) -> TableInfo:
    """Read a TABLE_MAP's body from its flags on, without its checksum.

    ``collations`` gives a collation's character set. Raises Incompatible when the log has no full metadata.
    """
    database, position = _name(body, 2)
    table, position = _name(body, position)
    count, position = packed_int(body, position)
    codes = body[position : position + count]
    size, position = packed_int(body, position + count)
    types = _types(codes, body[position : position + size])
    position += size
    nulls = body[position : position + (count + 7) // 8]
    fields = dict(_fields(body, position + len(nulls)))
    where = f"table {database}.{table}"
    if _NAMES not in fields:
        raise Incompatible(
            "the change log does not say the columns' names",
            where=where,
            why="binlog_row_metadata is not FULL, so a change of the table's columns could shift values unseen.",
            todo="SET GLOBAL binlog_row_metadata=FULL; then start the migration of this source again.",
        )
    names, unsigned = _names(fields[_NAMES]), _unsigned(types, fields.get(_SIGNEDNESS, b""))
    charsets = _charsets(types, fields)
    columns = tuple(
        _column(
            names[i], types[i], unsigned[i], bool(nulls[i >> 3] >> (i & 7) & 1), _charset(charsets.get(i), collations)
        )
        for i in range(count)
    )
    return TableInfo(database, table, columns, _primary_key(fields))


def _name(body: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + body[position]
    return body[position + 1 : end].decode(), end + 1


def _types(codes: bytes, metadata: bytes) -> list[tuple[int, int]]:
    """Each column's real type and metadata. STRING hides ENUM, SET and two bits of long CHAR's length in it."""
    types, position = [], 0
    for code in codes:
        size = _METADATA_SIZE.get(code, 0)
        raw = metadata[position : position + size]
        position += size
        if code == STRING:
            types.append(_string_type(raw[0], raw[1]))
        elif code == NEWDECIMAL:
            types.append((code, raw[0] << 8 | raw[1]))
        else:
            types.append((code, int.from_bytes(raw, "little")))
    return types


def _string_type(first: int, second: int) -> tuple[int, int]:
    if first in (ENUM, SET):
        return first, second
    return STRING, ((first & 0x30) ^ 0x30) << 4 | second


def _fields(body: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    while position < len(body):
        kind = body[position]
        size, position = packed_int(body, position + 1)
        yield kind, body[position : position + size]
        position += size


def _unsigned(types: list[tuple[int, int]], bits: bytes) -> list[bool]:
    """One bit a numeric column, the highest first."""
    result, at = [], 0
    for code, _ in types:
        numeric = code in _NUMERIC
        result.append(numeric and bool(bits[at >> 3] << (at & 7) & 0x80))
        at += numeric
    return result


def _charsets(types: list[tuple[int, int]], fields: dict[int, bytes]) -> dict[int, int]:
    """Collation ids by column: one a character column, or a default and the columns that differ from it."""
    columns = [i for i, (code, _) in enumerate(types) if code in _CHARACTER]
    if _COLUMN_CHARSET in fields:
        return dict(zip(columns, _ints(fields[_COLUMN_CHARSET]), strict=True))
    default, *others = _ints(fields.get(_DEFAULT_CHARSET, b"\0"))
    differing = dict(zip(others[::2], others[1::2], strict=True))
    return {column: differing.get(at, default) for at, column in enumerate(columns)}


def _ints(data: bytes) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = packed_int(data, position)
        values.append(value)
    return values


def _names(data: bytes) -> list[str]:
    names, position = [], 0
    while position < len(data):
        end = position + 1 + data[position]
        names.append(data[position + 1 : end].decode())
        position = end
    return names


def _primary_key(fields: dict[int, bytes]) -> tuple[int, ...]:
    """Column indexes; a key over prefixes of columns is logged as pairs of index and length."""
    if _PREFIX_KEY in fields:
        return tuple(_ints(fields[_PREFIX_KEY])[::2])
    return tuple(_ints(fields.get(_SIMPLE_KEY, b"")))


def _charset(collation: int | None, collations: Mapping[int, str]) -> tuple[int, str]:
    if collation is None:
        return 0, ""
    return collation, collations.get(collation, f"of collation {collation}")


def _column(
    name: str, kind: tuple[int, int], unsigned: bool, nullable: bool, collation: tuple[int, str]
) -> BinlogColumn:
    code, metadata = kind
    type_name = _TYPE_NAMES.get(code, f"type {code}")
    collation_id, charset = collation
    if charset == BINARY:
        type_name = _BINARY_NAMES.get(type_name, type_name)
    elif charset:
        type_name = _TEXT_NAMES.get(type_name, type_name)
    return BinlogColumn(name, code, type_name, unsigned, charset, collation_id, metadata, nullable)
