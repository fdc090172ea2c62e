"""The client's side of a session: whole messages in, answers out; what they mean is not known here."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from whimbrel_testbed.dsql import wire
from whimbrel_testbed.dsql.limits import UNIT_BYTES

_READ = 256 * 1024
_UNIT_ENDS = frozenset({wire.SYNC, wire.FLUSH, wire.QUERY, wire.TERMINATE, wire.FUNCTION_CALL})
COPY_MESSAGES = frozenset({wire.COPY_DATA, wire.COPY_DONE, wire.COPY_FAIL})


class Client:
    """A client's connection; `out` holds what is not sent yet, `last_complete` where its last CommandComplete is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message_bytes: int) -> None:
        self._reader, self._writer = reader, writer
        self._cutter = wire.Cutter(message_bytes)
        self._inbox: deque[bytes] = deque()
        self.out = bytearray()
        self.last_complete = -1
        self._waiting_since = 0.0

    def waiting_seconds(self) -> float:
        """How long the connection has been waiting for the client; 0 where it is not."""
        return time.monotonic() - self._waiting_since if self._waiting_since else 0.0

    async def message(self) -> bytes | None:
        """Return the next message; None where the client has left. Raises RefusedError (08P01) where it is too long."""
        while not self._inbox:
            self._waiting_since = time.monotonic()
            data = await self._reader.read(_READ)
            self._waiting_since = 0.0
            if not data:
                return None
            self._inbox.extend(self._cutter.feed(data))
        return self._inbox.popleft()

    async def unit(self) -> tuple[bytes, list[bytes]] | None:
        """Return the message that ends the next unit and those before it; None at the end of the session.

        A unit that grows past UNIT_BYTES is handed out early, as if the client had asked for a Flush.
        """
        messages: list[bytes] = []
        size = 0
        while size <= UNIT_BYTES:
            message = await self.message()
            if message is None or message[0] == wire.TERMINATE:
                return None
            if message[0] in _UNIT_ENDS:
                return message, messages
            if message[0] not in COPY_MESSAGES:
                messages.append(message)
                size += len(message)
        return wire.message(b"H"), messages

    async def flush(self) -> None:
        """Send what is held."""
        if self.out:
            data, self.out = bytes(self.out), bytearray()
            self.last_complete = -1
            await self.stream(data)

    async def stream(self, data: bytes) -> None:
        """Send at once, past what is held."""
        self._writer.write(data)
        self._waiting_since = time.monotonic()
        await self._writer.drain()
        self._waiting_since = 0.0

    def abort(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()
