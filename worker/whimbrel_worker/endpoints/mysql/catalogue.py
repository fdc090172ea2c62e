"""What INFORMATION_SCHEMA says of all tables, in a handful of queries however many there are. Nothing is judged
here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whimbrel_worker.endpoints.mysql.connect import Connection, query
from whimbrel_worker.endpoints.mysql.types import SourceColumn

SYSTEM_SCHEMAS = ("mysql", "sys", "information_schema", "performance_schema", "ndbinfo")
Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """An index. `plain` is false for prefixes, expressions and anything that is no B-tree."""

    name: str
    unique: bool
    columns: tuple[str, ...]
    plain: bool


@dataclass(slots=True)
class SourceTable:
    """A base table as it stands."""

    schema: str
    name: str
    engine: str
    rows_estimate: int
    columns: list[SourceColumn] = field(default_factory=list)
    indexes: list[SourceIndex] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """`database.table`."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Base tables, and what else there is by kind: names of views, triggers, and so on."""

    tables: list[SourceTable]
    others: dict[str, list[Name]]
    hidden_cascades: list[Name] = field(default_factory=list)
    """Tables whose rows a foreign key changes without a word in the change log."""


def read_catalogue(connection: Connection) -> Catalogue:
    """Read all of it. Tables that the account may not see are not there."""
    query(connection, "SET SESSION information_schema_stats_expiry = 0")
    rows = _select(connection, "TABLES", "TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS", "TABLE_SCHEMA")
    tables = {
        (schema, name): SourceTable(schema, name, engine or "", int(count or 0))
        for schema, name, kind, engine, count in rows
        if kind == "BASE TABLE"
    }
    _add_columns(connection, tables)
    _add_indexes(connection, tables)
    others = _others(connection) | {"views": [(row[0], row[1]) for row in rows if row[2] == "VIEW"]}
    return Catalogue([tables[name] for name in sorted(tables)], others, _hidden_cascades(connection))


def _select(connection: Connection, view: str, columns: str, schema: str, order: str = "1, 2") -> list[tuple[Any, ...]]:
    marks = ", ".join(["%s"] * len(SYSTEM_SCHEMAS))
    statement = f"SELECT {columns} FROM INFORMATION_SCHEMA.{view} WHERE {schema} NOT IN ({marks}) ORDER BY {order}"
    return query(connection, statement, SYSTEM_SCHEMAS)


def _add_columns(connection: Connection, tables: dict[Name, SourceTable]) -> None:
    columns = (
        "TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_MAXIMUM_LENGTH,"
        " NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, COLLATION_NAME, EXTRA, COLUMN_DEFAULT"
    )
    for schema, table, name, *rest in _select(connection, "COLUMNS", columns, "TABLE_SCHEMA", "1, 2, ORDINAL_POSITION"):
        found = tables.get((schema, table))
        if found is not None:
            found.columns.append(_column(name, *rest))


def _column(name: str, *described: Any) -> SourceColumn:
    data_type, spelled, nullable, length, precision, scale, fraction, collation, extra, default = described
    return SourceColumn(
        name=name,
        data_type=data_type,
        column_type=spelled.decode() if isinstance(spelled, bytes) else spelled,
        nullable=nullable == "YES",
        length=length,
        precision=precision,
        scale=scale,
        fraction=fraction,
        collation=collation,
        extra=extra or "",
        has_default=default is not None,
    )


def _add_indexes(connection: Connection, tables: dict[Name, SourceTable]) -> None:
    columns = "TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, INDEX_TYPE"
    rows = _select(connection, "STATISTICS", columns, "TABLE_SCHEMA", "1, 2, 3, SEQ_IN_INDEX")
    grouped: dict[tuple[str, str, str], list[tuple[Any, ...]]] = defaultdict(list)
    for schema, table, index, *rest in rows:
        grouped[schema, table, index].append(tuple(rest))
    for (schema, table, index), parts in grouped.items():
        found = tables.get((schema, table))
        if found is not None:
            found.indexes.append(_index(index, parts))


def _index(name: str, parts: Iterable[tuple[Any, ...]]) -> SourceIndex:
    parts = list(parts)
    plain = all(column is not None and prefix is None and kind == "BTREE" for _, column, prefix, kind in parts)
    columns = tuple(str(column) for _, column, _, _ in parts if column is not None)
    return SourceIndex(name, not int(parts[0][0]), columns, plain)


def _hidden_cascades(connection: Connection) -> list[Name]:
    """Cascades that InnoDB carries out by itself are not in the binary log.

    MySQL 9.6 moved them above the engine, unless innodb_native_foreign_keys is ON (seen on 9.7 with mysqlbinlog).
    """
    found = query(connection, "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'")
    if found and found[0][1] == "OFF":
        return []
    silent = "'RESTRICT', 'NO ACTION'"
    where = f"(DELETE_RULE NOT IN ({silent}) OR UPDATE_RULE NOT IN ({silent})) AND CONSTRAINT_SCHEMA"
    rows = _select(connection, "REFERENTIAL_CONSTRAINTS", "CONSTRAINT_SCHEMA, TABLE_NAME", where)
    return [(row[0], row[1]) for row in rows]


def _others(connection: Connection) -> dict[str, list[Name]]:
    views = {
        "foreign keys": ("REFERENTIAL_CONSTRAINTS", "CONSTRAINT_SCHEMA, TABLE_NAME", "CONSTRAINT_SCHEMA"),
        "CHECK constraints": (
            "TABLE_CONSTRAINTS",
            "TABLE_SCHEMA, TABLE_NAME",
            "CONSTRAINT_TYPE = 'CHECK' AND TABLE_SCHEMA",
        ),
        "triggers": ("TRIGGERS", "EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE", "EVENT_OBJECT_SCHEMA"),
    }
    return {kind: [(row[0], row[1]) for row in _select(connection, *arguments)] for kind, arguments in views.items()}
