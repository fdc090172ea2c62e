"""Cuts MySQL packets out of a socket read in big pieces. Knows nothing of what is inside them."""

from __future__ import annotations

import socket
from typing import TypeAlias

Piece: TypeAlias = tuple[bytes, int, int]
"""A packet's payload: a buffer, where it starts in it, where it ends."""

READ_BYTES = 1 << 16
"""Pieces that fit the processor's cache, objects made of them included, decode a quarter faster than a megabyte."""
_MAX_PAYLOAD = 0xFFFFFF
"""A payload of exactly this many bytes goes on in the next packet."""


class ConnectionClosed(OSError):
    """The server closed the connection."""


class PacketReader:
    """Reads packets from a connected socket, many at a time.

    The socket belongs to the reader from now on; ``rest`` is what was read from it already.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self._sock = sock
        self._pieces: list[bytes] = [rest] if rest else []
        self._have = len(rest)
        self._need = 4

    def read(self, timeout_seconds: float) -> list[Piece]:
        """Wait for data and return all packets that are complete; empty when none is after one read.

        Raises TimeoutError after that many seconds without a byte, OSError when the connection is lost.
        """
        if self._have < self._need:
            self._receive(timeout_seconds)
        if self._have < self._need:
            return []
        buffer = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        packets, position = self._cut(buffer)
        rest = buffer[position:]
        self._pieces = [rest] if rest else []
        self._have = len(rest)
        return packets

    def _receive(self, timeout_seconds: float) -> None:
        self._sock.settimeout(timeout_seconds)
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise ConnectionClosed("the server closed the connection")
        self._pieces.append(data)
        self._have += len(data)

    def _cut(self, buffer: bytes) -> tuple[list[Piece], int]:
        """All whole packets of the buffer and where the first incomplete one starts; sets how much that one needs."""
        packets: list[Piece] = []
        position, size = 0, len(buffer)
        while position + 4 <= size:
            length = buffer[position] | buffer[position + 1] << 8 | buffer[position + 2] << 16
            if length == _MAX_PAYLOAD:
                end = self._cut_long(buffer, position, packets)
                if end < 0:
                    return packets, position
            else:
                end = position + 4 + length
                if end > size:
                    self._need = end - position
                    return packets, position
                packets.append((buffer, position + 4, end))
            position = end
        self._need = 4
        return packets, position

    def _cut_long(self, buffer: bytes, start: int, packets: list[Piece]) -> int:
        """Join a payload that spans several packets; -1 when its end has not arrived."""
        parts, position, length = [], start, _MAX_PAYLOAD
        while length == _MAX_PAYLOAD:
            if position + 4 > len(buffer):
                self._need = position + 4 - start
                return -1
            length = int.from_bytes(buffer[position : position + 3], "little")
            end = position + 4 + length
            if end > len(buffer):
                self._need = end - start
                return -1
            parts.append(memoryview(buffer)[position + 4 : end])
            position = end
        payload = b"".join(parts)
        packets.append((payload, 0, len(payload)))
        return position
