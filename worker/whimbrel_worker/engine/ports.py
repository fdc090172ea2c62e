"""What the engine asks of an endpoint: sources, change logs, targets and their control store. No implementation here.

Endpoints implement these protocols; tasks put a pair together; the engine knows nothing else of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from whimbrel_api.acknowledgements import Acknowledgement
from whimbrel_api.reports import Record
from whimbrel_worker.values.columns import Cell, Row, Table


@dataclass(frozen=True, slots=True)
class Upsert:
    """Rows that must stand in the target as they are here, whether they were there or not. No key twice."""

    table: Table
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows that are not in the target yet; may take a faster path than Upsert."""

    table: Table
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Delete:
    """Keys (cells in the key's order) that must not stand in the target; absent ones are fine."""

    table: Table
    keys: Sequence[Row]


Write = Upsert | Insert | Delete


@dataclass(frozen=True, slots=True)
class Profile:
    """What a target allows. Rows count data rows; two more are left for control rows. Bytes are of text parameters."""

    name: str
    rows_per_transaction: int
    bytes_per_transaction: int
    connection_max_age: float
    """Seconds after which a connection is retired."""
    single_ddl: bool
    """One DDL statement a transaction, never with DML; indexes are made asynchronously."""
    column_limit: int = 1600
    unindexable: frozenset[str] = frozenset()
    """Target types that cannot be part of a key."""
    administrators: frozenset[str] = frozenset()
    """Roles that may write whatever is granted, beside superusers."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which control row a session holds."""

    migration: str
    task: str
    index: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A half-open key range (low, high] of one table in the source's key order; empty bounds are open.

    Bounds and `resume_after` are key cells as text; `number` orders the chunks of a table.
    """

    table: str
    number: int
    low: tuple[str, ...] | None
    high: tuple[str, ...] | None
    resume_after: tuple[str, ...] | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class ChunkProgress:
    """What a transaction adds to a chunk that this worker holds."""

    chunk: Chunk
    resume_after: tuple[str, ...] | None
    rows: int
    """Rows of the chunk in the target after this transaction."""
    done: bool


@dataclass(slots=True)
class Tally:
    """What sessions did, for the report."""

    rows: int = 0
    bytes: int = 0
    transactions: int = 0
    retries: int = 0
    conflicts: int = 0
    connections: int = 0
    throttled: int = 0
    """How many of the retries a server asked for to be called less often."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A table's row in the control tables. States: Pending, Planning, Copying, Copied, Stopped."""

    name: str
    state: str
    rows_estimate: int = 0
    rows_copied: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class SessionState:
    """A control row as it was taken."""

    epoch: int
    attempt: int
    position: str = ""


class Session(Protocol):
    """One connection of a worker and the one control row that every transaction on it updates."""

    tally: Tally

    def take(self) -> SessionState:
        """Take the row as (epoch, attempt + 1). Raises FencedOut when the epoch is no longer the task's."""

    def commit(
        self, writes: Sequence[Write], *, position: str | None = None, progress: ChunkProgress | None = None
    ) -> None:
        """Write all of it with the control row in one transaction, exactly once, retrying conflicts and lost replies.

        Raises FencedOut, Incompatible (naming the table) or, when retries are used up, Transient.
        """

    def close(self) -> None:
        """Close the connection; the row stays."""


class ControlStore(Protocol):
    """The control tables of one migration in the target; each call is a transaction of its own, conflicts retried."""

    def ensure(self) -> None:
        """Make what is missing of the control schema. Safe to repeat and to race."""

    def register(self, source_id: str) -> Record:
        """Register the migration (epoch 1) or resume it. Raises ConfigurationError when the source is another one."""

    def record(self) -> Record:
        """What the control tables say; `exists` is false where there are none."""

    def fix_start_position(self, position: str) -> str:
        """Keep the position from before the first read; the first caller's stays. Returns the one that counts."""

    def journal(self, step: str, detail: str = "") -> None:
        """Write a step into the journal unless it is the newest milestone already."""

    def acknowledge(self, told: Acknowledgement) -> Acknowledgement:
        """Write a proven step into the journal unless it holds one of the same step, attempt and position.

        Returns the one that it holds. These are no milestones: they neither repeat one nor crowd one out.
        """

    def raise_epoch(self, step: str, detail: str) -> int:
        """Raise the epoch in all rows and journal why. Returns the new epoch."""

    def conclude(self, step: str, detail: str, *, epoch: int, attempt: int) -> None:
        """Raise the epoch from this one and journal why, unless it or the plan's attempt was raised before.

        Of several calls with one epoch only one's step is journalled; which one, the record tells. `attempt` 0: of any.
        """

    def give_up(self, attempt: int, detail: str) -> None:
        """Raise the plan's attempt and journal `timed-out`. Nothing of an attempt before is concluded after that.

        Raises FencedOut where the traffic has moved to the target: then there is nothing to give up.
        """

    def set_plan_attempt(self, attempt: int) -> None:
        """Raise the plan's attempt; never lowers it. What is being concluded then is in the journal afterwards."""

    def tables(self) -> list[TableRow]:
        """All tables' rows."""

    def add_tables(self, tables: Sequence[TableRow]) -> None:
        """Add rows for tables that have none."""

    def set_table(self, name: str, state: str, message: str = "") -> None:
        """Set a table's state."""

    def settle_tables(self) -> None:
        """Set the state Copied for tables whose chunks are all planned and done."""

    def claim_planning(self, index: int, attempt: int) -> str | None:
        """The name of a table whose chunks this worker is to plan, or None."""

    def add_chunks(self, table: str, chunks: Sequence[Chunk], *, last: bool) -> None:
        """Add planned chunks; with `last` the table's planning is done."""

    def chunks(self, table: str) -> list[Chunk]:
        """A table's chunks in order."""

    def claim_chunk(self, index: int, attempt: int) -> Chunk | None:
        """A chunk for this worker, or None when none is free now."""

    def release(self, index: int, attempt: int) -> None:
        """Give back what earlier attempts of this index held."""

    def release_lost(self, older_than_seconds: float) -> int:
        """Fence workers whose heartbeat is too old and give back their chunks. Returns how many chunks came back."""

    def unfinished_chunks(self) -> int:
        """Chunks and plannings that are not done, stopped tables apart."""

    def positions(self, task: str) -> dict[int, str]:
        """The positions of a task's control rows by index."""

    def drop_positions(self, task: str, from_index: int) -> None:
        """Remove a task's control rows from this index on; who holds one is fenced out."""

    def retire(self, kept: Sequence[str]) -> None:
        """Remove what is kept of a migration that is over, but for a tombstone; safe to repeat.

        The tombstone is its identity and epoch, the newest journal entry of each of these steps, and last of all the
        entry `retired`: by it a later preflight knows that the target is live.
        """


class TargetReader(Protocol):
    """Reads the target for a comparison, in one steady session. Cells come as text, like a snapshot's."""

    def range(self, table: Table, low: Row | None, high: Row | None) -> Iterator[Sequence[Row]]:
        """Rows of (low, high] ordered by key, in batches."""

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""

    def keys_after(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """The next keys in the target's own order."""

    def segment_keys(self, table: Table, index: int, total: int) -> Iterator[Sequence[Row]]:
        """All keys of segment `index` of `total` of a table of items, in batches. The segments hold each key once.

        Raises ConfigurationError where the target has no segments; there keys_after serves.
        """

    def count(self, table: Table) -> int:
        """How many rows there are now."""


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """A column as the target has it; `type` as format_type() prints it."""

    name: str
    type: str
    nullable: bool


class TargetSchema(Protocol):
    """Reads and makes the target's tables."""

    def mismatches(self, table: Table) -> "list[Problem] | None":
        """What keeps the target's table from taking the rows, and warnings; None when there is no such table."""

    def has_rows(self, table: Table) -> bool:
        """Whether the target's table holds a row."""

    def create(self, table: Table) -> None:
        """Make schema and table if missing, without secondary indexes."""

    def create_indexes(self, table: Table) -> None:
        """Make the secondary indexes that are missing and wait for them."""


class Target(Protocol):
    """A target system for one migration."""

    profile: Profile
    tally: Tally

    def check_sign_in(self) -> str:
        """Connect and return the server's version. Raises ConfigurationError or Transient with what to do."""

    def probe_write_path(self) -> str:
        """`copy`, `unnest` or `values`: the fastest way of writing that this server takes. Needs `ensure`d control."""

    def control(self) -> ControlStore:
        """The control tables."""

    def schema(self) -> TargetSchema:
        """The tables."""

    def session(self, task: str, index: int) -> Session:
        """A connection with a control row for a task's worker or lane."""

    def reader(self) -> AbstractContextManager[TargetReader]:
        """A reading session."""


class SourceReader(Protocol):
    """Reads rows of the source in key order, cells as text."""

    def rows(
        self, table: Table, low: tuple[str, ...] | None, high: tuple[str, ...] | None, batch: int
    ) -> Iterator[Sequence[Row]]:
        """Rows of (low, high] ordered by key, in batches."""

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""

    def boundary(self, table: Table, after: tuple[str, ...] | None, rows: int) -> tuple[str, ...] | None:
        """The key of the row `rows` further on, or None when fewer are left."""

    def count(self, table: Table) -> int:
        """How many rows there are now."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the pre-flight found. Fatal ones stop the migration, the others are carried as warnings."""

    what: str
    where: str = ""
    why: str = ""
    todo: str = ""
    fatal: bool = True


class Source(Protocol):
    """A source system."""

    def check(self) -> list[Problem]:
        """Settings, privileges and versions, each problem with its remedy. Raises when the server cannot be reached."""

    def identity(self) -> str:
        """What tells this server from every other (MySQL: server_uuid)."""

    def version(self) -> str:
        """The server's version."""

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """The wanted tables, and what is wrong with those that cannot be carried."""

    def position(self) -> str:
        """The change log's position now: all commits up to here."""

    def clock(self) -> float:
        """The source's own clock now, in seconds since 1970."""

    def covers(self, position: str, other: str) -> bool:
        """Whether `position` holds all that `other` does."""

    def least(self, positions: Sequence[str]) -> str:
        """The greatest position that every one of these holds."""

    def check_log(self, since: str) -> None:
        """Raise SourceLogLost unless the change log still has everything after a position."""

    def retention(self) -> float | None:
        """For how many seconds at least the log keeps a change after it was made; None where time takes none away."""

    def reader(self) -> AbstractContextManager[SourceReader]:
        """A reading session."""

    def changes(self, since: str, tables: Sequence[Table]) -> "ChangeLog":
        """The changes after a position. Raises SourceLogLost when they are gone."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row change: before is None for an insert, after for a delete. Cells in the order of `table.columns`."""

    table: Table
    before: tuple[Cell, ...] | None
    after: tuple[Cell, ...] | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Some changes of one source transaction to one table, in order."""

    table: Table
    rows: list[tuple[tuple[Cell, ...] | None, tuple[Cell, ...] | None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Begin:
    """A source transaction starts. `committed_at` is its commit time in seconds since the epoch, source clock."""

    transaction: str
    committed_at: float


@dataclass(frozen=True, slots=True)
class End:
    """The transaction's last event has been seen: after it the position may move."""

    transaction: str


@dataclass(frozen=True, slots=True)
class StoppedTable:
    """From here on this table's changes cannot be carried, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Idle:
    """The server has said that there is nothing more to send."""


Event = Begin | Changes | End | StoppedTable | Idle


class ChangeLog(Protocol):
    """The source's change log from a position on."""

    def __iter__(self) -> Iterator[Event]:
        """Events in log order; ends only by an error or `close` from another thread."""

    def close(self) -> None:
        """Make the iteration end; safe from another thread."""

    def tracker(self, position: str) -> "PositionTracker":
        """A tracker that starts at a position."""


class PositionTracker(Protocol):
    """Adds transactions to a position as they complete; cheap for a million of them."""

    def add(self, transaction: str) -> None:
        """The transaction is part of the position now."""

    def contains(self, transaction: str) -> bool:
        """Whether it is already."""

    def __str__(self) -> str:
        """The position as text."""
