"""A proxy before a DynamoDB endpoint that throttles, refuses, delays, loses and cuts what a rule says.

Which faults there are stands in faults.py; when they strike is the rule's affair. Calls go on byte for byte with the
client's Host header, so that their signature still holds; only a batch that is split is signed anew, by the endpoint's
own keys. With a stand-in for resource-based policies, those are answered here, and STS's question who is calling.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from whimbrel_testbed.dynamodb.faults import (
    BATCHES,
    Call,
    Cut,
    Delay,
    Fault,
    LoseReply,
    Refuse,
    Rule,
    Throttle,
    Unprocessed,
    error_body,
    give_back,
    no_fault,
    split_batch,
    throttled,
)
from whimbrel_testbed.dynamodb.policies import PolicyStandIn
from whimbrel_testbed.processes import HOST

_STARTS_SECONDS: Final = 10.0
_LARGEST: Final = 2**26
_HOP: Final = {"connection", "content-length", "transfer-encoding", "keep-alive"}
_JSON: Final = "application/x-amz-json-1.0"
_SIGNER: Final = re.compile(r"Credential=([^/]+)/")
_CALLER: Final = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>{}</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
_NO_DEFAULTS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class DynamoDBProxy:
    """Serves in a thread of its own, as a context or by `start` and `stop`.

    `rule` may be set at any time and is called in that thread; `log` has every call in the order of arrival.
    """

    def __init__(
        self, facts: Mapping[str, str], rule: Rule = no_fault, *, policies: PolicyStandIn | None = None
    ) -> None:
        self._facts, self._policies = dict(facts), policies
        self.rule: Rule = rule
        self.log: list[Call] = []
        self.port = 0
        self._held = 0
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dynamodb-proxy", daemon=True)

    @property
    def endpoint(self) -> str:
        """`http://host:port`."""
        return f"http://{HOST}:{self.port}"

    def facts(self) -> dict[str, str]:
        """Return what a client needs to come through this proxy: the endpoint's facts with another address."""
        return {**self._facts, "endpoint": self.endpoint}

    @property
    def held(self) -> int:
        """How many calls `pause` keeps from the endpoint at this moment."""
        return self._held

    def calls(self, operation: str) -> list[Call]:
        """Return the calls of one operation so far."""
        return [call for call in tuple(self.log) if call.operation == operation]

    def start(self) -> None:
        """Serve on a free port; TimeoutError if it does not within ten seconds."""
        self._thread.start()
        if not self._ready.wait(_STARTS_SECONDS):
            raise TimeoutError("the proxy before the DynamoDB endpoint did not start")

    def stop(self) -> None:
        """End all connections and the thread."""
        self._do(self._stopped.set)
        self._thread.join(_STARTS_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def cut_all(self) -> None:
        """Break every connection that a call came on and that is open, whatever is under way on it."""
        self._do(self._cut)

    def pause(self) -> None:
        """From now on nothing comes through in either direction, as in a partition; connections stay as they are.

        A call that waits here and whose client gives up never reaches the endpoint.
        """
        self._do(self._open.clear)

    def resume(self) -> None:
        """Let through what waits, and what comes."""
        self._do(self._open.set)

    def _do(self, act: Callable[[], None]) -> None:
        """Do something in the proxy's thread and return once it is done."""
        done = threading.Event()

        def wrapped() -> None:
            act()
            self._loop.call_soon(done.set)  # behind what it has set going, such as the end of a connection

        self._loop.call_soon_threadsafe(wrapped)
        done.wait(_STARTS_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped, self._open = asyncio.Event(), asyncio.Event()
        self._open.set()
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away does not stop what the endpoint has begun.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        self.port = runner.addresses[0][1]
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=_NO_DEFAULTS
        ) as self._session:
            self._ready.set()
            await self._stopped.wait()
            self._open.set()
            self._cut()
            await runner.cleanup()

    def _cut(self) -> None:
        for transport in tuple(self._transports):
            transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return web.Response()
        self._transports.add(transport)
        try:
            content = await request.read()
            await self._passes()
            answer = None if transport.is_closing() else await self._answer(request, content)
            await self._open.wait()
        except (aiohttp.ClientError, OSError):
            answer = None
        if answer is None:
            transport.abort()
            return web.Response()
        return answer

    async def _passes(self) -> None:
        self._held += 1
        await self._open.wait()
        self._held -= 1

    async def _answer(self, request: web.Request, content: bytes) -> web.Response | None:
        """The answer to a call after what its fault does to it; None where the connection is to break."""
        call = self._call(request, content)
        self.log.append(call)
        fault: Fault | None = self.rule(call)
        match fault:
            case Throttle():
                return _refusal(throttled(fault))
            case Refuse():
                return _refusal(fault)
            case Cut():
                fault.first()
                return None
            case Delay():
                await asyncio.sleep(fault.seconds)
            case Unprocessed() if call.operation in BATCHES and self._policies is None:
                return await self._in_part(call, fault.share)
        answer = self._by_policy(call, content)
        if answer is None:
            answer = await self._forward(request.method, request.path_qs, request.headers, content)
        if isinstance(fault, LoseReply):
            fault.first()
            return None
        return answer

    def _call(self, request: web.Request, content: bytes) -> Call:
        service, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
        try:
            body = json.loads(content) if operation else {}
        except ValueError:
            body = {}  # What is wrong with it is the endpoint's to say.
        signer = _SIGNER.search(request.headers.get("Authorization", ""))
        return Call(operation, body, len(self.log) + 1, service, signer[1] if signer else "")

    def _by_policy(self, call: Call, content: bytes) -> web.Response | None:
        """What the stand-in for policies answers, if it does."""
        if self._policies is None:
            return None
        if not call.operation and b"Action=GetCallerIdentity" in content:
            return web.Response(text=_CALLER.format(self._policies.principal(call.access_key)), content_type="text/xml")
        answer = self._policies.answer(call)
        if isinstance(answer, Refuse):
            return _refusal(answer)
        return None if answer is None else web.Response(body=json.dumps(answer).encode(), content_type=_JSON)

    async def _forward(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> web.Response:
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
        url = self._facts["endpoint"] + path
        async with self._session.request(method, url, headers=kept, data=content or None) as answer:
            told = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=told)

    async def _in_part(self, call: Call, share: float) -> web.Response:
        body, rest = split_batch(call, share)
        told: dict[str, Any] = {}
        if body is not None:
            answer = await self._forward_signed(call, json.dumps(body).encode())
            if answer.status != 200:
                return answer
            told = json.loads(answer.body if isinstance(answer.body, bytes) else b"{}")
        return web.Response(body=json.dumps(give_back(call, told, rest)).encode(), content_type=_JSON)

    async def _forward_signed(self, call: Call, content: bytes) -> web.Response:
        headers = {"Content-Type": _JSON, "X-Amz-Target": f"{call.service}.{call.operation}"}
        request = AWSRequest("POST", self._facts["endpoint"] + "/", headers=headers, data=content)
        keys = Credentials(self._facts["accessKeyId"], self._facts["secretAccessKey"], self._facts.get("sessionToken"))
        SigV4Auth(keys, "dynamodb", self._facts["region"]).add_auth(request)
        return await self._forward("POST", "/", dict(request.headers), content)


def _refusal(fault: Refuse) -> web.Response:
    return web.Response(status=fault.status, body=error_body(fault), content_type=_JSON)
