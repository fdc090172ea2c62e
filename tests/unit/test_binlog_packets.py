"""Packets are cut the same however the socket delivers them."""

import random
import socket
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.endpoints.mysql.binlog.packets import ConnectionClosed, PacketReader

LONG = 0xFFFFFF


def packed(payload: bytes) -> bytes:
    parts = [payload[at : at + LONG] for at in range(0, len(payload) + 1, LONG)]
    return b"".join(len(part).to_bytes(3, "little") + bytes([n & 255]) + part for n, part in enumerate(parts))


def read_all(pieces: list[bytes], rest: bytes = b"") -> list[bytes]:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            for piece in pieces:
                theirs.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    reader, found = PacketReader(ours, rest), []
    with ours:
        try:
            while True:
                found += [data[start:end] for data, start, end in reader.read(10)]
        except ConnectionClosed:
            sender.join()
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 40))
def test_any_cut_gives_the_same_packets(payloads: list[bytes], cuts: list[int], rest: int) -> None:
    wire = b"".join(map(packed, payloads))
    bounds = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts), min(rest, len(wire))})
    first = min(rest, len(wire))
    pieces = [wire[a:b] for a, b in pairwise(bounds) if a >= first]
    assert read_all(pieces, wire[:first]) == payloads


@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1, 2 * LONG, 2 * LONG + 5])
def test_payloads_of_sixteen_megabytes_and_more_are_joined(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    assert read_all([packed(b"before") + packed(payload) + packed(b"after")]) == [b"before", payload, b"after"]


def test_silence_is_a_time_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        PacketReader(ours).read(0.01)
