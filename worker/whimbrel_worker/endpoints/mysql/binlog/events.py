"""The binlog's event types and the fields of those that are not rows. Pure functions over bytes.

Layouts: MySQL's internals documentation ("Replication Protocol") and the server's public headers; checked against
a real server in tests/component.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from whimbrel_worker.endpoints.mysql.binlog.model import TransactionBegin
from whimbrel_worker.errors import Incompatible

STOP: Final = 3
QUERY: Final = 2
ROTATE: Final = 4
FORMAT_DESCRIPTION: Final = 15
XID: Final = 16
TABLE_MAP: Final = 19
INCIDENT: Final = 26
HEARTBEAT: Final = 27
IGNORABLE: Final = 28
ROWS_QUERY: Final = 29
WRITE_ROWS: Final = 30
UPDATE_ROWS: Final = 31
DELETE_ROWS: Final = 32
GTID: Final = 33
ANONYMOUS_GTID: Final = 34
PREVIOUS_GTIDS: Final = 35
VIEW_CHANGE: Final = 37
XA_PREPARE: Final = 38
PARTIAL_UPDATE_ROWS: Final = 39
TRANSACTION_PAYLOAD: Final = 40
HEARTBEAT_V2: Final = 41
GTID_TAGGED: Final = 42

IGNORABLE_FLAG: Final = 0x80
"""LOG_EVENT_IGNORABLE_F: a reader that does not know the event may go on."""

HEADER: Final = struct.Struct("<IBIIIH")
"""Timestamp, type, server id, event length, position after the event, flags."""
HEADER_SIZE: Final = 19
CHECKSUM_SIZE: Final = 4
CHECKSUM_OFF, CHECKSUM_CRC32 = 0, 1

_GTID_HEAD = struct.Struct("<x16sq17xIHB")
"""UUID, number, and seven bytes of commit time, whose top bit says that the original one follows."""
_QUERY_HEAD = struct.Struct("<IIBHH")
QUERY_HEAD_SIZE: Final = 13


class Query(NamedTuple):
    """A QUERY event's parts."""

    variables: bytes
    database: bytes
    sql: bytes


class SourceNames(dict[bytes, str]):
    """UUID texts by their 16 bytes."""

    def __missing__(self, raw: bytes) -> str:
        text = self[raw] = uuid_text(raw)
        return text


def uuid_text(raw: bytes) -> str:
    """A UUID's usual text."""
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def packed_int(data: bytes, position: int) -> tuple[int, int]:
    """A length-encoded integer and the position after it."""
    first = data[position]
    if first < 251:
        return first, position + 1
    size = {252: 2, 253: 3, 254: 8}.get(first, 0)
    if not size:
        raise ValueError(f"0x{first:02x} starts no length-encoded integer")
    end = position + 1 + size
    return int.from_bytes(data[position + 1 : end], "little"), end


def gtid_event(data: bytes, position: int, end: int, names: SourceNames) -> TransactionBegin:
    """Decode a GTID event's body (type 33); MySQL before 8.0 has no times in it and is refused."""
    if end - position < _GTID_HEAD.size:
        raise Incompatible(
            "the change log holds transactions without commit times", why="The source is older than MySQL 8.0.",
            todo="Migrate from MySQL 8.0 or later.",
        )  # fmt: skip
    uuid, number, low, middle, high = _GTID_HEAD.unpack_from(data, position)
    position += 49
    original = commit = low | middle << 32 | (high & 0x7F) << 48
    if high & 0x80:
        original = int.from_bytes(data[position : position + 7], "little")
        position += 7
    return TransactionBegin(names[uuid], number, commit, original, packed_int(data, position)[0])


def variable_int(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned integer of MySQL's serialization library: the first byte's trailing ones count the others."""
    first = data[position]
    extra = ((first + 1) & ~first).bit_length() - 1
    end = position + 1 + extra
    if extra == 8:
        return int.from_bytes(data[position + 1 : end], "little"), end
    return int.from_bytes(data[position:end], "little") >> (extra + 1), end


def gtid_tagged_event(data: bytes, position: int, end: int) -> TransactionBegin:
    """Decode a tagged GTID event's body (type 42): numbered fields, an absent one keeps its default.

    Fields: 0 flags, 1 UUID (16 integers), 2 number (signed), 3 tag, 4 last committed, 5 sequence, 6 immediate and
    7 original commit time, 8 length, 9 immediate and 10 original server version, 11 commit group ticket.
    """
    version, position = variable_int(data, position)
    _size, position = variable_int(data, position)
    last_needed, position = variable_int(data, position)
    if last_needed > 11:
        raise Incompatible(
            f"a tagged GTID event holds a field ({last_needed}, format {version}) that this version does not know",
            todo="Update Whimbrel to a version that knows this MySQL release.",
        )
    fields: dict[int, int] = {}
    uuid, tag = b"", b""
    while position < end:
        field, position = variable_int(data, position)
        if field == 1:
            uuid, position = _byte_array(data, position, 16)
        elif field == 3:
            length, position = variable_int(data, position)
            tag, position = data[position : position + length], position + length
        elif field > 11:
            break  # ignorable fields of a later release, all behind the ones read here
        else:
            fields[field], position = variable_int(data, position)
    source = uuid_text(uuid) + (":" + tag.decode("ascii") if tag else "")
    commit = fields.get(6, 0)
    return TransactionBegin(source, fields[2] >> 1, commit, fields.get(7, commit), fields.get(8, 0))


def _byte_array(data: bytes, position: int, count: int) -> tuple[bytes, int]:
    values = []
    for _ in range(count):
        value, position = variable_int(data, position)
        values.append(value)
    return bytes(values), position


def query_event(data: bytes, position: int, end: int) -> Query:
    """Split a QUERY event's body."""
    _thread, _seconds, database_size, _error, variables_size = _QUERY_HEAD.unpack_from(data, position)
    variables = position + QUERY_HEAD_SIZE
    database = variables + variables_size
    sql = database + database_size + 1
    return Query(data[variables:database], data[database : sql - 1], data[sql:end])


_VARIABLE_SIZES = {0: 4, 1: 8, 3: 4}


def query_collation(variables: bytes) -> int | None:
    """The collation id of a QUERY event's text (its character_set_client), None when the event does not say."""
    position = 0
    while position < len(variables):
        code = variables[position]
        if code == 4:
            return int.from_bytes(variables[position + 1 : position + 3], "little")
        if code == 6:
            position += 2 + variables[position + 1]
        elif code in _VARIABLE_SIZES:
            position += 1 + _VARIABLE_SIZES[code]
        else:
            return None
    return None


def rotate_event(data: bytes, position: int, end: int) -> tuple[str, int]:
    """The next file's name and the position in it."""
    return data[position + 8 : end].decode(), int.from_bytes(data[position : position + 8], "little")


def format_description_event(data: bytes, position: int, end: int) -> tuple[str, int]:
    """The server's version and the log's checksum algorithm; refuses layouts that the decoders do not know."""
    version = data[position + 2 : position + 52].rstrip(b"\0").decode()
    header_size = data[position + 56]
    sizes = data[position + 57 : end - CHECKSUM_SIZE - 1]
    expected = {QUERY: QUERY_HEAD_SIZE, TABLE_MAP: 8, WRITE_ROWS: 10, UPDATE_ROWS: 10, DELETE_ROWS: 10}
    odd = [kind for kind, size in expected.items() if len(sizes) < kind or sizes[kind - 1] != size]
    if header_size != HEADER_SIZE or odd:
        raise Incompatible(
            f"the binary log of server version {version} has an event layout that is not known here (events {odd})",
            why="MySQL 5.7 and later write the layout that this decoder reads; MariaDB and older servers do not.",
            todo="Migrate from MySQL 8.0 or later.",
        )
    return version, data[end - CHECKSUM_SIZE - 1]


def heartbeat_event(data: bytes, position: int, end: int, *, log_position: int, second: bool) -> tuple[str, int]:
    """The file and position that a heartbeat names; the second version (type 41) holds tagged fields."""
    if not second:
        return data[position:end].decode(), log_position
    file, at = "", log_position
    while position < end:
        kind, position = packed_int(data, position)
        if kind == 0:
            break
        size, position = packed_int(data, position)
        if kind == 1:
            file = data[position : position + size].decode()
        elif kind == 2:
            at = packed_int(data, position)[0]
        position += size
    return file, at
