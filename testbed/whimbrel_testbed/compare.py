"""The independent comparison of MySQL tables with their PostgreSQL copies: plain SQL, plain Python.

Both servers must be at rest. It is an oracle for tests and the demo: it holds one side in
memory and shares no code with what it judges.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from pymysql.connections import Connection as MySQLConnection
from pymysql.cursors import SSCursor

from whimbrel_testbed.mysql import MySQLAccess

Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[Any, ...]
_FETCH = 5000


@dataclass(frozen=True)
class _Shape:
    """A source table: its columns in order with MySQL's data types, and where its key's columns stand among them."""

    source: str
    target: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[int, ...]


@dataclass
class _Findings:
    limit: int
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.lines) < self.limit:
            self.lines.append(text)


def independent_compare(
    mysql: MySQLAccess, pg_conninfo: str, tables: Sequence[str | tuple[str, str]], *, limit: int = 20,
    snapshot: str = "",
) -> list[str]:  # fmt: skip
    """Compare whole tables; return the differences in words, empty where all are equal.

    A table is ``"schema.table"`` where both sides have that name, or a pair of the source's and the target's. At
    most `limit` differences of a table are described, and one line more counts them all.
    A table needs a primary key in the source. `snapshot`: one that the target's PostgreSQL has exported, which is read
    instead of what is there now; then the target need not be at rest.
    """
    differences: list[str] = []
    with (
        closing(mysql.connect(init_command="SET time_zone = '+00:00'")) as source,
        psycopg.connect(pg_conninfo) as target,
    ):
        if snapshot:
            target.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            target.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        target.execute("SET TimeZone = 'UTC'")
        for table in tables:
            names = (table, table) if isinstance(table, str) else table
            differences += _compare_table(source, target, *names, limit)
    return differences


def _compare_table(
    source: MySQLConnection[Any], target: psycopg.Connection[Row], source_name: str, target_name: str, limit: int
) -> list[str]:
    shape = _source_shape(source, source_name, target_name)
    found = _target_columns(target, target_name)
    if not shape.columns:
        return [f"{source_name}: not in the source"]
    if not found:
        return [f"{source_name}: the target has no table {target_name}"]
    if set(found) != set(shape.columns):
        return [f"{source_name}: columns differ: source {sorted(shape.columns)}, target {sorted(found)}"]
    if not shape.key:
        return [f"{source_name}: has no primary key, so that its rows cannot be matched"]
    return _compare_rows(shape, _source_rows(source, shape), _target_rows(target, shape, found), limit)


def _compare_rows(shape: _Shape, source: Iterator[Row], target: Iterator[Row], limit: int) -> list[str]:
    """Match rows by key, whatever the order they come in."""
    at = shape.key
    waiting: dict[Key, Row] = {tuple(row[i] for i in at): row for row in source}
    total, findings = len(waiting), _Findings(limit)
    for row in target:
        key = tuple(row[i] for i in at)
        expected = waiting.pop(key, None)
        if expected is None:
            findings.add("extra (or twice) in the target", f"{shape.source} {_shown(shape, key)}: only in the target")
        elif expected != row:
            findings.add("changed", f"{shape.source} {_shown(shape, key)}: {_cells(shape, expected, row)}")
    for key in waiting:
        findings.add("missing in the target", f"{shape.source} {_shown(shape, key)}: only in the source")
    if not findings.counts:
        return []
    summary = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items())
    return [f"{shape.source}: of {total} rows in the source: {summary}", *findings.lines]


def _shown(shape: _Shape, key: Key) -> str:
    return "(" + ", ".join(f"{shape.columns[i]}={value!r}" for i, value in zip(shape.key, key, strict=True)) + ")"


def _cells(shape: _Shape, expected: Row, row: Row) -> str:
    pairs = zip(shape.columns, expected, row, strict=True)
    return "; ".join(f"{name}: source {left!r}, target {right!r}" for name, left, right in pairs if left != right)


def _source_shape(connection: MySQLConnection[Any], source: str, target: str) -> _Shape:
    schema, _, table = source.partition(".")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s "
            "ORDER BY ordinal_position",
            [schema, table],
        )
        columns = cursor.fetchall()
        cursor.execute(
            "SELECT column_name FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s "
            "AND index_name = 'PRIMARY' ORDER BY seq_in_index",
            [schema, table],
        )
        key = [name for (name,) in cursor.fetchall()]
    names = tuple(str(name) for name, _ in columns)
    return _Shape(
        source, target, names, tuple(str(kind) for _, kind in columns), tuple(names.index(name) for name in key)
    )


def _target_columns(connection: psycopg.Connection[Row], target: str) -> dict[str, str]:
    schema, _, table = target.partition(".")
    found = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        [schema, table],
    )
    return dict(found.fetchall())


def _source_rows(connection: MySQLConnection[Any], shape: _Shape) -> Iterator[Row]:
    quoted = ["`" + name.replace("`", "``") + "`" for name in shape.columns]
    # MySQL shows a FLOAT with six digits only; as a DOUBLE it shows the value it holds.
    wanted = [f"{name} + 0e0" if kind == "float" else name for name, kind in zip(quoted, shape.types, strict=True)]
    table = ".".join("`" + part.replace("`", "``") + "`" for part in shape.source.split(".", 1))
    converters = [(at, _SOURCE_NORMAL[kind]) for at, kind in enumerate(shape.types) if kind in _SOURCE_NORMAL]
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT {', '.join(wanted)} FROM {table}".replace("%", "%%"), [])
        while rows := cursor.fetchmany(_FETCH):
            yield from _normalised(rows, converters)


def _target_rows(connection: psycopg.Connection[Row], shape: _Shape, types: dict[str, str]) -> Iterator[Row]:
    wanted = [
        sql.SQL("{}::float8" if types[name] == "real" else "{}").format(sql.Identifier(name)) for name in shape.columns
    ]
    table = sql.Identifier(*shape.target.split(".", 1))
    kinds = [types[name] for name in shape.columns]
    converters = [(at, _TARGET_NORMAL[kind]) for at, kind in enumerate(kinds) if kind in _TARGET_NORMAL]
    statement = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(wanted), table)
    # Off the wire as they come: a server-side cursor needs DECLARE, which Aurora DSQL's list of commands does not name.
    with connection.cursor() as cursor:
        yield from _normalised(cursor.stream(statement, binary=True, size=_FETCH), converters)


def _normalised(rows: Iterable[Row], converters: list[tuple[int, Callable[[Any], Any]]]) -> Iterator[Row]:
    if not converters:
        yield from rows
        return
    for row in rows:
        cells = list(row)
        for at, convert in converters:
            if cells[at] is not None:
                cells[at] = convert(cells[at])
        yield tuple(cells)


def _signed_float(value: float) -> float | str:
    """Tell −0 from 0, which compare as equal."""
    return "-0.0" if value == 0 and math.copysign(1, value) < 0 else value


def _utc(value: datetime.datetime) -> datetime.datetime:
    return value if value.tzinfo is None else value.astimezone(datetime.UTC).replace(tzinfo=None)


def _duration(value: datetime.time | datetime.timedelta) -> datetime.timedelta:
    if isinstance(value, datetime.timedelta):
        return value
    return datetime.timedelta(
        hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
    )


def _document(value: Any) -> str:
    return json.dumps(json.loads(value) if isinstance(value, str) else value, sort_keys=True)


def _unpadded(value: str) -> str:
    return value.rstrip(" ")


_SOURCE_NORMAL: dict[str, Callable[[Any], Any]] = {"float": _signed_float, "double": _signed_float, "json": _document}
"""By MySQL's data type. CHAR comes without its padding already, times are naive and UTC, TIME is a timedelta."""

_TARGET_NORMAL: dict[str, Callable[[Any], Any]] = {
    "real": _signed_float, "double precision": _signed_float, "json": _document, "jsonb": _document,
    "timestamp with time zone": _utc, "time without time zone": _duration, "character": _unpadded,
}  # fmt: skip
"""By PostgreSQL's data type. Booleans equal the integers 0 and 1 in Python, and decimals compare by value."""
