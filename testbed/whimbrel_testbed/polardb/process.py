"""The stand-in's own process: `python -m whimbrel_testbed.polardb.process`, its settings as JSON on standard input.

It prints `{"port": …}` when it listens and ends when standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from aiohttp import web

from whimbrel_testbed.polardb.dials import CONTROL_PATH, Dials
from whimbrel_testbed.polardb.engine import Engine
from whimbrel_testbed.polardb.refusals import RefusedError
from whimbrel_testbed.polardb.signature import Request, account_of
from whimbrel_testbed.processes import HOST
from whimbrel_testbed.standins import input_ends, serve_standin, tell_port

_TARGET = "DynamoDB_20120810"
_THREADS = 16
_PAUSE_SECONDS = 0.05
_READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
_CONTENT_TYPE = "application/x-amz-json-1.0"


class Front:
    """HTTP in front of the engine: signatures, dials, and one worker thread for each call under way."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.engine = Engine(settings["conninfo"], settings["region"])
        self.passwords: dict[str, str] = settings["passwords"]
        self.powerless = frozenset(settings["powerless"])
        self.dials, self.counters = Dials(), Counter[str]()
        self.random = random.Random(self.dials.seed)  # noqa: S311 -- faults are drawn, nothing is kept secret by it
        self._pool = ThreadPoolExecutor(_THREADS)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        body = await request.content.read()  # request.read() has a bound, of 1 MB
        if request.path.startswith(CONTROL_PATH):
            return await self._control(request, body)
        if self.dials.down:
            return _cut(request)
        try:
            answer = await self._call(request, body)
        except RefusedError as refusal:
            self.counters["refused"] += 1
            return _reply(orjson.dumps(refusal.answer()), refusal.status)
        except Exception:  # noqa: BLE001 -- whatever it is: the client gets what DynamoDB says then, the log gets the rest
            traceback.print_exc()
            failure = RefusedError("InternalServerError", "The stand-in has failed; its log says how", status=500)
            return _reply(orjson.dumps(failure.answer()), failure.status)
        return _reply(answer, 200)

    async def _call(self, request: web.BaseRequest, body: bytes) -> bytes:
        account = self._account(request, body)
        prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
        await self._faults(account, operation)
        self.counters[operation] += 1
        self.counters["ConsistentRead"] += operation in _READS and b'"ConsistentRead"' in body
        if prefix == _TARGET and operation == "DescribeEndpoints":
            return orjson.dumps({"Endpoints": [{"Address": request.host, "CachePeriodInMinutes": 1440}]})
        if prefix != _TARGET or operation not in self.engine.operations:
            raise RefusedError("UnknownOperationException", f"The operation {operation} is not supported")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.engine.call, operation, body)

    def _account(self, request: web.BaseRequest, body: bytes) -> str:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _, query = request.raw_path.partition("?")
        return account_of(Request(request.method, path, query, headers, body), self.passwords)

    async def _faults(self, account: str, operation: str) -> None:
        dials = self.dials
        while dials.pause:
            await asyncio.sleep(_PAUSE_SECONDS)
        if dials.delay:
            await asyncio.sleep(dials.delay)
        if account in self.powerless or operation in dials.refuse:
            raise RefusedError(
                "AccessDeniedException", f"User: {account} is not authorized to perform: dynamodb:{operation}"
            )
        if self._throttled():
            self.counters["throttled"] += 1
            raise RefusedError(dials.throttle_kind, "The rate of requests exceeds the allowed throughput")

    def _throttled(self) -> bool:
        if self.dials.throttle >= 1:
            self.dials.throttle -= 1
            return True
        return self.random.random() < self.dials.throttle

    async def _control(self, request: web.BaseRequest, body: bytes) -> web.Response:
        what = request.path.removeprefix(CONTROL_PATH)
        if what == "dials":
            try:
                self._turn(orjson.loads(body) if body else {})
            except (ValueError, TypeError) as error:
                return _reply(orjson.dumps({"error": str(error)}), 400)
            return _reply(orjson.dumps(self.dials.as_json()), 200)
        if what == "counters":
            return _reply(orjson.dumps(dict(self.counters)), 200)
        if what == "expire":
            gone = await asyncio.get_running_loop().run_in_executor(self._pool, self.engine.expire)
            return _reply(orjson.dumps({"expired": gone}), 200)
        return _reply(orjson.dumps({"error": "the controls are dials, counters and expire"}), 404)

    def _turn(self, changes: dict[str, Any]) -> None:
        self.dials.set(**changes)
        if "seed" in changes:
            self.random.seed(self.dials.seed)


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _reply(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": _CONTENT_TYPE})


async def run(settings: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    front = Front(settings)
    runner = web.ServerRunner(web.Server(front.answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, shutdown_timeout=0.1)
    await site.start()
    port = runner.addresses[0][1]
    tell_port(port)
    await input_ends()
    await runner.cleanup()


def main() -> None:
    """Read the settings and serve."""
    serve_standin(run)


if __name__ == "__main__":
    main()
