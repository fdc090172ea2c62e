"""The control store of one migration on a DynamoDB target: conditional updates of single rows, repeated until settled.

The conditions alone guard, never a read. What the rows of workers, chunks, shards and the journal look like stands in
worker_rows, chunks, shard_store, journal and acknowledgements; how the epoch is raised in epochs.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from whimbrel_api.acknowledgements import Acknowledgement
from whimbrel_api.reports import Record
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.control import acknowledgements, epochs, journal, retirement, worker_rows
from whimbrel_worker.endpoints.dynamodb.control import chunks as chunk_rows
from whimbrel_worker.endpoints.dynamodb.control.chunks import ChunkBook, Tallied
from whimbrel_worker.endpoints.dynamodb.control.control_rows import NO_TABLE, ControlTable, Entry, Value
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import MIGRATION, WORKERS
from whimbrel_worker.engine.ports import Chunk, TableRow
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import ConfigurationError, Conflict

T = TypeVar("T")
LAYOUT_VERSION: Final = 1
_TABLES: Final = "table#"
_SNAPSHOT: Final = f"{WORKERS}snapshot#"
_MAY_HOLD_CHUNKS: Final = frozenset({"Planning", "Copying"})


class DynamoDBControlStore:
    """Implements ports.ControlStore over one DynamoDB table."""

    def __init__(self, control: ControlTable) -> None:
        self._control, self._migration = control, control.migration
        self._book = ChunkBook(control)

    def ensure(self) -> None:
        """Make the control table if it is missing."""
        self._retried(self._control.ensure)

    def register(self, source_id: str) -> Record:
        """Register the migration (epoch 1) or resume it."""
        self._retried(lambda: self._register(source_id))
        self.journal_once("started")
        return self.record()

    def record(self) -> Record:
        """What the control table says."""
        return self._retried(self._record)

    def fix_start_position(self, position: str) -> str:
        """Keep the position from before the first read; the first caller's stays."""
        expression = "SET #startPosition = if_not_exists(#startPosition, :position)"
        return self._migration_row(expression, position=position).text("startPosition")

    def restart(self, position: str) -> None:
        """Begin anew at a position, instead of that from before the first read: nothing older is needed any more."""
        self._migration_row("SET #startPosition = :position", position=position)

    def journal(self, step: str, detail: str = "") -> None:
        """Write a step into the journal unless it is the newest already."""
        self._retried(lambda: journal.write(self._control, step, detail))

    def acknowledge(self, told: Acknowledgement) -> Acknowledgement:
        """Write a proven step unless the table holds the same; the one that it holds."""
        return self._retried(lambda: acknowledgements.acknowledge(self._control, told))

    def journal_once(self, step: str, detail: str = "") -> None:
        """Write a step into the journal unless it holds that step at all."""

        def write() -> None:
            if all(entry.step != step for entry in journal.read_journal(self._control)):
                journal.write(self._control, step, detail)

        self._retried(write)

    def raise_epoch(self, step: str, detail: str) -> int:
        """Raise the epoch in all rows and journal why. Repeating the newest step raises nothing."""
        return self._retried(lambda: epochs.raise_epoch(self._control, step, detail))

    def conclude(self, step: str, detail: str, *, epoch: int, attempt: int) -> None:
        """Raise the epoch from this one and journal why, unless it or the plan's attempt was raised before."""
        self._retried(lambda: epochs.conclude(self._control, step, detail, epoch, attempt))

    def give_up(self, attempt: int, detail: str) -> None:
        """Raise the plan's attempt and journal `timed-out`. Raises FencedOut where the traffic has moved."""
        self._retried(lambda: epochs.give_up(self._control, attempt, detail))

    def set_plan_attempt(self, attempt: int) -> None:
        """Raise the plan's attempt; never lowers it. A raise that is under way is finished before that."""
        self._retried(lambda: epochs.set_plan_attempt(self._control, attempt))

    # --- tables ---

    def tables(self) -> list[TableRow]:
        """All tables' rows."""
        return self._retried(lambda: [self._table_row(entry) for entry in self._control.entries(_TABLES)])

    def add_tables(self, tables: Sequence[TableRow]) -> None:
        """Add rows for tables that have none."""
        for table in tables:
            self._update(
                f"{_TABLES}{table.name}",
                "SET #name = :name, #rowsEstimate = :rows, #state = if_not_exists(#state, :state),"
                " #message = if_not_exists(#message, :message)",
                values={"name": table.name, "rows": table.rows_estimate, "state": table.state,
                        "message": table.message},
            )  # fmt: skip

    def set_table(self, name: str, state: str, message: str = "") -> None:
        """Set a table's state."""
        self._update(
            f"{_TABLES}{name}",
            "SET #state = :state, #message = :message",
            where="attribute_exists(#state)",
            values={"state": state, "message": message[:4096]},
        )

    def settle_tables(self) -> None:
        """Set the state Copied for tables whose chunks are all planned and done, and keep their figures."""
        for entry in self._retried(lambda: list(self._control.entries(_TABLES))):
            if entry.text("state") != "Copying":
                continue
            if self._retried(partial(self._book.finished, entry.text("name"), entry.number("planned"))):
                figures = self._retried(partial(self._figures, entry))
                self._update(
                    entry.key,
                    "SET #state = :copied, #chunks = :chunks, #rowsCopied = :rows",
                    where="#state = :copying",
                    values={"copied": "Copied", "copying": "Copying", "chunks": figures.total, "rows": figures.copied},
                )

    # --- planning ---

    def claim_planning(self, index: int, attempt: int) -> str | None:
        """The name of a table whose chunks this worker is to plan, or None; a claim whose reply was lost is none."""
        return self._retried(lambda: self._claim_planning(index, attempt))

    def add_chunks(self, table: str, chunks: Sequence[Chunk], *, last: bool) -> None:
        """Add planned chunks; with `last` the table's planning is done and their number is kept."""
        self._retried(lambda: chunk_rows.insert_chunks(self._control, chunks))
        if last:
            number = (
                chunks[-1].number + 1 if chunks else self._retried(lambda: chunk_rows.planned(self._control, table))
            )
            self._update(
                f"{_TABLES}{table}",
                "SET #state = :copying, #planned = :number",
                where="#state = :planning",
                values={"copying": "Copying", "planning": "Planning", "number": number},
            )

    def chunks(self, table: str) -> list[Chunk]:
        """A table's chunks in order."""
        prefix = chunk_rows.chunk_prefix(table)
        return self._retried(lambda: [chunk_rows.chunk_of(entry) for entry in self._control.entries(prefix)])

    def claim_chunk(self, index: int, attempt: int) -> Chunk | None:
        """A chunk for this worker, or None when none is free now. Picked at random so that workers rarely collide."""
        return self._retried(lambda: self._claim_chunk(index, attempt))

    def release(self, index: int, attempt: int) -> None:
        """Give back what earlier attempts of this index held."""
        self._retried(lambda: self._release(index, attempt))

    def release_lost(self, older_than_seconds: float) -> int:
        """Fence workers whose heartbeat is too old, by the endpoint's clock, and give back what they held."""
        return self._retried(lambda: self._release_lost(older_than_seconds))

    def unfinished_chunks(self) -> int:
        """Chunks and plannings that are not done, stopped tables apart."""

        def count() -> int:
            return sum(self._left_of(entry) for entry in self._control.entries(_TABLES))

        return self._retried(count)

    # --- positions ---

    def positions(self, task: str) -> dict[int, str]:
        """The positions of a task's control rows by index."""
        rows = self._retried(lambda: list(self._control.entries(f"{WORKERS}{task}#")))
        return {worker_rows.index_of(row.key): row.text("position") for row in rows if not row.has("dropped")}

    def drop_positions(self, task: str, from_index: int) -> None:
        """Take the control rows of a task out of use from an index on: workers that are no longer wanted."""
        start = worker_rows.worker_entry(task, from_index)
        for row in self._retried(lambda: list(self._control.entries(f"{WORKERS}{task}#", start=start))):
            if not row.has("dropped"):
                self._retried(partial(worker_rows.drop_row, self._control, row.key))

    def retire(self, kept: Sequence[str]) -> None:
        """Leave of the migration only a tombstone: its row, the newest journal entries `kept`, and `retired`."""
        self._retried(lambda: retirement.retire(self._control, kept))

    # --- inside ---

    def _register(self, source_id: str) -> None:
        row = self._migration_row(
            "SET #version = if_not_exists(#version, :version), #sourceId = if_not_exists(#sourceId, :source),"
            " #epoch = if_not_exists(#epoch, :one), #planAttempt = if_not_exists(#planAttempt, :one),"
            " #createdAt = if_not_exists(#createdAt, :now)",
            version=LAYOUT_VERSION, source=source_id, one=1, now=self._control.clock(),
        )  # fmt: skip
        if (row.text("sourceId"), row.number("version")) != (source_id, LAYOUT_VERSION):
            raise another_source(row, source_id)

    def _record(self) -> Record:
        try:
            row = self._control.get(MIGRATION)
        except Refused as refusal:
            if refusal.code != NO_TABLE:
                raise
            return Record()
        if row is None or not row.has("sourceId"):
            return Record()
        figures = [self._figures(entry) for entry in self._control.entries(_TABLES)]
        steps = journal.read_journal(self._control)
        return Record(
            exists=True,
            source_id=row.text("sourceId"),
            epoch=row.number("epoch"),
            plan_attempt=row.number("planAttempt", 1),
            start_position=row.text("startPosition"),
            validated_through=row.text("validatedThrough"),
            snapshot_complete=any(entry.step == "snapshot-complete" for entry in steps),
            chunks_total=sum(table.total for table in figures),
            chunks_done=sum(table.done for table in figures),
            journal=steps,
            acknowledged=acknowledgements.acknowledged(self._control),
        )

    def _table_row(self, entry: Entry) -> TableRow:
        return TableRow(
            entry.text("name"),
            entry.text("state"),
            entry.number("rowsEstimate"),
            self._figures(entry).copied,
            entry.text("message"),
        )

    def _figures(self, entry: Entry) -> Tallied:
        """A table's chunks in figures: kept ones once it is copied, so that they need not be read for ever."""
        if entry.has("chunks"):
            return Tallied(entry.number("chunks"), entry.number("chunks"), entry.number("rowsCopied"))
        if entry.text("state") == "Pending":
            return Tallied(0, 0, 0)
        return self._book.tallied(entry.text("name"), entry.number("planned"))

    def _left_of(self, entry: Entry) -> int:
        """How much keeps a table from being copied; a chunk that was planned and is not seen counts as not done."""
        state = entry.text("state")
        if entry.has("chunks") or state not in {"Pending", *_MAY_HOLD_CHUNKS}:
            return 0
        found = self._figures(entry)
        if state == "Copying":
            return found.total - found.done
        return 1 + found.total - found.done

    def _claim_planning(self, index: int, attempt: int) -> str | None:
        entries = [entry for entry in self._control.entries(_TABLES) if _plannable(entry, index, attempt)]
        if not entries:
            return None
        chosen = min(entries, key=lambda entry: (-entry.number("rowsEstimate"), entry.text("name")))
        claimed = self._control.update(
            chosen.key,
            "SET #state = :planning, #owner = :index, #ownerAttempt = :attempt",
            where="#state = :pending OR (#state = :planning AND #owner = :index)",
            values={"planning": "Planning", "pending": "Pending", "index": index, "attempt": attempt},
        )
        if claimed is None:
            raise Conflict("somebody else plans that table", where=chosen.text("name"))
        return chosen.text("name")

    def _claim_chunk(self, index: int, attempt: int) -> Chunk | None:
        free: list[Entry] = []
        for entry in self._control.entries(_TABLES):
            if entry.text("state") in _MAY_HOLD_CHUNKS:
                free += self._book.claimable(entry.text("name"), index, attempt)
        if not free:
            return None
        chosen = random.choice(free[:16])  # noqa: S311 - spreads claims, guards nothing
        chunk = chunk_rows.claim(self._control, chosen, index, attempt)
        if chunk is None:
            raise Conflict("somebody else claimed that chunk", where=chosen.text("table"))
        return chunk

    def _release(self, index: int, before_attempt: int) -> int:
        """Give back what attempts of this index before this one held. Returns how many chunks."""
        released = 0
        for entry in self._control.entries(_TABLES):
            if entry.text("state") == "Planning" and _held_by(entry, index) < before_attempt:
                self._give_planning_back(entry, index, before_attempt)
            if entry.text("state") != "Pending" and not entry.has("chunks"):
                held = self._book.held(entry.text("name"), index, before_attempt)
                released += sum(chunk_rows.give_back(self._control, chunk, index, before_attempt) for chunk in held)
        return released

    def _give_planning_back(self, entry: Entry, index: int, before_attempt: int) -> None:
        self._control.update(
            entry.key,
            "SET #state = :pending",
            where="#state = :planning AND #owner = :index AND #ownerAttempt < :before",
            values={"pending": "Pending", "planning": "Planning", "index": index, "before": before_attempt},
        )

    def _release_lost(self, older_than_seconds: float) -> int:
        before = self._control.clock() - older_than_seconds
        silent = [row for row in self._control.entries(_SNAPSHOT) if row.seconds("heartbeat") < before]
        holders = self._holders() if silent else frozenset()
        lost = [row for row in silent if worker_rows.index_of(row.key) in holders]
        return sum(self._fence_lost(row) for row in lost)

    def _fence_lost(self, row: Entry) -> int:
        if not worker_rows.fence_lost(self._control, row):
            return 0
        return self._release(worker_rows.index_of(row.key), row.number("attempt") + 1)

    def _holders(self) -> frozenset[int]:
        """Indexes of workers that hold a chunk or a planning."""
        holders: set[int] = set()
        for entry in self._control.entries(_TABLES):
            if entry.text("state") == "Planning":
                holders.add(entry.number("owner", -1))
            if entry.text("state") != "Pending" and not entry.has("chunks"):
                chunks = self._book.touched(entry.text("name"))
                holders |= {chunk.number("owner", -1) for chunk in chunks if chunk.text("state") == chunk_rows.CLAIMED}
        return frozenset(holders)

    def _migration_row(self, expression: str, **values: Value) -> Entry:
        row = self._update(MIGRATION, expression, values=values)
        if row is None:
            raise ConfigurationError("the target holds no migration of that name", where=self._migration)
        return row

    def _update(self, entry: str, expression: str, *, where: str = "", values: Mapping[str, Value]) -> Entry | None:
        return self._retried(lambda: self._control.update(entry, expression, where=where, values=values))

    @staticmethod
    def _retried(action: Callable[[], T]) -> T:
        return retrying(action, backoff=Backoff(attempts=20))


def _plannable(entry: Entry, index: int, attempt: int) -> bool:
    state = entry.text("state")
    return state == "Pending" or (state == "Planning" and _held_by(entry, index) <= attempt)


def _held_by(entry: Entry, index: int) -> float:
    """The attempt of this index that holds a planning; greater than any other where it is somebody else's."""
    return entry.number("ownerAttempt") if entry.number("owner", -1) == index else float("inf")


def another_source(row: Entry, source_id: str) -> ConfigurationError:
    """The error for a control row that belongs to another source, or to a layout of another version."""
    if row.number("version") != LAYOUT_VERSION:
        return ConfigurationError(
            "the target's control table was made by another version of Whimbrel",
            where=row.text("migration"),
            why=f"layout {row.number('version')} there, {LAYOUT_VERSION} here",
            todo="finish the migration with the version that began it",
        )
    return ConfigurationError(
        "the target already holds a migration of that name from another source",
        where=row.text("migration"),
        why=f"its control rows belong to source {row.text('sourceId')}, the manifest leads to {source_id}",
        todo="give the migration another name, or point spec.source at the service that it began with",
    )
