"""Statements that read a MySQL source: names and values quoted, key ranges in a form that its optimiser turns into
index ranges.

`(a, b) > (x, y)` is not a range for MySQL (manual, "Row Constructor Expression Optimization"); the expanded form with a
bound on the leading column is.
"""

import re
from collections.abc import Sequence

from whimbrel_worker.values.columns import Column, Kind, Table

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_LENGTH = re.compile(r"\((\d+)\)")
_SHORT = 255
_HEX_PREFIX = "x'5c78'"
_MOMENT = re.compile(r"-?[0-9][0-9:. -]*\Z")


def name(*parts: str) -> str:
    """A quoted, possibly qualified name."""
    return ".".join(f"`{part.replace('`', '``')}`" for part in parts)


def literal(column: Column, text: str) -> str:
    """A key cell as a literal of its column's type. Raises ValueError where the text is no such value."""
    if column.kind is Kind.TEXT:
        return f"_utf8mb4 x'{text.encode().hex()}'"
    if column.kind is Kind.BYTES:
        return f"x'{bytes.fromhex(text).hex()}'"
    if column.kind in (Kind.INTEGER, Kind.DECIMAL) and _NUMBER.match(text):
        return text
    if column.kind in (Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP, Kind.TIME) and _MOMENT.match(text):
        return f"'{text}'"
    raise ValueError(f"{text!r} is no {column.kind.value} that could be part of a key")


def after(table: Table, key: Sequence[str]) -> str:
    """The condition of all keys greater than this one."""
    return _bound(table, key, ">", ">")


def up_to(table: Table, key: Sequence[str]) -> str:
    """The condition of all keys up to and with this one."""
    return _bound(table, key, "<", "<=")


def _bound(table: Table, key: Sequence[str], strict: str, last: str) -> str:
    """A comparison of whole rows, expanded; `last` compares the last column when all before it are equal."""
    columns, values = _pairs(table, key)
    end = len(columns) - 1
    if end == 0:
        return f"{columns[0]} {last} {values[0]}"
    terms = []
    for position, (column, value) in enumerate(zip(columns, values, strict=True)):
        same = "".join(f"{columns[before]} = {values[before]} AND " for before in range(position))
        terms.append(f"({same}{column} {last if position == end else strict} {value})")
    return f"({columns[0]} {strict}= {values[0]} AND ({' OR '.join(terms)}))"


def _pairs(table: Table, key: Sequence[str]) -> tuple[list[str], list[str]]:
    columns = table.key_columns
    return [name(column.name) for column in columns], [
        literal(column, text) for column, text in zip(columns, key, strict=True)
    ]


def _where(table: Table, low: Sequence[str] | None, high: Sequence[str] | None) -> str:
    conditions = [after(table, low)] if low is not None else []
    conditions += [up_to(table, high)] if high is not None else []
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _order(table: Table) -> str:
    return " ORDER BY " + ", ".join(name(column.name) for column in table.key_columns)


def _from(table: Table, index: str | None) -> str:
    hint = f" FORCE INDEX ({name(index)})" if index else ""
    return f" FROM {name(table.source_schema, table.source_name)}{hint}"


def hexed_columns(table: Table) -> frozenset[int]:
    """The columns that the server writes as PostgreSQL's `\\x` and hex digits: short bytes, which are dear to
    convert here."""
    return frozenset(position for position, column in enumerate(table.columns) if _is_short_binary(column))


def _is_short_binary(column: Column) -> bool:
    if column.kind is not Kind.BYTES:
        return False
    length = _LENGTH.search(column.source_type)
    return column.source_type.lower() == "tinyblob" or (length is not None and int(length[1]) <= _SHORT)


def _select_list(table: Table) -> str:
    """FLOAT is cast, because its own text form has six digits only."""
    return ", ".join(_selected(column) for column in table.columns)


def _selected(column: Column) -> str:
    if column.kind is Kind.FLOAT32:
        return f"CAST({name(column.name)} AS DOUBLE)"
    if _is_short_binary(column):
        return f"CONCAT({_HEX_PREFIX}, HEX({name(column.name)}))"
    return name(column.name)


def select_range(table: Table, low: Sequence[str] | None, high: Sequence[str] | None, index: str | None) -> str:
    """The rows of (low, high] in key order."""
    return f"SELECT {_select_list(table)}{_from(table, index)}{_where(table, low, high)}{_order(table)}"


def select_boundary(table: Table, low: Sequence[str] | None, rows: int, index: str | None) -> str:
    """The key of the row that is `rows` rows after `low`."""
    keys = ", ".join(name(column.name) for column in table.key_columns)
    offset = f" LIMIT 1 OFFSET {int(rows) - 1}"
    return f"SELECT {keys}{_from(table, index)}{_where(table, low, None)}{_order(table)}{offset}"


def select_keys(table: Table, keys: Sequence[Sequence[str]]) -> str:
    """The rows that have one of these keys."""
    columns = ", ".join(name(column.name) for column in table.key_columns)
    values = ", ".join(f"({', '.join(_pairs(table, key)[1])})" for key in keys)
    return f"SELECT {_select_list(table)}{_from(table, None)} WHERE ({columns}) IN ({values})"


def select_count(table: Table) -> str:
    """How many rows there are."""
    return f"SELECT COUNT(*){_from(table, None)}"


def probe_select(tables: Sequence[Table]) -> str:
    """A statement that reads nothing and fails unless every table may be read."""
    return " UNION ALL ".join(f"(SELECT 1{_from(table, None)} LIMIT 0)" for table in tables)
