"""What the engine asks of a change log that is divided into shards, and of the store of its positions.

No implementation here. What every log and target has in common stands in ports.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from whimbrel_worker.engine.ports import Problem, Source, Target, Write
from whimbrel_worker.values.columns import Row, Table

BEGINNING = ""
"""The position before a shard's first record that is still kept."""
FROM_HERE = "@"
"""Before a sequence number in a position: from that record on, itself included; it is not in the target yet."""


@dataclass(frozen=True, slots=True, order=True)
class ShardRef:
    """One shard of one table's stream; `stream` is the ARN, so that a stream made anew is another one."""

    table: str
    stream: str
    shard: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the source lists it. `parent` is empty where it has none. `closed`: nothing is added any more.

    `adjacent`: the second parent of a shard into which two were merged.
    """

    ref: ShardRef
    parent: str = ""
    closed: bool = False
    adjacent: str = ""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One record: `after` is the whole new image as a row of the table, None for a removal; `key` the key's cells.

    `sequence` is a decimal of any length. `at`: seconds since 1970, source clock. `by_ttl`: the service deleted it.
    """

    sequence: str
    key: Row
    after: Row | None
    at: float
    by_ttl: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What one request gave. `asked_at`: source clock when it was made. `ended`: the shard is closed and read.

    `proven`: everything created before this moment is in this page or in one before it, as the log itself proves; 0 for
    nothing; None where the log proves it by the order of its records. `behind`: the log says that there is more to
    read, so that an empty page says nothing of quiet. `position`: the last record of the table in this page where that
    is not the last change, because records were left out; else empty.
    """

    changes: Sequence[ItemChange]
    asked_at: float
    ended: bool = False
    proven: float | None = None
    behind: bool = False
    position: str = ""


class ShardState(StrEnum):
    """How far a shard is. A child is read only once its parents are Done."""

    PENDING = "Pending"
    READING = "Reading"
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard in the control table, the truth of how far it is.

    `position`: the sequence number of the last record that is in the target; BEGINNING for none yet; FROM_HERE and a
    sequence number where the first record that is needed is known and the one before it is not. `skip_before`:
    where the position is BEGINNING, records older than this (seconds since 1970, source clock) were in the table
    before the first read and need not be applied; 0 for none. `read_to`: everything created before this moment is
    proven to be in the target; 0 where nothing is. `quiet_since`: since when every page was empty, once there were
    enough of them; else 0. `asked_at`: when the newest page was asked for that is in the target, empty or not; both
    on the source's clock. `owner` and `attempt` say which worker reads it; -1 for nobody. `beat_at`: when its owner
    last wrote, target or worker clock in seconds since 1970. `changes`: records applied. `adjacent`: see Shard.
    """

    ref: ShardRef
    parent: str = ""
    state: ShardState = ShardState.PENDING
    position: str = BEGINNING
    skip_before: float = 0.0
    read_to: float = 0.0
    quiet_since: float = 0.0
    asked_at: float = 0.0
    last_change_at: float = 0.0
    changes: int = 0
    owner: int = -1
    attempt: int = 0
    beat_at: float = 0.0
    adjacent: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """The worker that holds shards: its index in the stream task, and the attempt it took."""

    index: int
    attempt: int


NOBODY = Holder(-1, 0)
"""A shard claimed for nobody is given back."""


class ShardStore(Protocol):
    """The shards of one migration in the target's control table; each call is safe to repeat and to race."""

    def add(self, rows: Sequence[ShardRow]) -> None:
        """Add shards that are not there yet; what is there stays as it is."""

    def all(self) -> list[ShardRow]:
        """All shards of all tables."""

    def claim(self, row: ShardRow, holder: Holder) -> bool:
        """Take a shard that is as `row` says (owner, attempt and position compared). False: somebody else was first."""

    def commit(self, row: ShardRow, holder: Holder) -> None:
        """Write position, state and figures of a held shard. Raises FencedOut when it is held by another."""

    def release(self, holder: Holder) -> None:
        """Give back all that this worker holds, or held in an earlier attempt."""

    def release_lost(self, older_than_seconds: float) -> int:
        """Give back the shards whose owner has not written for so long. Returns how many."""

    def keep_tips(self, name: str, tips: Mapping[ShardRef, str]) -> None:
        """Keep positions of shards under a name, for a drain."""

    def tips(self, name: str) -> Mapping[ShardRef, str] | None:
        """What was kept under that name; None for nothing."""


class ItemWriter(Protocol):
    """Writes items without a control row; whoever calls it commits a position afterwards."""

    def write(self, writes: Sequence[Write], proof: Callable[[], float] | None = None) -> None:
        """All of it is in the target when this returns. Raises Incompatible (naming the table) or Transient.

        `proof` is called first and every few seconds: it sees that the caller may still write, and says when that was
        asked for (monotonic clock); what it raises ends the writing.
        """


class ShardReader(Protocol):
    """What following shards asks of a source; the members are those of ShardedSource."""

    def clock(self) -> float:
        """The source's clock now, in seconds since 1970."""

    def moment(self, at: float) -> str:
        """The position "everything created before this moment"."""

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """The wanted tables, and all problems."""

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now."""

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position."""


class ShardTaker(Protocol):
    """What following shards asks of a target; the members are those of ShardedTarget."""

    def shards(self) -> ShardStore:
        """The shards in the control table."""

    def writer(self) -> ItemWriter:
        """Writes items."""


class ShardedSource(Source, Protocol):
    """A source whose change log is divided into shards, one stream a table."""

    def moment(self, at: float) -> str:
        """The position "everything created before this moment"; seconds since 1970, source clock."""

    def prepare_streams(self, tables: Sequence[Table], before: Callable[[Sequence[str]], None]) -> list[str]:
        """Enable streams where they are missing, wait until they are active. Returns the tables that had none.

        `before` is told their names first, so that it is written down who enabled them.
        """

    def restore_streams(self, tables: Sequence[str]) -> None:
        """Disable the streams of these tables again."""

    def capture(self, tables: Sequence[Table]) -> list[ShardRow]:
        """All shards of the tables' streams with positions not after this moment; before the first read."""

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now. Raises SourceLogLost when there is no stream any more."""

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position, one a request, for ever until `ended`; renews what expires.

        The caller decides how fast to go on. Raises SourceLogLost, with the gap, when records were trimmed unread.
        """


class ShardedTarget(Target, Protocol):
    """A target that keeps the positions of shards."""

    def shards(self) -> ShardStore:
        """The shards in the control table."""

    def writer(self) -> ItemWriter:
        """Writes items."""


class ShardedEnds(Protocol):
    """Both ends of a migration whose log is divided into shards."""

    @property
    def source(self) -> ShardedSource:
        """Where the changes come from."""

    @property
    def target(self) -> ShardedTarget:
        """Where they go."""
