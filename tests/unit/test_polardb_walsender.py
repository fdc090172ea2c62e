"""Frames of a replication connection, its start command and positions as text."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_api.layout import own_name
from whimbrel_worker.endpoints.polardb.failures import SlotInUse, translate_stream
from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn, parse_lsn
from whimbrel_worker.endpoints.polardb.log.walsender import (
    Keepalive,
    LogData,
    open_frame,
    start_command,
    status_update,
)
from whimbrel_worker.endpoints.polardb.slot.publication import Mark, read_mark
from whimbrel_worker.errors import ConfigurationError, Incompatible, SourceLogLost, Transient, WorkerError


@given(st.integers(0, 2**64 - 1))
def test_a_position_reads_as_it_is_written(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "1/2/3", "g/0", "123456789/0", " 1/2", "١/2"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_lsn(text)


def test_frames_are_told_apart() -> None:
    assert open_frame(struct.pack("!cQQq", b"w", 1, 2, 3) + b"abc") == LogData(1, 2, b"abc")
    assert open_frame(struct.pack("!cQqB", b"k", 5, 0, 1)) == Keepalive(5, asks=True)


@pytest.mark.parametrize("data", [b"", b"x", b"w" + bytes(23), b"k" + bytes(16), b"k" + bytes(18)])
def test_an_unknown_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Incompatible):
        open_frame(data)


def test_a_status_update_tells_the_acknowledged_position_as_flushed() -> None:
    kind, received, flushed, applied, _, asks = struct.unpack("!cQQQqB", status_update(9, 7, asks=False))
    assert (kind, received, flushed, applied, asks) == (b"r", 9, 7, 7, 0)


def test_hostile_names_stay_names() -> None:
    command = start_command("s", ['p"1', "it's"], 0x1_0000_0002)
    assert command == (
        b'START_REPLICATION SLOT "s" LOGICAL 1/2 '
        b"(proto_version '1', publication_names '\"p\"\"1\",\"it''s\"', messages 'true')"
    )


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_a_name_that_postgresql_would_cut_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        start_command(name, ["p"], 0)
    with pytest.raises(ConfigurationError):
        start_command("s", [name], 0)


def test_a_name_of_our_own_fits_and_differs_by_owner() -> None:
    names = {own_name(f"shop/back/{number}") for number in range(50)}
    assert len(names) == 50
    assert all(len(name) <= 63 and name.startswith("whimbrel_") for name in names)


@pytest.mark.parametrize("comment", [None, "", "whimbrel", "whimbrel {", "whimbrel []", 'whimbrel {"owner": "a"}'])
def test_another_comment_is_no_mark(comment: str | None) -> None:
    assert read_mark(comment) is None


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_mark_reads_as_it_is_written(owner: str, slot: str) -> None:
    assert read_mark(Mark(owner, slot).text()) == Mark(owner, slot)


@pytest.mark.parametrize(
    ("code", "message", "started", "kind", "said"),
    [
        ("55006", "Replikationsslot »w_1« ist aktiv für PID 4711", False, SlotInUse, "4711"),
        ("42704", "no slot", False, SourceLogLost, "no slot w_1"),
        ("42704", "no publication", True, ConfigurationError, "before the slot"),
        ("55000", "invalidated", False, SourceLogLost, "invalidated"),
        ("58P01", "segment removed", True, SourceLogLost, "segment removed"),
        ("42501", "denied", False, ConfigurationError, "REPLICATION"),
        ("57P01", "terminated", True, Transient, "terminated"),
        ("", "the connection ended", True, Transient, "the connection ended"),
        ("42601", "syntax", False, ConfigurationError, "42601"),
    ],
)
def test_a_servers_error_says_what_to_do(
    code: str, message: str, started: bool, kind: type[WorkerError], said: str
) -> None:
    error = translate_stream(code, message, "there", slot="w_1", started=started)
    assert type(error) is kind
    assert said in str(error)
