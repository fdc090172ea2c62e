"""Accepting clients: TLS in both negotiations, start-up, sign-in, and the hand-over to a session."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import struct

from whimbrel_testbed.dsql import refusals, wire
from whimbrel_testbed.dsql.backend import Backend, BackendLostError
from whimbrel_testbed.dsql.classify import allowed_setting
from whimbrel_testbed.dsql.client import Client
from whimbrel_testbed.dsql.hub import Hub
from whimbrel_testbed.dsql.refusals import RefusedError
from whimbrel_testbed.dsql.session import Session
from whimbrel_testbed.dsql.signin import Gate
from whimbrel_testbed.dsql.sql import literal
from whimbrel_testbed.processes import HOST

_LIMIT = 1024 * 1024
_SIGN_IN_SECONDS = 60.0
_DATABASE = "postgres"
_OPTIONS = (
    r"-c default_transaction_isolation=repeatable\ read -c TimeZone=UTC -c deadlock_timeout=100ms"
    " -c lock_timeout=0 -c client_encoding=UTF8"
)


class Listener:
    """The stand-in's port."""

    def __init__(self, hub: Hub, gate: Gate, certificate: str, key: str) -> None:
        self._hub, self._gate = hub, gate
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.load_cert_chain(certificate, key)
        self._tls.set_alpn_protocols(["postgresql"])
        self._socket = socket.create_server((HOST, 0), backlog=1024)
        self._socket.setblocking(False)
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port clients connect to."""
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        """Accept clients until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._socket)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._client(client))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    def close(self) -> None:
        """Stop accepting."""
        self._socket.close()

    async def _client(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            await self._hub.unpaused()
            streams = await asyncio.wait_for(self._secure(client), _SIGN_IN_SECONDS)
            if streams is None:
                client.close()
                return
            try:
                await self._session(*streams)
            finally:
                streams[1].close()

    async def _secure(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Take up TLS, asked for by SSLRequest or begun directly; None where the client is done or refused."""
        loop = asyncio.get_running_loop()
        while True:
            first = await _peek(client, 1)
            if first == b"\x16":
                streams = await self._upgrade(client)
                return streams if streams and _alpn(streams[1]) else None
            length, code = struct.unpack(">II", await _exactly(client, 8))
            if code == wire.SSL_REQUEST:
                await loop.sock_sendall(client, b"S")
                return await self._upgrade(client)
            if code == wire.GSS_REQUEST:
                await loop.sock_sendall(client, b"N")
                continue
            if code == wire.CANCEL_REQUEST:
                await self._cancel(await _exactly(client, length - 8))
            else:
                await loop.sock_sendall(client, wire.error(refusals.TLS_REQUIRED))
            return None

    async def _upgrade(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=self._tls)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _cancel(self, secret: bytes) -> None:
        address = self._hub.address
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(struct.pack(">II", len(secret) + 8, wire.CANCEL_REQUEST) + secret)
        await writer.drain()
        writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hub = self._hub
        try:
            session = await asyncio.wait_for(self._sign_in(reader, writer), _SIGN_IN_SECONDS)
        except RefusedError as refused:
            hub.counters["refused_connections"] += 1
            writer.write(wire.error(refused.refusal))
            await writer.drain()
            return
        if session is None:
            return
        hub.counters["connections"] += 1
        hub.sessions.add(session)
        session.task = asyncio.current_task()
        try:
            await session.run()
        except BackendLostError:
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            hub.sessions.discard(session)

    async def _sign_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session | None:
        parameters, minor, code = await _startup(reader)
        if code == wire.CANCEL_REQUEST:
            await self._cancel(parameters[""].encode("latin-1"))
            return None
        self._hub.admit()
        if minor:
            writer.write(wire.message(b"v", struct.pack(">II", 0, 0)))
        writer.write(wire.message(b"R", struct.pack(">I", 3)))
        kind, length = struct.unpack(">cI", await reader.readexactly(5))
        if kind != b"p" or length > 65_536:
            raise RefusedError(refusals.PROTOCOL)
        token = (await reader.readexactly(length - 4)).rstrip(b"\x00").decode("utf-8", "replace")
        user = parameters.get("user", "")
        self._gate.check(user, token, datetime.datetime.now(datetime.UTC), self._hub.dials.token_expiry_leeway)
        backend = await self._backend(user, parameters)
        writer.write(wire.message(b"R", struct.pack(">I", 0)) + backend.greeting + wire.ready("I"))
        return Session(self._hub, Client(reader, writer, self._hub.limits.message_bytes), backend)

    async def _backend(self, user: str, parameters: dict[str, str]) -> Backend:
        """Open the backend connection as its superuser and take on the client's role."""
        if parameters.get("database", user) != _DATABASE:
            raise RefusedError(refusals.fatal("3D000", f'database "{parameters.get("database", user)}" does not exist'))
        given = {name: value for name, value in parameters.items() if name not in {"user", "database", "options"}}
        for name in (*given, *_option_names(parameters.get("options", ""))):
            if not allowed_setting(name.lower()) and not name.startswith("_pq_."):
                raise RefusedError(refusals.fatal("0A000", refusals.parameter(name).message))
        options = f"{parameters.get('options', '')} {_OPTIONS}".strip()
        sent = {name: value for name, value in given.items() if not name.startswith("_pq_.")}
        try:
            backend = await Backend.connect(self._hub.address, {**sent, "options": options})
        except BackendLostError as lost:
            raise RefusedError(refusals.fatal("53300", f"too many connections ({lost})")) from lost
        try:
            known = await backend.execute(f"SELECT FROM pg_roles WHERE rolcanlogin AND rolname = {literal(user)}")
            if not known:
                raise RefusedError(refusals.access_denied(f'Role "{user}" does not exist or may not log in'))
            await backend.execute(f"SET SESSION AUTHORIZATION {literal(user)}")
        except BaseException:
            backend.close()
            raise
        return backend


def _alpn(writer: asyncio.StreamWriter) -> bool:
    """Direct TLS is for clients that name the protocol (PostgreSQL documentation, sslnegotiation)."""
    tls = writer.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "postgresql"


def _option_names(options: str) -> list[str]:
    words = options.replace("-c ", "-c").replace("--", "-c").split()
    return [word[2:].partition("=")[0] for word in words if word.startswith("-c")]


async def _startup(reader: asyncio.StreamReader) -> tuple[dict[str, str], int, int]:
    """Read the start-up message: its parameters, the minor protocol version, the code (a cancel request's too)."""
    length, code = struct.unpack(">II", await reader.readexactly(8))
    if not 8 <= length <= 10_000:
        raise RefusedError(refusals.PROTOCOL)
    payload = await reader.readexactly(length - 8)
    if code == wire.CANCEL_REQUEST:
        return {"": payload.decode("latin-1")}, 0, code
    if code >> 16 != 3:
        raise RefusedError(refusals.PROTOCOL)
    words = payload.decode("utf-8", "replace").rstrip("\x00").split("\x00")
    return dict(zip(words[::2], words[1::2], strict=False)), code & 0xFFFF, code


async def _peek(client: socket.socket, size: int) -> bytes:
    """Look at the first bytes without taking them."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(client, ready)
    try:
        await readable
    finally:
        loop.remove_reader(client)
    return client.recv(size, socket.MSG_PEEK)


async def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(client, size - len(data))
        if not piece:
            raise asyncio.IncompleteReadError(data, size)
        data += piece
    return data
