"""Calls to the endpoint behind the stream server: signed ones of our own, and clients' calls handed on unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

TABLES: Final = "DynamoDB_20120810"
STREAMS: Final = "DynamoDBStreams_20120810"
CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_HOP: Final = {"connection", "content-length", "transfer-encoding", "keep-alive"}
_OWN: Final = ("User-Agent", "Content-Type", "Accept", "Accept-Encoding")


@dataclass
class UpstreamError(Exception):
    """The endpoint behind refused one of our own calls: its error's short type and its text."""

    operation: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.operation} was refused by the endpoint behind the stream server: {self.kind}: {self.text}"


@dataclass(frozen=True)
class Endpoint:
    """Where DynamoDB is, and the keys for it."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """An answer on its way to a client."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Behind:
    """The endpoint behind; `session` is the HTTP client, which must not open compressed bodies."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self.endpoint, self._session = endpoint, session
        credentials = Credentials(endpoint.access_key_id, endpoint.secret_access_key)
        self._signer = SigV4Auth(credentials, "dynamodb", endpoint.region)

    async def call(self, prefix: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call an operation of TABLES or STREAMS; UpstreamError where it is refused."""
        headers = {"X-Amz-Target": f"{prefix}.{operation}", "Content-Type": CONTENT_TYPE, "Accept-Encoding": "identity"}
        signed = AWSRequest("POST", self.endpoint.endpoint + "/", data=json.dumps(request).encode(), headers=headers)
        self._signer.add_auth(signed)
        async with self._session.post(signed.url, data=signed.data, headers=dict(signed.headers)) as answer:
            body: dict[str, Any] = json.loads(await answer.read())
        if answer.status != 200:
            kind = str(body.get("__type", answer.status)).rpartition("#")[2]
            raise UpstreamError(operation, kind, str(body.get("message", body.get("Message", ""))))
        return body

    async def forward(self, request: web.Request, body: bytes) -> Answer:
        """Hand a client's request on, its Host header and signature untouched."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        asked = self._session.request(
            request.method, self.endpoint.endpoint + request.path_qs, data=body, headers=headers, skip_auto_headers=_OWN
        )
        async with asked as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return Answer(answer.status, kept, await answer.read())


def http_session() -> aiohttp.ClientSession:
    """The HTTP client for `Behind`: any number of connections, no bound on how long an answer takes."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)
