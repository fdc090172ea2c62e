"""The stream server's own process: `python -m whimbrel_testbed.streams.proxy`, its settings as JSON on standard input.

It prints `{"port": …}` when it listens and ends when standard input does, so that it never outlives who started it.
DynamoDB's calls go on to the endpoint behind; those of DynamoDB Streams, Kinesis and the control are answered here.
"""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import aiohttp
from aiohttp import web

from whimbrel_testbed.processes import HOST
from whimbrel_testbed.standins import input_ends, serve_standin, tell_port
from whimbrel_testbed.streams.control import CONTROL_PATH
from whimbrel_testbed.streams.desk import Desk, orders
from whimbrel_testbed.streams.hub import Hub
from whimbrel_testbed.streams.kinesis import DESTINATIONS, KINESIS
from whimbrel_testbed.streams.refusals import Refusal
from whimbrel_testbed.streams.upstream import (
    CONTENT_TYPE,
    STREAMS,
    Answer,
    Behind,
    Endpoint,
    UpstreamError,
    http_session,
)

_LARGEST_REQUEST: Final = 2**26
_DESCRIBING: Final = {"CreateTable", "UpdateTable", "DescribeTable", "DeleteTable"}
_ONE_TABLE: Final = {"PutItem", "DeleteItem", "UpdateItem"}
_MANY_TABLES: Final = {"TransactWriteItems", "ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"}
_log = logging.getLogger(__name__)


class Proxy:
    """Tells calls apart and answers them."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._desk = hub, Desk(hub)

    def app(self) -> web.Application:
        """What is served."""
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        app.router.add_get(CONTROL_PATH, self._orders)
        app.router.add_post(CONTROL_PATH + "{order}", self._order)
        app.router.add_route("*", "/{path:.*}", self._call)
        return app

    async def _orders(self, _: web.Request) -> web.Response:
        return web.json_response({"orders": orders()})

    async def _order(self, request: web.Request) -> web.Response:
        try:
            arguments = json.loads(await request.read() or b"{}")
            return web.json_response({"result": await self._desk.order(request.match_info["order"], arguments)})
        except (ValueError, Refusal, UpstreamError, aiohttp.ClientError) as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _call(self, request: web.Request) -> web.Response:
        prefix, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
        try:
            if prefix == STREAMS:
                return _answer(200, await self._streams(request, operation))
            if prefix == KINESIS:
                return _answer(200, await self._kinesis(request, operation))
            return await self._tables(request, operation)
        except Refusal as refusal:
            return _answer(400, json.dumps(refusal.as_json()).encode())
        except (UpstreamError, aiohttp.ClientError) as error:
            _log.exception("a call to the endpoint behind failed")
            kind = "com.amazonaws.dynamodb.v20120810#InternalServerError"
            return _answer(500, json.dumps({"__type": kind, "message": str(error)}).encode())

    async def _streams(self, request: web.Request, operation: str) -> bytes:
        asked = await _signed(request)
        if operation == "ListStreams":
            await self._hub.adopt_all()
        for arn in self._hub.service.lacks(operation, asked):
            await self._hub.catch_up(arn)
        return self._hub.service.answer(operation, asked)

    async def _kinesis(self, request: web.Request, operation: str) -> bytes:
        return self._hub.kinesis.answer(operation, await _signed(request))

    async def _tables(self, request: web.Request, operation: str) -> web.Response:
        self._hub.service.dials.admit(operation, self._hub.clock())
        body = await request.read()
        if operation in DESTINATIONS:
            asked = _parsed(body)
            return _answer(200, await self._hub.destination(operation, _table(asked.get("TableName", "")), asked))
        with self._hub.writing(_written(operation, body)):
            answer = await self._hub.behind.forward(request, body)
        if answer.status != 200 or operation not in _DESCRIBING:
            return _forwarded(answer, answer.body)
        described = await self._hub.describe(answer.body)
        if operation == "DeleteTable":
            await self._hub.end(_table(json.loads(body)["TableName"]))
        return _forwarded(answer, described)


async def _signed(request: web.Request) -> dict[str, Any]:
    if "Authorization" not in request.headers:
        raise Refusal("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    return _parsed(await request.read())


def _written(operation: str, body: bytes) -> Collection[str] | None:
    """The tables to which a call writes; None: any."""
    if operation in _MANY_TABLES:
        return None
    if operation not in _ONE_TABLE and operation != "BatchWriteItem":
        return ()
    asked = _parsed(body)
    many = asked.get("RequestItems")
    # What is malformed is for the endpoint behind to refuse.
    return {_table(name) for name in (many if isinstance(many, dict) else [asked.get("TableName", "")])}


def _table(name: str) -> str:
    """A table may be named by its ARN."""
    return str(name).rpartition("/")[2]


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refusal("SerializationException", f"The request is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refusal("SerializationException", "The request is no JSON object")
    return asked


def _answer(status: int, body: bytes) -> web.Response:
    return _checked(status, body, {"Content-Type": CONTENT_TYPE, "x-amzn-RequestId": str(uuid.uuid4())})


def _forwarded(answer: Answer, body: bytes) -> web.Response:
    """The answer of the endpoint behind, with its headers, where `body` is its own; else with a checksum of ours."""
    if body is answer.body:
        return web.Response(status=answer.status, body=body, headers=answer.headers)
    kept = {name: value for name, value in answer.headers.items() if name.lower() != "x-amz-crc32"}
    return _checked(answer.status, body, kept)


def _checked(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers={**headers, "x-amz-crc32": str(zlib.crc32(body))})


async def run(settings: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    async with http_session() as session:
        hub = Hub(Behind(Endpoint(**settings["upstream"]), session), settings["seed"])
        await hub.adopt_all()
        runner = web.AppRunner(Proxy(hub).app(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            tell_port(runner.addresses[0][1])
            await input_ends()
        finally:
            hub.close()
            await runner.cleanup()


def main() -> None:
    """Read the settings and serve."""
    serve_standin(run)


if __name__ == "__main__":
    main()
