"""Decodes messages of the plugin pgoutput, protocol version 1. Pure; it keeps nothing between two messages.

Formats: PostgreSQL manual, "Logical Replication Message Formats". Streaming of open transactions, two-phase commit and
binary values are never asked for, so their messages are refused like any unknown one. Every message is read to its last
byte: one that ends too early or too late raises Incompatible.
"""

import struct
from collections.abc import Callable
from typing import Final, NoReturn

from whimbrel_worker.endpoints.polardb.log.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    RelationColumn,
    ReplicaIdentity,
    Truncate,
    Type,
    Update,
    Value,
    Values,
)
from whimbrel_worker.errors import Incompatible

_POSTGRES_EPOCH_MICROSECONDS: Final = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970-01-01."""


def decode(payload: bytes) -> Message:
    """The message that these bytes are. Raises Incompatible for anything that is not exactly one."""
    reader = _Reader(payload)
    kind = reader.byte()
    read = _READERS.get(kind)
    if read is None:
        refuse(f"a message of kind {kind!r} is not part of protocol version 1")
    message = read(reader)
    reader.finish()
    return message


def refuse(why: str) -> NoReturn:
    """Raise the error for a stream that is not what it should be. `why` must not quote a row."""
    raise Incompatible(
        "a message of the source's change log is not understood",
        where="PostgreSQL logical replication, pgoutput",
        why=why,
        todo="check that the server is PolarDB for PostgreSQL, or PostgreSQL 14 or later; report this with its version",
    )


class _Reader:
    """Takes a message's parts one after another; never reads beyond its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = bytes(data), 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if length < 0 or end > len(self._data):
            refuse(f"it ends after {len(self._data)} bytes, where {length} more are due from byte {self._at} on")
        start, self._at = self._at, end
        return self._data[start:end]

    def byte(self) -> bytes:
        return self.take(1)

    def number(self, form: struct.Struct) -> int:
        return int(form.unpack(self.take(form.size))[0])

    def string(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            refuse("it ends inside a name")
        text = self.take(end - self._at)
        self._at += 1
        try:
            return text.decode()
        except UnicodeDecodeError:
            refuse("a name is not UTF-8")

    def count(self, form: struct.Struct) -> int:
        count = self.number(form)
        if count < 0:
            refuse(f"a count of {count}")
        return count

    def flags(self, known: int) -> int:
        flags = self.byte()[0]
        if flags & ~known:
            refuse(f"the flags {flags:#x}, of which only {known:#x} are known")
        return flags

    def moment(self) -> int:
        return self.number(_INT64) + _POSTGRES_EPOCH_MICROSECONDS

    def finish(self) -> None:
        if self._at != len(self._data):
            refuse(f"{len(self._data) - self._at} bytes follow after its end")


_INT16: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")
_INT64: Final = struct.Struct("!q")
_UINT32: Final = struct.Struct("!I")
_UINT64: Final = struct.Struct("!Q")


def _begin(reader: _Reader) -> Begin:
    return Begin(reader.number(_UINT64), reader.moment(), reader.number(_UINT32))


def _commit(reader: _Reader) -> Commit:
    reader.flags(0)
    return Commit(reader.number(_UINT64), reader.number(_UINT64), reader.moment())


def _origin(reader: _Reader) -> Origin:
    return Origin(reader.number(_UINT64), reader.string())


def _relation(reader: _Reader) -> Relation:
    oid, schema, name = reader.number(_UINT32), reader.string(), reader.string()
    letter = reader.byte()
    try:
        identity = ReplicaIdentity(letter)
    except ValueError:
        refuse(f"a replica identity {letter!r}")
    columns = tuple(_column(reader) for _ in range(reader.count(_INT16)))
    # The empty name stands for pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, columns)


def _column(reader: _Reader) -> RelationColumn:
    key = bool(reader.flags(1))
    return RelationColumn(reader.string(), key, reader.number(_UINT32), reader.number(_INT32))


def _type(reader: _Reader) -> Type:
    return Type(reader.number(_UINT32), reader.string() or "pg_catalog", reader.string())


def _insert(reader: _Reader) -> Insert:
    relation = reader.number(_UINT32)
    _expect(reader, b"N")
    new = _values(reader)
    if UNCHANGED in new:
        refuse("a new row with a value that is said to be unchanged")
    return Insert(relation, new)


def _update(reader: _Reader) -> Update:
    relation, mark = reader.number(_UINT32), reader.byte()
    old = None
    if mark in {b"K", b"O"}:
        old = OldRow(mark == b"O", _values(reader))
        mark = reader.byte()
    if mark != b"N":
        refuse(f"a part {mark!r} of an update")
    return Update(relation, old, _values(reader))


def _delete(reader: _Reader) -> Delete:
    relation, mark = reader.number(_UINT32), reader.byte()
    if mark not in {b"K", b"O"}:
        refuse(f"a part {mark!r} of a delete")
    return Delete(relation, OldRow(mark == b"O", _values(reader)))


def _truncate(reader: _Reader) -> Truncate:
    count, flags = reader.count(_INT32), reader.flags(3)
    # Taken in one piece: the count is checked against the bytes before anything of that size is made.
    numbers = struct.unpack(f"!{count}I", reader.take(4 * count))
    return Truncate(numbers, bool(flags & 1), bool(flags & 2))


def _emitted(reader: _Reader) -> Emitted:
    transactional, lsn, prefix = bool(reader.flags(1)), reader.number(_UINT64), reader.string()
    return Emitted(transactional, lsn, prefix, reader.take(reader.number(_INT32)))


def _expect(reader: _Reader, wanted: bytes) -> None:
    mark = reader.byte()
    if mark != wanted:
        refuse(f"a part {mark!r} where {wanted!r} is due")


def _values(reader: _Reader) -> Values:
    return tuple(_value(reader) for _ in range(reader.count(_INT16)))


def _value(reader: _Reader) -> Value:
    kind = reader.byte()
    if kind == b"t":
        return reader.take(reader.number(_INT32))
    if kind == b"n":
        return None
    if kind == b"u":
        return UNCHANGED
    refuse(f"a value of kind {kind!r}; text was asked for")


_READERS: Final[dict[bytes, Callable[[_Reader], Message]]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _emitted,
}
