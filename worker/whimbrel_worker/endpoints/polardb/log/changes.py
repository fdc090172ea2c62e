"""Turns decoded messages into what happened to rows, transaction by transaction. Pure; drops what was applied before.

A server sends a transaction only once it is committed, so its rows may be applied as they come; what may be
acknowledged is the end of its commit alone. After a crash a slot sends transactions again: one whose commit record
starts before the position (the end of the last commit that is applied) is part of what is applied.
"""

from dataclasses import dataclass, field

from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn
from whimbrel_worker.endpoints.polardb.log.messages import (
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    OldRow,
    Relation,
    Truncate,
    Update,
    Values,
)
from whimbrel_worker.endpoints.polardb.log.pgoutput import refuse


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row. `new` is None where it went; `old` is what the log holds of it before. `at`: commit, µs since 1970.

    `commit_lsn`: where the commit record of its transaction starts.
    """

    relation: Relation
    old: OldRow | None
    new: Values | None
    at: int
    commit_lsn: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Truncated:
    """Tables emptied by TRUNCATE. `commit_lsn`: where the commit record of its transaction starts."""

    relations: tuple[Relation, ...]
    at: int
    commit_lsn: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Marker:
    """What pg_logical_emit_message wrote: a heartbeat, or anything of anybody's. `at` is 0 outside a transaction."""

    prefix: str
    content: bytes
    lsn: int
    at: int


@dataclass(frozen=True, slots=True)
class Committed:
    """All of a transaction has come. `end_lsn` is the position to keep once it is applied, and to acknowledge then."""

    end_lsn: int
    at: int


Event = RowChange | Truncated | Marker | Committed


class Assembler:
    """Takes one message after another of one stream, from `position` on."""

    def __init__(self, position: int) -> None:
        self.position = position
        """The end of the last commit that was applied before, or came since."""
        self.repeated = 0
        """How many transactions came again and were dropped."""
        self._relations: dict[int, Relation] = {}
        self._open: Begin | None = None
        self._known = False

    @property
    def inside(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._open is not None

    def feed(self, message: Message) -> Event | None:
        """What the message means; None where it only prepares others or was applied before."""
        match message:
            case Begin():
                self._begin(message)
                return None
            case Commit():
                return self._commit(message)
            case Relation():
                self._relations[message.oid] = message
                return None
            case Emitted():
                return self._marker(message)
            case Insert() | Update() | Delete() | Truncate():
                change = self._change(message)
                return None if self._known else change
            case _:
                return None

    def _begin(self, message: Begin) -> None:
        if self._open is not None:
            refuse("a transaction begins inside another")
        self._open, self._known = message, message.final_lsn < self.position

    def _commit(self, message: Commit) -> Committed | None:
        opened, self._open = self._open, None
        if opened is None or opened.final_lsn != message.lsn or message.end_lsn <= message.lsn:
            refuse(f"a commit at {format_lsn(message.lsn)} that ends no transaction")
        if self._known:
            self.repeated += 1
            return None
        self.position = message.end_lsn
        return Committed(message.end_lsn, message.at)

    def _marker(self, message: Emitted) -> Marker | None:
        if not message.transactional:
            return Marker(message.prefix, message.content, message.lsn, 0)
        at = self._begun().at
        return None if self._known else Marker(message.prefix, message.content, message.lsn, at)

    def _change(self, message: Insert | Update | Delete | Truncate) -> RowChange | Truncated:
        begun = self._begun()
        if isinstance(message, Truncate):
            return Truncated(tuple(map(self._relation, message.relations)), begun.at, begun.final_lsn)
        relation = self._relation(message.relation)
        old = None if isinstance(message, Insert) else message.old
        new = None if isinstance(message, Delete) else message.new
        for values in (new, old.values if old else None):
            if values is not None and len(values) != len(relation.columns):
                refuse(f"a row of {len(values)} values in {relation.name}, which has {len(relation.columns)} columns")
        return RowChange(relation, old, new, begun.at, begun.final_lsn)

    def _begun(self) -> Begin:
        if self._open is None:
            refuse("a change outside a transaction")
        return self._open

    def _relation(self, oid: int) -> Relation:
        relation = self._relations.get(oid)
        if relation is None:
            refuse(f"a change in table {oid}, which was not described before")
        return relation
