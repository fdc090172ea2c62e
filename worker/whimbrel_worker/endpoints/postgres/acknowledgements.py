"""The proven steps of a cutover in the journal, one for each step, attempt and position. Milestones stand in control.

They share the journal's table and its numbers, under steps of their own (`acknowledged:Freeze`), with the rest as JSON.
"""

import json
from datetime import datetime
from typing import Final

from psycopg import sql

from whimbrel_api.acknowledgements import KEPT, Acknowledgement
from whimbrel_worker.endpoints.postgres.names import control_table
from whimbrel_worker.libpq import Connection

PREFIX: Final = "acknowledged:"
MILESTONES: Final = f"step NOT LIKE '{PREFIX}%%'"
"""The condition by which a query leaves them out."""
_ABOUT: Final = {"step", "at"}
_JOURNAL: Final = control_table("journal")


def acknowledge(connection: Connection, migration: str, told: Acknowledgement) -> Acknowledgement:
    """Write it unless the journal holds the same; the one that it holds. A race ends with a unique violation."""
    step = f"{PREFIX}{told.step}"
    known = connection.execute(
        sql.SQL("SELECT step, detail, recorded_at FROM {} WHERE migration = %s AND step = %s ORDER BY number").format(
            _JOURNAL
        ),
        (migration, step),
    ).fetchall()
    same = next((found for found in map(_entry, known) if found.same_as(told)), None)
    if same is not None:
        return same
    at = add_entry(connection, migration, step, told.model_dump_json(exclude=_ABOUT))
    return told.model_copy(update={"at": at})


def acknowledged(connection: Connection, migration: str) -> list[Acknowledgement]:
    """The newest of them, the oldest first."""
    rows = connection.execute(
        sql.SQL(
            "SELECT step, detail, recorded_at FROM {} WHERE migration = %s AND step LIKE %s"
            " ORDER BY number DESC LIMIT %s"
        ).format(_JOURNAL),
        (migration, f"{PREFIX}%", KEPT),
    ).fetchall()
    return [_entry(row) for row in reversed(rows)]


def add_entry(connection: Connection, migration: str, step: str, detail: str) -> datetime:
    """Add an entry behind all others; when that was. A race ends with a unique violation."""
    newest = connection.execute(
        sql.SQL("SELECT coalesce(max(number), 0) FROM {} WHERE migration = %s").format(_JOURNAL), (migration,)
    ).fetchall()[0][0]
    added = connection.execute(
        sql.SQL(
            "INSERT INTO {} (migration, number, step, detail, recorded_at) VALUES (%s, %s, %s, %s, now())"
            " RETURNING recorded_at"
        ).format(_JOURNAL),
        (migration, newest + 1, step, detail),
    ).fetchall()
    at: datetime = added[0][0]
    return at


def _entry(row: tuple[str, str, datetime]) -> Acknowledgement:
    step, detail, at = row
    return Acknowledgement.model_validate({**json.loads(detail), "step": step.removeprefix(PREFIX), "at": at})
