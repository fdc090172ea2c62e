"""Row packets of MySQL's text protocol cut out of a byte stream, and the offsets of their cells. No socket and no
SQL here.

Layout: MySQL Internals, "Text Resultset Row": a packet is a length of 3 bytes, a sequence byte and a
payload; a row's payload is
one length-encoded string a column, a NULL the byte 0xFB alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from whimbrel_worker.values.blocks import Offsets, RowBlock

_HEADER = Struct("<I").unpack_from
HEADER_SIZE = 4
FULL_PACKET = 0xFFFFFF
"""A payload of this size goes on in the next packet."""
_NULL, _TWO_BYTES, _THREE_BYTES, _EIGHT_BYTES = 0xFB, 0xFC, 0xFD, 0xFE


@dataclass(frozen=True, slots=True)
class Cut:
    """Whole packets found in a buffer: where each starts, where the last one ends, and whether a packet too large
    began."""

    starts: list[int]
    end: int
    oversized: bool = False


def payload_size(buffer: bytes | bytearray, packet: int) -> int:
    """How many bytes follow the header of the packet that starts there."""
    return int.from_bytes(buffer[packet : packet + 3], "little")


def cut_packets(buffer: bytearray, start: int, filled: int, limit: int) -> Cut:
    """Find up to `limit` whole packets in buffer[start:filled]."""
    starts: list[int] = []
    position, header, found = start, _HEADER, starts.append
    last = filled - HEADER_SIZE
    for _ in range(limit):
        if position > last:
            break
        size = header(buffer, position)[0] & FULL_PACKET
        following = position + HEADER_SIZE + size
        if following > filled:
            return Cut(starts, position, oversized=size == FULL_PACKET)
        found(position)
        position = following
    return Cut(starts, position)


def row_block(data: bytes, packets: Sequence[int], columns: int, hexed: frozenset[int] = frozenset()) -> RowBlock:
    """The rows in `data`, whose packets start at `packets`; for `hexed` see RowBlock. Raises ValueError when a row
    does not fit its columns."""
    raw = np.frombuffer(data, dtype=np.uint8)
    position: Offsets = np.array(packets, dtype=np.int64) + HEADER_SIZE
    starts, ends, nulls = [], [], []
    for _ in range(columns):
        start, end, null = _column(raw, position)
        starts.append(start)
        ends.append(end)
        nulls.append(null)
        position = end
    _check(position, packets, len(data))
    return RowBlock(data, starts, ends, nulls, hexed)


def _column(raw: NDArray[np.uint8], position: Offsets) -> tuple[Offsets, Offsets, NDArray[np.bool_] | None]:
    prefix = raw[position]
    start = position + 1
    length = prefix.astype(np.int64)
    if not len(prefix) or prefix.max() < _NULL:
        return start, start + length, None
    null = prefix == _NULL
    length[null] = 0
    for code, width in ((_TWO_BYTES, 2), (_THREE_BYTES, 3), (_EIGHT_BYTES, 8)):
        long = np.flatnonzero(prefix == code)
        if len(long):
            length[long] = _little_endian(raw, start[long], width)
            start[long] += width
    return start, start + length, null if null.any() else None


def _little_endian(raw: NDArray[np.uint8], start: Offsets, width: int) -> Offsets:
    value = np.zeros(len(start), dtype=np.int64)
    for place in range(width):
        value |= raw[start + place].astype(np.int64) << (8 * place)
    return value


def _check(ends: Offsets, packets: Sequence[int], total: int) -> None:
    """Every row must end where the next packet starts; anything else would be a protocol that was not understood."""
    if ends.tolist() != [*packets[1:], total]:
        raise ValueError("a row packet does not hold as many values as the result has columns")
