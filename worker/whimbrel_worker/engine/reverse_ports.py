"""What the engine asks of a log that flows back as changes of items, and of what keeps its position. No implementation.

Positions are numbers that grow with the log (PostgreSQL: LSN). What every log and target has in common stands in ports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from whimbrel_worker.engine.ports import Write

Key = tuple[bytes, ...]
"""A key's attributes as canonical JSON, the partition key first."""


@dataclass(frozen=True, slots=True)
class ItemsChanged:
    """What one change of a row does to items: key and whole item, None to delete. `commit`: its transaction's record.

    `at`: when that was committed, in seconds since 1970 by the source's clock.
    """

    table: str
    writes: Sequence[tuple[Key, bytes | None]]
    commit: int
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A change that cannot be carried, and why: it stops its table."""

    table: str
    reason: str
    commit: int


@dataclass(frozen=True, slots=True)
class Emptied:
    """A table was emptied as a whole, which names no items."""

    table: str
    commit: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat came back through the log."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """All of a transaction has come; `end` is the position behind it."""

    end: int


ReverseEvent = ItemsChanged | Refused | Emptied | Beat | Ended


class ReverseLog(Protocol):
    """The log after a position. For one thread; spent after any error."""

    def poll(self, timeout_seconds: float) -> Sequence[ReverseEvent]:
        """What has come, in log order; empty when the time passes. Raises Transient, SourceLogLost and more."""

    def acknowledge(self, end: int) -> None:
        """Let the source forget everything up to the end of this transaction, which has come. Safe to repeat."""

    def keep_alive(self) -> None:
        """Show that the reader lives; to be called every few seconds of other work."""

    def close(self) -> None:
        """End it; nothing is acknowledged by that."""


class Keeper(Protocol):
    """Writes items, then keeps a position; one control row fences it."""

    alive: Callable[[], None]
    """Called every few seconds of a long write, in the thread that writes."""

    def commit(self, writes: Sequence[Write], *, position: str | None = None) -> None:
        """Items first, then the position. Raises FencedOut, Incompatible (naming the table) or Transient."""

    def prove(self) -> None:
        """See that the control row is still held. Raises FencedOut otherwise."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How far the target is. `applied`: the end of the last transaction that was applied, tables `behind` apart.

    Those were stopped and stand at positions of their own. `owner` and `log` say whose position it is, and in which
    log: of another one it means nothing.
    """

    owner: str
    log: str
    applied: int
    behind: Mapping[str, int] = field(default_factory=dict)

    @property
    def floor(self) -> int:
        """Everything up to here is in the target; what comes after it is needed from the log."""
        return min((self.applied, *self.behind.values()))


@dataclass(frozen=True, slots=True)
class SlotState:
    """What holds the log back, as the source reports it; sizes in bytes, None where it tells none."""

    name: str
    active: bool
    wal_status: str
    retained_bytes: int | None
    end: int
