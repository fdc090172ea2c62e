"""The log's structure: crafted events, one packet each."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest

from whimbrel_worker.endpoints.mysql.binlog.assembler import Assembler, ServerError
from whimbrel_worker.endpoints.mysql.binlog.events import variable_int
from whimbrel_worker.endpoints.mysql.binlog.model import (
    Event,
    Heartbeat,
    RowsEvent,
    TableIncompatible,
    TransactionBegin,
    TransactionEnd,
)
from whimbrel_worker.errors import ConfigurationError, Incompatible, Transient

UUID = bytes(range(16))
SOURCE = "00010203-0405-0607-0809-0a0b0c0d0e0f"
POST_HEADERS = bytes(
    [0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 99, 0, 4, 26, 8, 0, 0, 0, 8, 8, 8, 2, 0, 0, 0, 10, 10, 10, 42, 42, 0]
)
COLLATIONS = {255: "utf8mb4", 8: "latin1", 63: "binary"}


def event(kind: int, body: bytes, *, position: int = 0, flags: int = 0, checksum: bool = True) -> bytes:
    size = 19 + len(body) + 4 * checksum
    raw = struct.pack("<IBIIIH", 1, kind, 1, size, position, flags) + body
    return b"\0" + raw + (crc32(raw).to_bytes(4, "little") if checksum else b"")


def description(algorithm: int = 1, header: int = 19) -> bytes:
    body = struct.pack("<H50sIB", 4, b"9.9.9", 0, header) + POST_HEADERS + bytes([algorithm])
    return event(15, body, position=126)


def gtid(number: int, length: int = 100, original: bool = False) -> bytes:
    times = (1_000_000 | (original << 55)).to_bytes(7, "little") + ((5).to_bytes(7, "little") if original else b"")
    return event(33, struct.pack("<B16sqBqq", 0, UUID, number, 2, 0, 1) + times + bytes([length]) + bytes(12))


def query(sql: bytes, variables: bytes = b"", database: bytes = b"shop") -> bytes:
    head = struct.pack("<IIBHH", 1, 0, len(database), 0, len(variables))
    return event(2, head + variables + database + b"\0" + sql)


ROTATE = event(4, struct.pack("<Q", 4) + b"log.1")
BEGIN, XID = query(b"BEGIN"), event(16, bytes(8))
TABLE_ID = b"\x07\0\0\0\0\0"


def table_map(
    name: bytes = b"t",
    types: bytes = b"\x03\x0f",
    metadata: bytes = b"\x14\0",
    fields: bytes = b"\x01\x01\0\x04\x04\x01a\x01b\x02\x01\x08",
) -> bytes:
    body = (
        b"\x04shop\0"
        + bytes([len(name)])
        + name
        + b"\0"
        + bytes([len(types)])
        + types
        + bytes([len(metadata)])
        + metadata
        + b"\x02"
    )
    return event(19, TABLE_ID + b"\1\0" + body + fields)


def rows(kind: int, images: bytes, table: bytes = TABLE_ID) -> bytes:
    present = b"\xff" * (2 if kind == 31 else 1)
    return event(kind, table + b"\1\0\2\0\2" + present + images)


def run(*packets: bytes) -> list[Event]:
    out: list[Event] = []
    assembler = Assembler(lambda _database, table: table != "unwanted", COLLATIONS)
    assembler.decode([(b"##" + packet, 2, 2 + len(packet)) for packet in (ROTATE, description(), *packets)], out)
    return out


def image(number: int, text: bytes | None) -> bytes:
    nulls = b"\0" if text is not None else b"\2"
    return nulls + struct.pack("<i", number) + (bytes([len(text)]) + text if text is not None else b"")


def test_a_transaction() -> None:
    events = run(
        gtid(7),
        BEGIN,
        table_map(),
        rows(30, image(1, b"\xe9") + image(2, None)),
        rows(31, image(1, b"x") + image(-3, b"")),
        rows(32, image(2, None)),
        XID,
    )
    assert events[0] == TransactionBegin(SOURCE, 7, 1_000_000, 1_000_000, 100)
    assert events[-1] == TransactionEnd(SOURCE, 7)
    changes = [(e.kind, e.rows) for e in events if isinstance(e, RowsEvent)]
    assert changes == [
        ("insert", [(1, "é".encode()), (2, None)]),
        ("update", [((1, b"x"), (-3, b""))]),
        ("delete", [(2, None)]),
    ]


def test_the_original_commit_time_of_a_replicated_transaction() -> None:
    begin = run(gtid(7, original=True), BEGIN, XID)[0]
    assert begin == TransactionBegin(SOURCE, 7, 1_000_000, 5, 100)


def test_unwanted_tables_and_the_end_marker_of_a_statement() -> None:
    events = run(
        gtid(7),
        BEGIN,
        table_map(b"unwanted", fields=b""),
        rows(30, b"anything"),
        rows(30, b"", b"\xff\xff\xff\0\0\0"),
        XID,
    )
    assert [type(e) for e in events] == [TransactionBegin, TransactionEnd]


def test_text_that_its_character_set_does_not_assign_stops_the_table() -> None:
    fields = b"\x01\x01\0\x04\x04\x01a\x01b\x02\x01\x09"
    out: list[Event] = []
    packets = [ROTATE, description(), gtid(7), BEGIN, table_map(fields=fields), rows(30, image(1, b"\xff\x8a")), XID]
    Assembler(lambda *_: True, {9: "cp1256"}).decode([(p, 0, len(p)) for p in packets], out)
    assert isinstance(out[1], TableIncompatible)
    assert "character set" in out[1].reason
    assert isinstance(out[2], TransactionEnd)


@pytest.mark.parametrize("kind", [5, 13, 14, 17, 18, 20, 23, 24, 25, 26, 38, 39, 40, 43, 99, 255])
def test_events_that_cannot_be_carried_stop_the_log(kind: int) -> None:
    with pytest.raises(Incompatible) as caught:
        run(gtid(7), BEGIN, event(kind, b"whatever"))
    assert f"transaction {SOURCE}:7" in caught.value.where
    assert "log.1" in caught.value.where
    assert caught.value.todo


def test_unknown_events_are_passed_over_only_where_they_say_so() -> None:
    assert run(event(99, b"new", flags=0x80), event(29, b"\5query"), event(3, b""), event(35, bytes(8))) == []


def test_a_transaction_without_a_gtid_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="gtid_mode=ON"):
        run(event(34, bytes(42)))


@pytest.mark.parametrize(
    "packets",
    [
        [gtid(1), gtid(2)],
        [XID],
        [BEGIN],
        [gtid(1), BEGIN, description()],
        [table_map(), rows(30, image(1, b"x"))],
        [gtid(1), BEGIN, rows(30, image(1, b"x"))],
    ],
)
def test_a_broken_structure_is_read_again(packets: list[bytes]) -> None:
    with pytest.raises(Transient, match="broke off"):
        run(*packets)


@pytest.mark.parametrize("sql", [b"ROLLBACK", b"ROLLBACK TO `s`"])
def test_rows_taken_back_in_the_log_are_refused(sql: bytes) -> None:
    with pytest.raises(Incompatible, match="InnoDB"):
        run(gtid(1), BEGIN, query(sql))


@pytest.mark.parametrize("at", [1, 10, 24, 30, -1])
def test_a_damaged_event_is_noticed(at: int) -> None:
    packet = bytearray(rows(30, image(1, b"x")))
    packet[at] ^= 0x10
    with pytest.raises(Transient, match="wrong checksum"):
        run(gtid(1), BEGIN, table_map(), bytes(packet))


def test_a_log_without_checksums() -> None:
    out: list[Event] = []
    packets = [
        event(4, struct.pack("<Q", 4) + b"log.1", checksum=False),
        description(0),
        event(16, bytes(8), checksum=False),
    ]
    assembler = Assembler(lambda *_: True, COLLATIONS)
    with pytest.raises(Transient, match="an end without a beginning"):
        assembler.decode([(p, 0, len(p)) for p in packets], out)
    assert assembler.file == "log.1"


def test_a_malformed_event_is_refused() -> None:
    with pytest.raises(Incompatible, match="could not be decoded"):
        run(gtid(1), BEGIN, event(19, TABLE_ID + b"\1\0\xff"))


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(Incompatible, match="layout"):
        run(description(header=20))


def test_heartbeats_prove_the_end_only_where_nothing_moved() -> None:
    def beat(position: int) -> bytes:
        return event(27, b"log.1", position=position)

    assert run(beat(126)) == [Heartbeat("log.1", 126)]
    assert run(beat(200)) == []
    assert run(beat(200), beat(200), beat(300)) == [Heartbeat("log.1", 200)]
    second = event(41, b"\1\5log.1\2\x09\xfe" + (126).to_bytes(8, "little") + b"\0")
    assert run(second) == [Heartbeat("log.1", 126)]


def test_server_errors_are_handed_on() -> None:
    with pytest.raises(ServerError) as caught:
        run(b"\xff\xd4\x04#HY000text")
    assert caught.value.payload.endswith(b"text")
    with pytest.raises(ServerError) as caught:
        run(b"\xfe\0\0\2\0")
    assert caught.value.payload == b""


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 65535, 2**28, 2**49, 2**56 - 1, 2**56, 2**64 - 1])
def test_variable_length_integers(value: int) -> None:
    size = next(n for n in range(1, 10) if n == 9 or value < 1 << 7 * n)
    raw = (
        b"\xff" + value.to_bytes(8, "little")
        if size == 9
        else (value << size | (1 << size - 1) - 1).to_bytes(size, "little")
    )
    assert variable_int(b"x" + raw + b"tail", 1) == (value, 1 + len(raw))
