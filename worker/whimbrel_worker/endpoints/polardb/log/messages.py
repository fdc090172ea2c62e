"""The messages of the plugin pgoutput, protocol version 1, and what a row's values are in them. No byte is read here.

Names and meanings: PostgreSQL manual, "Logical Replication Message Formats". Times are microseconds since 1970-01-01.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Unchanged(Enum):
    """Stands for a large (TOAST) value that an UPDATE did not touch and that is therefore not sent."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
Value = bytes | None | Unchanged
"""A column's text in UTF-8, None for NULL, or UNCHANGED."""
Values = tuple[Value, ...]


class ReplicaIdentity(Enum):
    """What the log holds of a row before it was changed (pg_class.relreplident)."""

    DEFAULT = b"d"
    NOTHING = b"n"
    FULL = b"f"
    INDEX = b"i"


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column; `key` says that it belongs to the replica identity. `type_oid` as in pg_type."""

    name: str
    key: bool
    type_oid: int
    modifier: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it is for the changes after this message, until one with the same `oid` comes."""

    oid: int
    schema: str
    name: str
    identity: ReplicaIdentity
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A committed transaction begins. `final_lsn`: where its commit record starts. `at`: commit, µs since 1970."""

    final_lsn: int
    at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """It ends. `lsn`: where the commit record starts; `end_lsn`: where it ends. `at`: commit, µs since 1970."""

    lsn: int
    end_lsn: int
    at: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came to this server from another one, of this name."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class Type:
    """A type that is not built in."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class OldRow:
    """A row before its change: `whole`, or the replica identity's columns alone with None in the others."""

    whole: bool
    values: Values


@dataclass(frozen=True, slots=True)
class Insert:
    """A row came."""

    relation: int
    new: Values


@dataclass(frozen=True, slots=True)
class Update:
    """A row changed. `old` is None where the identity's columns stayed as they were and the identity is not FULL."""

    relation: int
    old: OldRow | None
    new: Values


@dataclass(frozen=True, slots=True)
class Delete:
    """A row went."""

    relation: int
    old: OldRow


@dataclass(frozen=True, slots=True)
class Truncate:
    """All rows of these relations went."""

    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Emitted:
    """What pg_logical_emit_message wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Message = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | Emitted
