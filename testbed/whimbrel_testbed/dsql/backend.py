"""One connection to the real PostgreSQL behind the stand-in: sign-in, sending, collecting answers; no rules.

Sources: PostgreSQL documentation, "Frontend/Backend Protocol"; RFC 5802 and 7677 (SCRAM-SHA-256).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from whimbrel_testbed.dsql import wire
from whimbrel_testbed.dsql.limits import REPLY_BYTES

_HEADER = struct.Struct(">I")
_READ = 256 * 1024
_STREAM = 4 * 1024 * 1024
_DATA_ROW = ord("D")
_ANSWERS = frozenset(b"123CIsTn")
_MARKS = frozenset(b"123CIsTnEZG")

Sink = Callable[[bytes], Awaitable[None]]


class BackendLostError(ConnectionError):
    """The real PostgreSQL ended the connection."""


@dataclass(frozen=True)
class Address:
    """Where the real PostgreSQL is and how its superuser signs in."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str


@dataclass
class Reply:
    """What the backend answered: the messages for the client, the command tags with their places, and the error."""

    data: bytearray = field(default_factory=bytearray)
    tags: list[tuple[int, str]] = field(default_factory=list)
    error: dict[str, str] | None = None
    error_at: int = 0
    streamed: bool = False
    copy_in: bool = False
    skip: int = 0


class Backend:
    """A signed-in connection; only one exchange at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = bytearray()
        self.pid = 0
        self.greeting = b""

    @classmethod
    async def connect(cls, address: Address, parameters: dict[str, str]) -> Backend:
        """Sign in; `parameters` are start-up parameters. Raises BackendLostError where the server refuses."""
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=_STREAM)
        backend = cls(reader, writer)
        pairs = {"user": address.user, "database": address.database, **parameters}
        payload = b"".join(wire.text(name) + wire.text(value) for name, value in pairs.items()) + b"\x00"
        writer.write(_HEADER.pack(len(payload) + 8) + _HEADER.pack(196608) + payload)
        try:
            await backend._sign_in(address)
        except BaseException:
            backend.close()
            raise
        return backend

    async def _message(self) -> tuple[int, bytes]:
        try:
            head = await self._reader.readexactly(5)
            return head[0], await self._reader.readexactly(_HEADER.unpack_from(head, 1)[0] - 4)
        except asyncio.IncompleteReadError as error:
            raise BackendLostError("the real PostgreSQL closed the connection while signing in") from error

    async def _sign_in(self, address: Address) -> None:
        greeting = bytearray()
        scram = _Scram(address.password)
        while True:
            kind, payload = await self._message()
            if kind == ord("R"):
                answer = scram.answer(payload)
                if answer:
                    self._writer.write(answer)
            elif kind == ord("E"):
                raise BackendLostError(f"the real PostgreSQL refused: {wire.error_fields(payload).get('M')}")
            elif kind == ord("Z"):
                self.greeting = bytes(greeting)
                return
            else:
                if kind == ord("K"):
                    self.pid = _HEADER.unpack_from(payload)[0]
                greeting += wire.message(bytes([kind]), payload)

    def write(self, data: bytes) -> None:
        """Send messages."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the server has taken most of what was sent."""
        await self._writer.drain()

    async def collect(self, skip: int = 0, sink: Sink | None = None) -> Reply:
        """Collect up to ReadyForQuery (or CopyInResponse), leaving out that and the first `skip` answers.

        Where a `sink` is given, a long reply is handed to it piece by piece.
        """
        reply = Reply(skip=skip)
        while not self._scan(reply):
            if sink and not reply.skip and len(reply.data) > REPLY_BYTES:
                await sink(bytes(reply.data))
                reply.data.clear()
                reply.tags.clear()
                reply.streamed = True
            piece = await self._reader.read(_READ)
            if not piece:
                raise BackendLostError("the real PostgreSQL closed the connection")
            self._buffer += piece
        return reply

    def _scan(self, reply: Reply) -> bool:
        """Move whole messages from the buffer to the reply; True at its end."""
        buffer, base = self._buffer, len(reply.data)
        position = start = 0
        size, done = len(buffer), False
        unpack = _HEADER.unpack_from
        while position + 5 <= size:
            kind = buffer[position]
            end = position + 1 + unpack(buffer, position + 1)[0]
            if end > size:
                break
            if kind != _DATA_ROW and kind in _MARKS:
                if reply.skip and kind in _ANSWERS:
                    reply.skip -= 1
                    start = end
                elif kind == ord("Z"):
                    done = True
                    reply.data += buffer[start:position]
                    position = end
                    break
                else:
                    done = self._note(reply, kind, bytes(buffer[position + 5 : end]), base + position - start)
            position = end
            if done:
                break
        if not (done and not reply.copy_in):
            reply.data += buffer[start:position]
        del buffer[:position]
        return done

    @staticmethod
    def _note(reply: Reply, kind: int, payload: bytes, place: int) -> bool:
        if kind in b"CIs":
            reply.tags.append((place, payload[:-1].decode() if kind == ord("C") else ""))
        elif kind == ord("E"):
            reply.error, reply.error_at = wire.error_fields(payload), place
            reply.skip = 0
        reply.copy_in = kind == ord("G")
        return reply.copy_in

    async def execute(self, sql: str) -> list[list[str]]:
        """Run one query string of the proxy's own; return the rows as texts (NULL is empty). Raises RuntimeError."""
        self.write(wire.message(b"Q", wire.text(sql)))
        reply = await self.collect()
        if reply.error:
            raise RuntimeError(reply.error.get("M", "unknown error"))
        return _rows(bytes(reply.data))

    def close(self) -> None:
        """Cut the connection; an open transaction is rolled back by the server."""
        self._writer.transport.abort()


def _rows(data: bytes) -> list[list[str]]:
    rows, position = [], 0
    while position < len(data):
        end = position + 1 + _HEADER.unpack_from(data, position + 1)[0]
        if data[position] == _DATA_ROW:
            rows.append(_columns(data[position + 5 : end]))
        position = end
    return rows


def _columns(payload: bytes) -> list[str]:
    values, position = [], 2
    for _ in range(struct.unpack_from(">H", payload)[0]):
        length = struct.unpack_from(">i", payload, position)[0]
        position += 4
        values.append(payload[position : position + max(length, 0)].decode())
        position += max(length, 0)
    return values


class _Scram:
    """The client's side of the server's authentication requests: clear-text password and SCRAM-SHA-256."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._nonce = base64.b64encode(secrets.token_bytes(18)).decode()

    def answer(self, payload: bytes) -> bytes:
        """Return the message that answers an authentication request; empty where none is due."""
        request = _HEADER.unpack_from(payload)[0]
        if request in (0, 12):
            return b""
        if request == 3:
            return wire.message(b"p", wire.text(self._password))
        if request == 10:
            first = f"n,,n=,r={self._nonce}".encode()
            return wire.message(b"p", wire.text("SCRAM-SHA-256") + _HEADER.pack(len(first)) + first)
        if request == 11:
            return wire.message(b"p", self._final(payload[4:].decode()))
        raise BackendLostError(f"the real PostgreSQL asks for authentication method {request}, which is not understood")

    def _final(self, server_first: str) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        bare = f"c=biws,r={fields['r']}"
        signed = f"n=,r={self._nonce},{server_first},{bare}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()
