"""Secondary indexes on the target: built without stopping writes, awaited, and built anew when a build was lost.

Plain PostgreSQL builds CONCURRENTLY; Aurora DSQL only ASYNC, as a job in sys.jobs that can be `completed` with an error
in its details, so that the catalogue's `indisvalid` has the last word (Aurora DSQL user guide, "Asynchronous indexes").
"""

import time
import zlib

from psycopg import sql

from whimbrel_worker.endpoints.postgres.layout import run_ddl
from whimbrel_worker.endpoints.postgres.names import identifier, target_table
from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.libpq import Connection
from whimbrel_worker.values.columns import Index, Table

_POLL_SECONDS = 0.3
_NAME_BYTES = 63


class IndexBuilder:
    """Builds indexes over one connection."""

    def __init__(self, connection: Connection, profile: Profile) -> None:
        self._connection, self._asynchronous = connection, profile.single_ddl

    def build(self, table: Table, index: Index) -> None:
        """Make one index unless a valid one is there. Raises Incompatible when the rows do not let it be built."""
        name = index_name(table, index)
        if self._asynchronous:
            self._await_jobs("")
        if self._valid(table, name) is False:
            drop = sql.SQL("DROP INDEX {}").format(identifier(table.target_schema, name))
            run_ddl(self._connection, drop, table.name)
        if self._valid(table, name) is None:
            details = self._create(table, index)
            if not self._valid(table, name):
                raise self._unbuilt(table, name, details)

    def _create(self, table: Table, index: Index) -> str:
        """Make the index and wait for it. Returns what its job says of itself."""
        try:
            answer = run_ddl(self._connection, create_index(table, index, self._asynchronous), table.name)
        except Incompatible as error:
            raise self._unbuilt(table, index_name(table, index), error.why) from None
        return self._await_jobs(answer) if self._asynchronous else ""

    def _await_jobs(self, job: str) -> str:
        """Wait for a job, or for all index builds when none is named: a former worker may have begun one."""
        while True:
            rows = self._connection.execute(
                "SELECT status, coalesce(details, '') FROM sys.jobs WHERE job_id = %s"
                " OR %s = '' AND job_type = 'INDEX_BUILD' AND status IN ('submitted', 'processing')",
                (job, job),
            ).fetchall()
            if not any(status in {"submitted", "processing"} for status, _ in rows):
                return "; ".join(details for _, details in rows)
            time.sleep(_POLL_SECONDS)

    def _valid(self, table: Table, name: str) -> bool | None:
        found = self._connection.execute(
            "SELECT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
            (table.target_schema, name),
        ).fetchone()
        return None if found is None else bool(found[0])

    @staticmethod
    def _unbuilt(table: Table, name: str, why: str) -> Incompatible:
        return Incompatible(
            f"index {name} cannot be built on the target",
            where=table.name,
            why=why,
            todo="compare the rows that it names on both sides; without the index the table must not be cut over",
        )


def create_index(table: Table, index: Index, asynchronous: bool) -> sql.Composed:
    """CREATE INDEX in the way that lets writes go on."""
    return sql.SQL("CREATE {}INDEX {} {} ON {} ({})").format(
        sql.SQL("UNIQUE " if index.unique else ""),
        sql.SQL("ASYNC" if asynchronous else "CONCURRENTLY"),
        identifier(index_name(table, index)),
        target_table(table),
        sql.SQL(", ").join(identifier(name) for name in index.columns),
    )


def index_name(table: Table, index: Index) -> str:
    """Index names are unique in a PostgreSQL schema, in MySQL only in a table; 63 bytes at most."""
    name = f"{table.target_name}_{index.name}"
    if len(name.encode()) <= _NAME_BYTES:
        return name
    return name.encode()[:54].decode(errors="ignore") + f"_{zlib.crc32(name.encode()):08x}"
