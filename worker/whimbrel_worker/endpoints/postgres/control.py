"""The control store of one migration: each call one short transaction, conflicts and lost connections retried.

What the rows of workers and chunks look like stands in worker_rows and chunks; the layout in layout.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from whimbrel_api.acknowledgements import Acknowledgement
from whimbrel_api.reports import REPEATED_STEPS, SWITCHED, TIMED_OUT, JournalEntry, Record
from whimbrel_worker.endpoints.postgres import chunks as chunk_rows
from whimbrel_worker.endpoints.postgres import retirement
from whimbrel_worker.endpoints.postgres.acknowledgements import MILESTONES, acknowledge, acknowledged, add_entry
from whimbrel_worker.endpoints.postgres.connector import Connector, Kept
from whimbrel_worker.endpoints.postgres.failures import translate
from whimbrel_worker.endpoints.postgres.layout import LAYOUT_VERSION, ensure_layout, tables_there
from whimbrel_worker.endpoints.postgres.names import control_table
from whimbrel_worker.engine.fenced import switched_before
from whimbrel_worker.engine.ports import Chunk, TableRow
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import ConfigurationError, Conflict
from whimbrel_worker.libpq import Connection

T = TypeVar("T")
_JOURNAL_KEPT = 100
_REPEATED = ", ".join(["%s"] * len(REPEATED_STEPS))
_TRUTH = {"migrations", "journal"}


def _sql(text: str) -> sql.Composed:
    """A statement with the control tables' names in braces filled in."""
    names = ("migrations", "workers", "tables", "chunks", "journal")
    return sql.SQL(text).format(**{name: control_table(name) for name in names})


class PostgresControlStore:
    """Implements ports.ControlStore for targets that speak PostgreSQL's protocol."""

    def __init__(self, connector: Connector, migration: str, max_age: float) -> None:
        self._connector, self._migration = connector, migration
        self._kept = Kept(connector, max_age)

    def ensure(self) -> None:
        """Make what is missing of the control schema."""
        ensure_layout(self._connector)

    def register(self, source_id: str) -> Record:
        """Register the migration (epoch 1) or resume it."""
        self._transact(lambda connection: self._register(connection, source_id))
        self.journal_once("started")
        return self.record()

    def record(self) -> Record:
        """What the control tables say."""
        return self._transact(self._record)

    def fix_start_position(self, position: str) -> str:
        """Keep the position from before the first read; the first caller's stays."""

        def fix(connection: Connection) -> str:
            connection.execute(
                _sql("UPDATE {migrations} SET start_position = %s WHERE migration = %s AND start_position = ''"),
                (position, self._migration),
            )
            return str(self._one(connection, "SELECT start_position FROM {migrations} WHERE migration = %s")[0])

        return self._transact(fix)

    def journal(self, step: str, detail: str = "") -> None:
        """Write a step into the journal unless it is the newest already."""
        self._transact(lambda connection: self._journal(connection, step, detail))

    def acknowledge(self, told: Acknowledgement) -> Acknowledgement:
        """Write a proven step into the journal unless it holds the same; the one that it holds."""
        return self._transact(lambda connection: acknowledge(connection, self._migration, told))

    def journal_once(self, step: str, detail: str = "") -> None:
        """Write a step into the journal unless it holds that step at all."""

        def write(connection: Connection) -> None:
            if self._record(connection).last(step) is None:
                self._journal(connection, step, detail)

        self._transact(write)

    def raise_epoch(self, step: str, detail: str) -> int:
        """Raise the epoch in all rows and journal why. Repeating the newest step raises nothing."""

        def raise_all(connection: Connection) -> int:
            record = self._record(connection)
            if record.journal and record.journal[-1].step == step:
                return record.epoch
            if not self._raise_from(connection, record.epoch, step, detail):
                raise Conflict("somebody else raised the epoch at the same moment", where=self._migration)
            return record.epoch + 1

        return self._transact(raise_all)

    def conclude(self, step: str, detail: str, *, epoch: int, attempt: int) -> None:
        """Raise the epoch from this one and journal why, unless it or the plan's attempt was raised before."""
        self._transact(lambda connection: self._raise_from(connection, epoch, step, detail, attempt))

    def _raise_from(self, connection: Connection, epoch: int, step: str, detail: str, attempt: int = 0) -> bool:
        """Whether the epoch still was this one. Whoever changes the row first, the other one sees it."""
        raised = connection.execute(
            _sql(
                "UPDATE {migrations} SET epoch = %s WHERE migration = %s AND epoch = %s"
                " AND (%s = 0 OR plan_attempt <= %s)"
            ),
            (epoch + 1, self._migration, epoch, attempt, attempt),
        )
        if raised.rowcount != 1:
            return False
        connection.execute(
            _sql("UPDATE {workers} SET epoch = %s, attempt = attempt + 1 WHERE migration = %s"),
            (epoch + 1, self._migration),
        )
        self._journal(connection, step, detail)
        return True

    def give_up(self, attempt: int, detail: str) -> None:
        """Raise the plan's attempt and journal `timed-out`. Raises FencedOut where the traffic has moved."""

        def end(connection: Connection) -> None:
            # Changes the row in any case: a switch at the same moment is before it, or does not happen.
            connection.execute(
                _sql("UPDATE {migrations} SET plan_attempt = greatest(plan_attempt, %s) WHERE migration = %s"),
                (attempt, self._migration),
            )
            traffic = self._record(connection).traffic
            if traffic is not None and traffic.step == SWITCHED:
                raise switched_before(self._migration)
            self._journal(connection, TIMED_OUT, detail)

        self._transact(end)

    def set_plan_attempt(self, attempt: int) -> None:
        """Raise the plan's attempt; never lowers it."""
        self._execute(
            "UPDATE {migrations} SET plan_attempt = %s WHERE migration = %s AND plan_attempt < %s",
            (attempt, self._migration, attempt),
        )

    def tables(self) -> list[TableRow]:
        """All tables' rows."""

        def read(connection: Connection) -> list[TableRow]:
            rows = connection.execute(
                _sql(
                    "SELECT t.name, t.state, t.rows_estimate, coalesce(sum(c.copied), 0)::bigint, t.message"
                    " FROM {tables} AS t LEFT JOIN {chunks} AS c ON c.migration = t.migration AND c.tbl = t.name"
                    " WHERE t.migration = %s GROUP BY t.name, t.state, t.rows_estimate, t.message ORDER BY t.name"
                ),
                (self._migration,),
            ).fetchall()
            return [TableRow(*row) for row in rows]

        return self._transact(read)

    def add_tables(self, tables: Sequence[TableRow]) -> None:
        """Add rows for tables that have none."""
        statement = _sql(
            "INSERT INTO {tables} (migration, name, state, rows_estimate, message) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (migration, name) DO UPDATE SET rows_estimate = excluded.rows_estimate"
        )

        def add(connection: Connection) -> None:
            for table in tables:
                row = (self._migration, table.name, table.state, table.rows_estimate, table.message)
                connection.execute(statement, row)

        self._transact(add)

    def set_table(self, name: str, state: str, message: str = "") -> None:
        """Set a table's state."""
        self._execute(
            "UPDATE {tables} SET state = %s, message = %s WHERE migration = %s AND name = %s",
            (state, message[:4096], self._migration, name),
        )

    def settle_tables(self) -> None:
        """Set the state Copied for tables whose chunks are all planned and done."""
        statement = (
            "UPDATE {tables} AS t SET state = 'Copied' WHERE migration = %s AND state = 'Copying' AND NOT EXISTS"
            " (SELECT 1 FROM {chunks} AS c WHERE c.migration = t.migration AND c.tbl = t.name AND c.state <> 'done')"
        )
        self._execute(statement, (self._migration,))

    def claim_planning(self, index: int, attempt: int) -> str | None:
        """The name of a table whose chunks this worker is to plan, or None; a claim whose reply was lost is none."""

        def claim(connection: Connection) -> str | None:
            rows = connection.execute(
                _sql(
                    "SELECT name FROM {tables} WHERE migration = %s AND (state = 'Pending' OR state = 'Planning'"
                    " AND owner = %s AND owner_attempt <= %s) ORDER BY rows_estimate DESC, name LIMIT 1"
                ),
                (self._migration, index, attempt),
            ).fetchall()
            for (name,) in rows:
                cursor = connection.execute(
                    _sql(
                        "UPDATE {tables} SET state = 'Planning', owner = %s, owner_attempt = %s WHERE migration = %s"
                        " AND name = %s AND (state = 'Pending' OR state = 'Planning' AND owner = %s)"
                    ),
                    (index, attempt, self._migration, name, index),
                )
                if cursor.rowcount == 1:
                    return str(name)
                raise Conflict("somebody else plans that table", where=str(name))
            return None

        return self._transact(claim)

    def add_chunks(self, table: str, chunks: Sequence[Chunk], *, last: bool) -> None:
        """Add planned chunks; with `last` the table's planning is done."""

        def add(connection: Connection) -> None:
            chunk_rows.insert_chunks(connection, self._migration, chunks)
            if last:
                connection.execute(
                    _sql(
                        "UPDATE {tables} SET state = 'Copying' WHERE migration = %s AND name = %s"
                        " AND state = 'Planning'"
                    ),
                    (self._migration, table),
                )

        self._transact(add)

    def chunks(self, table: str) -> list[Chunk]:
        """A table's chunks in order."""
        return self._transact(lambda connection: chunk_rows.select_chunks(connection, self._migration, table))

    def claim_chunk(self, index: int, attempt: int) -> Chunk | None:
        """A chunk for this worker, or None when none is free now. Picked at random so that workers rarely collide."""

        def claim(connection: Connection) -> Chunk | None:
            free = chunk_rows.claimable(connection, self._migration, index, attempt, limit=16)
            if not free:
                return None
            chunk = random.choice(free)  # noqa: S311 - spreads claims, guards nothing
            if not chunk_rows.claim(connection, self._migration, chunk, index, attempt):
                raise Conflict("somebody else claimed that chunk", where=chunk.table)
            return chunk

        return self._transact(claim)

    def release(self, index: int, attempt: int) -> None:
        """Give back what earlier attempts of this index held."""

        def give_back(connection: Connection) -> None:
            chunk_rows.release(connection, self._migration, index, attempt)
            connection.execute(
                _sql(
                    "UPDATE {tables} SET state = 'Pending' WHERE migration = %s AND state = 'Planning' AND owner = %s"
                    " AND owner_attempt < %s"
                ),
                (self._migration, index, attempt),
            )

        self._transact(give_back)

    def release_lost(self, older_than_seconds: float) -> int:
        """Fence workers whose heartbeat is too old and give back what they held."""

        def release(connection: Connection) -> int:
            lost = connection.execute(
                _sql(
                    "SELECT idx, attempt FROM {workers} AS w WHERE migration = %s AND task = 'snapshot'"
                    " AND heartbeat < now() - %s * interval '1 second' AND (EXISTS (SELECT 1 FROM {chunks} AS c"
                    " WHERE c.migration = w.migration AND c.owner = w.idx AND c.state = 'claimed') OR EXISTS"
                    " (SELECT 1 FROM {tables} AS t WHERE t.migration = w.migration AND t.owner = w.idx"
                    " AND t.state = 'Planning'))"
                ),
                (self._migration, older_than_seconds),
            ).fetchall()
            return sum(self._fence_lost(connection, index, attempt) for index, attempt in lost)

        return self._transact(release)

    def unfinished_chunks(self) -> int:
        """Chunks and plannings that are not done, stopped tables apart."""
        statement = (
            "SELECT (SELECT count(*) FROM {chunks} AS c JOIN {tables} AS t ON t.migration = c.migration AND"
            " t.name = c.tbl WHERE c.migration = %(m)s AND c.state <> 'done' AND t.state <> 'Stopped')"
            " + (SELECT count(*) FROM {tables} WHERE migration = %(m)s AND state IN ('Pending', 'Planning'))"
        )
        return self._transact(
            lambda connection: int(connection.execute(_sql(statement), {"m": self._migration}).fetchall()[0][0])
        )

    def positions(self, task: str) -> dict[int, str]:
        """The positions of a task's control rows by index."""

        def read(connection: Connection) -> dict[int, str]:
            rows = connection.execute(
                _sql("SELECT idx, position FROM {workers} WHERE migration = %s AND task = %s"), (self._migration, task)
            ).fetchall()
            return dict(rows)

        return self._transact(read)

    def drop_positions(self, task: str, from_index: int) -> None:
        """Remove the control rows of a task from an index on: lanes that are no longer wanted."""
        self._execute(
            "DELETE FROM {workers} WHERE migration = %s AND task = %s AND idx >= %s",
            (self._migration, task, from_index),
        )

    def retire(self, kept: Sequence[str]) -> None:
        """Leave of the migration only a tombstone: its row, the newest journal entries `kept`, and `retired`."""
        retirement.clear_rows(self._transact, self._migration)
        retirement.drop_unneeded(self._connector, self._transact, self._migration)
        self._transact(lambda connection: self._bury(connection, kept))

    def _bury(self, connection: Connection, kept: Sequence[str]) -> None:
        retirement.bury(connection, self._migration, kept)
        self._journal(connection, "retired", "")

    def _fence_lost(self, connection: Connection, index: int, attempt: int) -> int:
        raised = connection.execute(
            _sql(
                "UPDATE {workers} SET attempt = attempt + 1 WHERE migration = %s AND task = 'snapshot'"
                " AND idx = %s AND attempt = %s"
            ),
            (self._migration, index, attempt),
        )
        if raised.rowcount != 1:
            return 0
        connection.execute(
            _sql("UPDATE {tables} SET state = 'Pending' WHERE migration = %s AND state = 'Planning' AND owner = %s"),
            (self._migration, index),
        )
        return chunk_rows.release(connection, self._migration, index, attempt + 1)

    def _register(self, connection: Connection, source_id: str) -> None:
        connection.execute(
            _sql(
                "INSERT INTO {migrations} (migration, version, source_id, epoch, plan_attempt, start_position,"
                " validated_through, created_at) VALUES (%s, %s, %s, 1, 1, '', '', now())"
                " ON CONFLICT (migration) DO UPDATE SET migration = excluded.migration"
            ),
            (self._migration, LAYOUT_VERSION, source_id),
        )
        found = self._one(connection, "SELECT source_id, version FROM {migrations} WHERE migration = %s")
        if found != (source_id, LAYOUT_VERSION):
            raise another_source(self._migration, found, source_id)

    def _record(self, connection: Connection) -> Record:
        there = tables_there(connection)
        if not there >= _TRUTH:
            return Record()
        found = connection.execute(
            _sql(
                "SELECT source_id, epoch, plan_attempt, start_position, validated_through FROM {migrations}"
                " WHERE migration = %s"
            ),
            (self._migration,),
        ).fetchone()
        if found is None:
            return Record()
        counted = "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM {chunks} WHERE migration = %s"
        total, done = self._one(connection, counted) if "chunks" in there else (0, 0)
        journal = self._journal_entries(connection)
        return Record(
            exists=True,
            source_id=found[0],
            epoch=found[1],
            plan_attempt=found[2],
            start_position=found[3],
            validated_through=found[4],
            snapshot_complete=any(entry.step == "snapshot-complete" for entry in journal),
            chunks_total=total,
            chunks_done=done,
            journal=journal,
            acknowledged=acknowledged(connection, self._migration),
        )

    def _journal_entries(self, connection: Connection) -> list[JournalEntry]:
        """The newest milestones in order; steps of which there may be many never crowd another out."""
        rows = connection.execute(
            _sql(
                "SELECT number, step, detail, recorded_at FROM {journal} WHERE migration = %s"
                f" AND {MILESTONES} ORDER BY step IN ({_REPEATED}), number DESC LIMIT %s"
            ),
            (self._migration, *REPEATED_STEPS, _JOURNAL_KEPT),
        ).fetchall()
        return [JournalEntry(step=step, detail=detail, recorded_at=at) for _, step, detail, at in sorted(rows)]

    def _journal(self, connection: Connection, step: str, detail: str) -> None:
        newest = connection.execute(
            _sql(
                "SELECT step, detail FROM {journal} WHERE migration = %s"
                f" AND {MILESTONES} ORDER BY number DESC LIMIT 1"
            ),
            (self._migration,),
        ).fetchone()
        if newest != (step, detail):
            add_entry(connection, self._migration, step, detail)

    def _one(self, connection: Connection, statement: str) -> tuple[Any, ...]:
        return connection.execute(_sql(statement), (self._migration,)).fetchall()[0]

    def _execute(self, statement: str, parameters: Sequence[object]) -> None:
        self._transact(lambda connection: connection.execute(_sql(statement), parameters))

    def _transact(self, work: Callable[[Connection], T]) -> T:
        return retrying(lambda: self._once(work), backoff=Backoff(attempts=20))

    def _once(self, work: Callable[[Connection], T]) -> T:
        try:
            connection = self._kept.get()
            with connection.transaction():
                return work(connection)
        except psycopg.Error as error:
            if error.sqlstate == "23505":
                raise Conflict("a control row was made at the same moment", where=self._migration) from None
            raise translate(error, self._connector.where) from None


def another_source(migration: str, found: tuple[Any, ...], source_id: str) -> ConfigurationError:
    """The error for a control row that belongs to another source, or to a layout of another version."""
    if found[1] != LAYOUT_VERSION:
        return ConfigurationError(
            "the target's control tables were made by another version of Whimbrel",
            where=migration,
            why=f"layout {found[1]} there, {LAYOUT_VERSION} here",
            todo="finish the migration with the version that began it",
        )
    return ConfigurationError(
        "the target already holds a migration of that name from another source",
        where=migration,
        why=f"its control tables belong to source {found[0]}, the manifest leads to {source_id}",
        todo="give the migration another name, or point spec.source at the server that it began with",
    )
