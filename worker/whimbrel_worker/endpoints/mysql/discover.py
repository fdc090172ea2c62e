"""From a catalogue to the tables that move: selection, overrides, types, keys, indexes; and what cannot be carried.
Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from whimbrel_api.migration import TableOverride, Tables
from whimbrel_worker.endpoints.mysql.catalogue import Catalogue, SourceIndex, SourceTable
from whimbrel_worker.endpoints.mysql.types import SourceColumn, to_column
from whimbrel_worker.engine.ports import Problem, Profile
from whimbrel_worker.values.columns import Column, Index, Kind, Table
from whimbrel_worker.values.selection import is_wanted, override_of, target_place, unmatched

_TARGET_NAME_BYTES = 63
"""PostgreSQL cuts longer names in silence (manual, "Identifiers and Key Words")."""
_RESERVED_SCHEMAS = ("whimbrel", "information_schema")
_NAMES_SHOWN = 5


@dataclass(slots=True)
class Discovery:
    """The tables that can move, the index of each one's key, and all problems."""

    tables: list[Table] = field(default_factory=list)
    key_indexes: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def discover(catalogue: Catalogue, wanted: Tables, profile: Profile) -> Discovery:
    """Judge every wanted table."""
    found = Discovery()
    selected = [table for table in catalogue.tables if is_wanted(table.full_name, wanted)]
    for table in selected:
        _judge(table, wanted, profile, found)
    found.problems += _selection_problems(selected, wanted)
    found.problems += _collisions(found.tables)
    found.problems += _hidden_cascades(selected, catalogue)
    found.problems += _not_carried(selected, catalogue)
    return found


def _judge(source: SourceTable, wanted: Tables, profile: Profile, found: Discovery) -> None:
    override = override_of(source.full_name, wanted)
    problems = [*_column_problems(source, override, profile), *_name_problems(source, override)]
    key, key_index = _key(source, override)
    problems += _key_problems(source, key, key_index)
    columns = _columns(source, override)
    if not any(problem.fatal for problem in problems):
        table = _table(source, override, columns, key)
        problems += _target_key_problems(table, profile)
        found.tables.append(table)
        if key_index is not None and key_index.plain:
            found.key_indexes[table.name] = key_index.name
    found.problems += problems


# --- names ---


def target_name(source: SourceTable, override: TableOverride | None) -> tuple[str, str]:
    """Schema and table on the target."""
    return target_place(source.schema, source.name, override)


def _name_problems(source: SourceTable, override: TableOverride | None) -> Iterator[Problem]:
    schema, name = target_name(source, override)
    for what, part in (("schema", schema), ("table", name)):
        if not part or len(part.encode()) > _TARGET_NAME_BYTES or "\0" in part:
            yield Problem(
                f"the {what} name {part!r} does not fit the target",
                where=source.full_name,
                why=f"a name there has 1 to {_TARGET_NAME_BYTES} bytes",
                todo="name it under tables.overrides[].renameTo",
            )
    if schema.lower() in _RESERVED_SCHEMAS or schema.lower().startswith("pg_"):
        yield Problem(
            f"the target's schema {schema!r} is reserved",
            where=source.full_name,
            why="the server or Whimbrel's control tables use it",
            todo="rename under tables.overrides[].renameTo, such as public." + name,
        )


def _collisions(tables: Iterable[Table]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], Table] = {}
    for table in tables:
        other = seen.setdefault((table.target_schema, table.target_name), table)
        if other is not table:
            yield Problem(
                f"{other.name} and {table.name} both lead to {table.target_schema}.{table.target_name}",
                where=table.name,
                why="two source tables cannot share a target table",
                todo="give one of them another name under tables.overrides[].renameTo",
            )


# --- columns ---


def _override_type(override: TableOverride | None, name: str) -> str | None:
    return next((column.type for column in override.columns if column.name == name), None) if override else None


def _columns(source: SourceTable, override: TableOverride | None) -> list[Column]:
    columns = (to_column(column, _override_type(override, column.name)) for column in source.columns)
    return [column for column in columns if column is not None]


def _column_problems(source: SourceTable, override: TableOverride | None, profile: Profile) -> Iterator[Problem]:
    for column in source.columns:
        if to_column(column) is None:
            yield Problem(
                f"column {column.name} has the type {column.column_type}, which cannot be carried",
                where=f"{source.full_name}.{column.name}",
                why="this version carries integers, decimals, floats, strings, binary strings, dates and times",
                todo="exclude the table under tables.exclude, or move the column's values into a column of such a type",
            )
        if len(column.name.encode()) > _TARGET_NAME_BYTES:
            yield Problem(
                f"the column name {column.name!r} does not fit the target",
                where=source.full_name,
                why=f"a name there has at most {_TARGET_NAME_BYTES} bytes",
                todo="rename the column, or exclude the table",
            )
        yield from _generated(source, column)
    if len(source.columns) > profile.column_limit:
        yield Problem(
            f"the table has {len(source.columns)} columns",
            where=source.full_name,
            why=f"{profile.name} takes {profile.column_limit} at most",
            todo="exclude the table, or split it",
        )
    yield from _unknown_overrides(source, override)


def _generated(source: SourceTable, column: SourceColumn) -> Iterator[Problem]:
    if column.generated:
        yield Problem(
            f"column {column.name} is generated; its values are carried, its expression is not",
            where=f"{source.full_name}.{column.name}",
            todo="let the application fill it after the cutover",
            fatal=False,
        )


def _unknown_overrides(source: SourceTable, override: TableOverride | None) -> Iterator[Problem]:
    names = {column.name for column in source.columns}
    named = [*(column.name for column in override.columns), *override.primary_key] if override else []
    for name in sorted(set(named) - names):
        yield Problem(
            f"tables.overrides names the column {name}, which is not there",
            where=source.full_name,
            why=f"the table has {_some(sorted(names))}",
            todo="correct the override",
        )


# --- keys and indexes ---


def _key(source: SourceTable, override: TableOverride | None) -> tuple[tuple[str, ...], SourceIndex | None]:
    primary = next((index for index in source.indexes if index.name == "PRIMARY"), None)
    if override is None or not override.primary_key:
        return (primary.columns, primary) if primary else ((), None)
    key = tuple(override.primary_key)
    return key, _index_of(source, key)


def _index_of(source: SourceTable, key: tuple[str, ...]) -> SourceIndex | None:
    unique = [index for index in source.indexes if index.unique and index.plain]
    exact = next((index for index in unique if index.columns == key), None)
    return exact or next((index for index in unique if set(index.columns) == set(key)), None)


def _key_problems(source: SourceTable, key: tuple[str, ...], index: SourceIndex | None) -> Iterator[Problem]:
    columns = {column.name: column for column in source.columns}
    if not key:
        yield _no_key(source)
        return
    if any(name not in columns for name in key):
        return
    if index is None:
        yield Problem(
            f"no unique index covers the key ({', '.join(key)}) of tables.overrides",
            where=source.full_name,
            why="rows could share a key, and one of them would be lost",
            todo=f"CREATE UNIQUE INDEX on these columns of {source.full_name}, or name others",
        )
    for name in key:
        column = to_column(columns[name])
        if columns[name].nullable:
            yield Problem(
                f"key column {name} may be NULL",
                where=source.full_name,
                why="NULLs are not unique, and a primary key has none",
                todo="declare it NOT NULL, or name another key under tables.overrides[].primaryKey",
            )
        if column is not None and column.kind in (Kind.FLOAT32, Kind.FLOAT64):
            yield Problem(
                f"key column {name} is a floating-point number",
                where=source.full_name,
                why="such values cannot be compared exactly",
                todo="name another unique key under tables.overrides[].primaryKey",
            )


def _no_key(source: SourceTable) -> Problem:
    nullable = {column.name for column in source.columns if column.nullable}
    unique = [i for i in source.indexes if i.unique and i.plain and not nullable & set(i.columns)]
    hint = f"[{', '.join(unique[0].columns)}], which the unique index {unique[0].name} covers," if unique else ""
    return Problem(
        "the table has no primary key",
        where=source.full_name,
        why="rows are found by their key when changes are applied and compared",
        todo=(f"name {hint} under tables.overrides[].primaryKey" if hint else "add a primary key")
        + ", or exclude the table under tables.exclude",
    )


def _target_key_problems(table: Table, profile: Profile) -> Iterator[Problem]:
    for column in table.key_columns:
        if column.target_type.lower() in profile.unindexable:
            yield Problem(
                f"key column {column.name} would be {column.target_type}",
                where=table.name,
                why=f"{profile.name} cannot have that type in a key",
                todo="name another unique key under tables.overrides[].primaryKey, or exclude the table",
            )


def _table(source: SourceTable, override: TableOverride | None, columns: list[Column], key: tuple[str, ...]) -> Table:
    schema, name = target_name(source, override)
    positions = {column.name: position for position, column in enumerate(columns)}
    # A primary key is NOT NULL whatever the source says.
    indexes = [index for index in source.indexes if index.plain and index.name != "PRIMARY" and index.columns != key]
    return Table(
        source_schema=source.schema,
        source_name=source.name,
        target_schema=schema,
        target_name=name,
        columns=tuple(columns),
        key=tuple(positions[column] for column in key),
        indexes=tuple(Index(index.name, index.columns, index.unique) for index in indexes),
        rows_estimate=source.rows_estimate,
    )


# --- what stays behind ---


def _selection_problems(selected: Sequence[SourceTable], wanted: Tables) -> Iterator[Problem]:
    for glob in unmatched([table.full_name for table in selected], wanted):
        yield Problem(
            f"nothing matches {glob} of tables.include",
            where=glob,
            why="there is no such table, it is excluded, or the account may not SELECT from it",
            todo="correct the pattern, or GRANT SELECT on the database to the account",
        )
    if not selected and not wanted.include:
        yield Problem(
            "the source has no table to move",
            why="there is none, all are excluded, or the account may not SELECT from any",
            todo="GRANT SELECT on the databases to the account",
        )


def _hidden_cascades(selected: Sequence[SourceTable], catalogue: Catalogue) -> Iterator[Problem]:
    chosen = {(table.schema, table.name) for table in selected}
    for schema, name in sorted(set(catalogue.hidden_cascades) & chosen):
        yield Problem(
            "a foreign key changes rows of this table without a word in the change log",
            where=f"{schema}.{name}",
            why="this server carries out CASCADE and SET NULL inside InnoDB, which does not log them",
            todo="replace the action by RESTRICT, SET PERSIST_ONLY innodb_native_foreign_keys = OFF on MySQL 9.6 or"
            " later, or exclude the table",
        )


def _not_carried(selected: Sequence[SourceTable], catalogue: Catalogue) -> Iterator[Problem]:
    """One warning a kind."""
    chosen = {(table.schema, table.name) for table in selected}
    schemas = {table.schema for table in selected}
    kinds = {
        kind: [f"{schema}.{name}" for schema, name in names if (schema, name) in chosen or _view(kind, schema, schemas)]
        for kind, names in catalogue.others.items()
    }
    columns = [(table.full_name, column) for table in selected for column in table.columns]
    indexes = [(table.full_name, index) for table in selected for index in table.indexes]
    kinds["AUTO_INCREMENT"] = [f"{name}.{c.name}" for name, c in columns if "auto_increment" in c.extra.lower()]
    kinds["column defaults"] = [f"{name}.{c.name}" for name, c in columns if c.has_default and not c.generated]
    kinds["invisibility of columns"] = [f"{name}.{c.name}" for name, c in columns if "INVISIBLE" in c.extra.upper()]
    kinds["prefix, expression, full-text and spatial indexes"] = [f"{n}.{i.name}" for n, i in indexes if not i.plain]
    for kind, names in kinds.items():
        if names:
            unique = sorted(set(names))
            yield Problem(f"{kind} are not carried ({len(unique)}): {_some(unique)}", fatal=False)
    yield from _engines(selected)


def _view(kind: str, schema: str, schemas: set[str]) -> bool:
    return kind == "views" and schema in schemas


def _engines(selected: Sequence[SourceTable]) -> Iterator[Problem]:
    others = [table.full_name for table in selected if table.engine.lower() != "innodb"]
    if others:
        yield Problem(
            f"tables of an engine without transactions ({len(others)}): {_some(others)}",
            why="a read may see half of a statement; the comparison will tell",
            fatal=False,
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
