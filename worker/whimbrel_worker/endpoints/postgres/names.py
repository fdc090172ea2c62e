"""Quoted names and the control schema's name. No statement stands here.

psycopg looks for placeholders in names too, so a percent sign in one is doubled; every statement that holds such a name
is executed with parameters, if only an empty tuple, which halves it again.
"""

from psycopg import sql

from whimbrel_worker.values.columns import Column, Table

CONTROL_SCHEMA = "whimbrel"


def identifier(*names: str) -> sql.SQL:
    """A quoted, possibly qualified name for a statement that is executed with parameters."""
    return sql.SQL(sql.Identifier(*names).as_string(None).replace("%", "%%"))


def target_table(table: Table) -> sql.SQL:
    """The table's quoted name on the target."""
    return identifier(table.target_schema, table.target_name)


def control_table(name: str) -> sql.SQL:
    """A control table's quoted name."""
    return identifier(CONTROL_SCHEMA, name)


def column_list(columns: tuple[Column, ...]) -> sql.Composed:
    """Quoted column names, with commas."""
    return sql.SQL(", ").join(identifier(column.name) for column in columns)
