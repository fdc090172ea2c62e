"""Whether a table that the target already has can take a source table's rows: names, types, NULLs and keys. Pure."""

import re
from collections.abc import Iterator, Sequence

from whimbrel_worker.engine.ports import ExistingColumn, Problem
from whimbrel_worker.values.columns import Table

_ALIASES = {
    "varchar": "character varying",
    "char": "character",
    "bpchar": "character",
    "decimal": "numeric",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "float": "double precision",
    "bool": "boolean",
    "timestamptz": "timestamp with time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "time": "time without time zone",
}
_TYPE = re.compile(r"([a-z0-9_ ]+?)\s*(\([0-9, ]+\))?\s*( with(?:out)? time zone)?\Z")
_FULL_PRECISION = "(6)"


def normal_type(text: str) -> str:
    """A type as format_type() would print it, so that spellings of one type are equal."""
    match = _TYPE.match(text.strip().lower())
    if match is None:
        return text.strip().lower()
    name, length, zone = match[1], (match[2] or "").replace(" ", ""), match[3] or ""
    name = _ALIASES.get(name + zone, _ALIASES.get(name, name) if not zone else name + zone)
    if " time zone" in name and length == _FULL_PRECISION:
        length = ""
    head, space, tail = name.partition(" with")
    return f"{head}{length}{space}{tail}"


def differences(table: Table, columns: Sequence[ExistingColumn], key: tuple[str, ...]) -> Iterator[Problem]:
    """What keeps the target's table from taking the rows, and warnings."""
    there = {column.name: column for column in columns}
    for column in table.columns:
        found = there.get(column.name)
        if found is None:
            yield _differs(table, f"column {column.name} is missing there", f"add it as {column.target_type}")
            continue
        if normal_type(found.type) != normal_type(column.target_type):
            what = f"column {column.name} is {found.type} there, {column.target_type} ({column.source_type}) here"
            todo = f"change it, or say tables.overrides[].columns: [{{name: {column.name}, type: {found.type}}}]"
            yield _differs(table, what, todo)
        if column.nullable and not found.nullable and column not in table.key_columns:
            yield _differs(table, f"column {column.name} is NOT NULL there and may be NULL here", "drop the NOT NULL")
    yield from _extra(table, columns)
    wanted = tuple(column.name for column in table.key_columns)
    if set(key) != set(wanted):
        what = f"the primary key is ({', '.join(key)}) there, ({', '.join(wanted)}) here"
        yield _differs(table, what, "give it the source's key, or name another one under tables.overrides[].primaryKey")


def _extra(table: Table, columns: Sequence[ExistingColumn]) -> Iterator[Problem]:
    names = {column.name for column in table.columns}
    for column in columns:
        if column.name in names:
            continue
        if not column.nullable:
            yield _differs(table, f"column {column.name} is NOT NULL there and missing here", "drop it or its NOT NULL")
        else:
            yield Problem(f"column {column.name} is on the target only and stays as it is", table.name, fatal=False)


def _differs(table: Table, what: str, todo: str) -> Problem:
    there = f"{table.target_schema}.{table.target_name}"
    return Problem(
        f"the target's table {there} differs from {table.name}: {what}",
        where=table.name,
        why="a table that is there already is used as it is",
        todo=f"{todo}; or drop {there}, so that it is made anew, or rename under tables.overrides[].renameTo",
    )
