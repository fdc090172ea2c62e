"""Writes pgoutput messages as a server does, for tests of what reads them."""

from __future__ import annotations

import struct

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
    Truncate,
    Type,
    Update,
    Values,
)

_EPOCH = 946_684_800_000_000


def encode(message: Message) -> bytes:  # noqa: PLR0911 - one for each kind
    """The bytes of a message, protocol version 1."""
    match message:
        case Begin(final_lsn, at, xid):
            return struct.pack("!cQqI", b"B", final_lsn, at - _EPOCH, xid)
        case Commit(lsn, end_lsn, at):
            return struct.pack("!cBQQq", b"C", 0, lsn, end_lsn, at - _EPOCH)
        case Origin(lsn, name):
            return struct.pack("!cQ", b"O", lsn) + _text(name)
        case Relation():
            return _relation(message)
        case Type(oid, schema, name):
            return struct.pack("!cI", b"Y", oid) + _text("" if schema == "pg_catalog" else schema) + _text(name)
        case Insert(relation, new):
            return struct.pack("!cI", b"I", relation) + b"N" + _values(new)
        case Update(relation, old, new):
            return struct.pack("!cI", b"U", relation) + (b"" if old is None else _old(old)) + b"N" + _values(new)
        case Delete(relation, old):
            return struct.pack("!cI", b"D", relation) + _old(old)
        case Truncate(relations, cascade, restart):
            head = struct.pack("!ciB", b"T", len(relations), cascade | restart << 1)
            return head + struct.pack(f"!{len(relations)}I", *relations)
        case Emitted(transactional, lsn, prefix, content):
            head = struct.pack("!c?Q", b"M", transactional, lsn)
            return head + _text(prefix) + struct.pack("!i", len(content)) + content


def _relation(message: Relation) -> bytes:
    schema = "" if message.schema == "pg_catalog" else message.schema
    head = struct.pack("!cI", b"R", message.oid) + _text(schema) + _text(message.name)
    columns = [
        struct.pack("!?", column.key) + _text(column.name) + struct.pack("!Ii", column.type_oid, column.modifier)
        for column in message.columns
    ]
    return head + message.identity.value + struct.pack("!h", len(columns)) + b"".join(columns)


def _old(old: OldRow) -> bytes:
    return (b"O" if old.whole else b"K") + _values(old.values)


def _values(values: Values) -> bytes:
    parts = [struct.pack("!h", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack("!i", len(value)) + value)
    return b"".join(parts)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"
