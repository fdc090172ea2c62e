"""A reverse proxy before a cluster's API server that loses, refuses, delays and silences what a rule says.

Which faults there are stands here; when they strike is the rule's affair. It speaks HTTPS with the cluster's own server
certificate and hands each client's bearer token on, so whoever signs in by a token may come through it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.processes import HOST

_STARTS_SECONDS: Final = 10.0
_LONGEST_LINE: Final = 2**22
_HOP: Final = {"connection", "content-length", "content-encoding", "transfer-encoding", "host", "accept-encoding"}
_REASONS: Final = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
_GONE: Final = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@dataclass(frozen=True)
class Asked:
    """One request. `number` counts from 1 over all of them; `watch`: it is answered by a stream of events."""

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    agent: str
    body: bytes = field(default=b"", repr=False)

    @property
    def watch(self) -> bool:
        """Whether it asks for events from now on."""
        return self.query.get("watch", "") in ("1", "true")

    @property
    def resumes(self) -> bool:
        """Whether it is a watch from a version that was seen before."""
        return self.watch and "resourceVersion" in self.query

    @property
    def writes(self) -> bool:
        """Whether it may change something: reviews of rights are asked by POST and change nothing."""
        return self.method != "GET" and not self.path.endswith("accessreviews")


@dataclass(frozen=True)
class Refuse:
    """The answer is this status, as the API server words it, and the request goes no further."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True)
class Cut:
    """The connection breaks without an answer: `late`, once the API server has done what was asked.

    `first` is called just before the break: to kill the client, for example.
    """

    late: bool
    first: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Wait:
    """The request goes on only after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Nothing is ever answered; the connection stays until the client ends it."""


@dataclass(frozen=True)
class Expire:
    """410 for a watch: as an event of the stream, as the API server says it, or by the status of the answer."""

    as_event: bool = True


@dataclass(frozen=True)
class Fail:
    """The watch's stream holds nothing but an error of this code."""

    code: int


Fault = Refuse | Fail | Cut | Wait | Hang | Expire
Rule = Callable[[Asked], Fault | None]
EventRule = Callable[[Asked, Mapping[str, Any]], bool | float]
"""What becomes of an event: False loses it, True hands it on, a number does so after that many seconds."""


def no_fault(_: Asked) -> None:
    """Everything goes on."""


def every_event(_: Asked, __: Mapping[str, Any]) -> bool:
    """Every event is handed on."""
    return True


class _Watch:
    """One stream of events on its way to a client."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self.transport, self.silent = transport, False


class ApiProxy:
    """Serves in a thread of its own. `rule` and `events` may be set at any time, and are called in that thread."""

    def __init__(self, server: str, credentials: Path) -> None:
        self._server, self._credentials = server, credentials
        self.rule: Rule = no_fault
        self.events: EventRule = every_event
        self.rewrite: Callable[[Asked], bytes] = lambda asked: asked.body
        self.log: list[Asked] = []
        self.mute = False
        self.port = 0
        self._watches: set[_Watch] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        """`https://host:port`."""
        return f"https://{HOST}:{self.port}"

    @property
    def watches(self) -> int:
        """How many streams are under way, those that were silenced among them."""
        return len(self._watches)

    def start(self) -> None:
        """Serve on a free port; TimeoutError if it does not within ten seconds."""
        self._thread.start()
        if not self._ready.wait(_STARTS_SECONDS):
            raise TimeoutError("the proxy before the API server did not start")

    def stop(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(_STARTS_SECONDS)

    def cut_watches(self) -> None:
        """Break every stream of events."""
        self._loop.call_soon_threadsafe(self._cut)

    def silence_watches(self) -> None:
        """From now on no byte comes on the streams that are there, and they are not closed either."""
        for watch in tuple(self._watches):
            watch.silent = True

    def kubeconfig(self, path: Path, token: str) -> Path:
        """Write a kubeconfig that comes through this proxy with a bearer token."""
        authority = str(self._credentials / "ca.crt")
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.address, "certificate-authority": authority}}],
            "users": [{"name": "proxy", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away ends its own watch upstream, as it would without a proxy.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, ssl_context=self._certificate())
        await site.start()
        self.port = runner.addresses[0][1]
        context = ssl.create_default_context(cafile=str(self._credentials / "ca.crt"))
        connector = aiohttp.TCPConnector(limit=0, ssl=context)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=_LONGEST_LINE
        ) as self._session:
            self._ready.set()
            await self._stopped.wait()
            self._cut()
            await runner.cleanup()

    def _certificate(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        stem = self._credentials / f"server-{HOST}"
        context.load_cert_chain(f"{stem}.crt", f"{stem}.key")
        return context

    def _cut(self) -> None:
        for watch in self._watches:
            if watch.transport is not None:
                watch.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            len(self.log) + 1, request.method, request.path, dict(request.query),
            request.headers.get("User-Agent", ""), await request.read(),
        )  # fmt: skip
        self.log.append(asked)
        fault = self.rule(asked)
        answered = await self._at_once(request, fault)
        if answered is not None:
            return answered
        try:
            return await self._forward(request, asked, fault)
        except (aiohttp.ClientConnectionError, OSError):
            return _broken(request)

    async def _at_once(self, request: web.Request, fault: Fault | None) -> web.StreamResponse | None:
        """What a fault answers instead of the API server; None when the request goes on."""
        match fault:
            case Refuse():
                return _refusal(fault)
            case Cut(late=False):
                fault.first()
                return _broken(request)
            case Wait():
                await asyncio.sleep(fault.seconds)
            case Hang():
                await asyncio.Event().wait()
            case Expire(as_event=False):
                return _refusal(Refuse(410))
            case Expire():
                return web.json_response({"type": "ERROR", "object": _GONE})
            case Fail():
                told = {"kind": "Status", "code": fault.code, "reason": "InternalError", "message": "a proxy's rule"}
                return web.json_response({"type": "ERROR", "object": told})
        return None

    async def _forward(self, request: web.Request, asked: Asked, fault: Fault | None) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        upstream = self._session.request(
            request.method, f"{self._server}{request.path_qs}", headers=headers, data=self.rewrite(asked) or None
        )
        async with upstream as answer:
            if asked.watch and answer.status == 200:
                return await self._stream(request, asked, answer)
            content = await answer.read()
            if isinstance(fault, Cut):
                fault.first()
                return _broken(request)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, body=content, headers=kept)

    async def _stream(self, request: web.Request, asked: Asked, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "application/json"})
        await reply.prepare(request)
        watch = _Watch(request.transport)
        watch.silent = self.mute
        self._watches.add(watch)
        try:
            while line := await answer.content.readline():
                await self._hand_on(reply, asked, watch, line)
            if watch.silent:
                await asyncio.Event().wait()
        except (aiohttp.ClientConnectionError, OSError):
            return _broken(request)
        finally:
            self._watches.discard(watch)
        return reply

    async def _hand_on(self, reply: web.StreamResponse, asked: Asked, watch: _Watch, line: bytes) -> None:
        verdict = self.events(asked, json.loads(line))
        if verdict is False:
            return
        if not isinstance(verdict, bool):
            await asyncio.sleep(verdict)
        if not watch.silent:
            await reply.write(line)


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(fault: Refuse) -> web.Response:
    reason = _REASONS.get(fault.status, "ServiceUnavailable")
    told: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
    told |= {"reason": reason, "message": f"a rule of the proxy says {reason}"}
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(told, status=fault.status, headers=headers)


@contextmanager
def api_proxy(cluster: KubernetesCluster) -> Iterator[ApiProxy]:
    """Give a proxy before a cluster that the test bed started: it serves with that one's own certificate."""
    made = ApiProxy(cluster.server, cluster.directory / "credentials")
    made.start()
    try:
        yield made
    finally:
        made.stop()
