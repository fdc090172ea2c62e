"""The agent's way to the API server: plain JSON objects over the connection that `kubernetes.aio` sets up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from kubernetes.aio import client, config

from whimbrel_testbed.kubernetes.agent.shapes import Json

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_WATCH_SECONDS = 300
_CALL = aiohttp.ClientTimeout(total=10)
_WATCH = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30)
# Short at first: for a moment after a pod is bound, the API server's node rules may not know what the node may read.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_LOG = logging.getLogger(__name__)


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status


AWAY = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What is raised while the API server cannot be reached."""


@dataclass(frozen=True)
class Listed:
    """All objects, as they were at one moment."""

    items: list[Json]


@dataclass(frozen=True)
class Changed:
    """One object that was added, modified or deleted since."""

    kind: str
    item: Json


class Api:
    """Calls and watches; made by `connect`."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client
        address = urlsplit(api_client.configuration.host)
        self.host = address.hostname or ""
        self.port = address.port or 443

    async def call(self, method: str, path: str, body: Json | None = None, content: str = JSON) -> Json:
        """Make one call; return the answer. Raises ApiError, or one of AWAY."""
        async with await self._request(method, path, _CALL, body=body, content=content) as response:
            return await _answer(response)

    async def follow(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Listed | Changed]:
        """List, then tell each change; list again whenever the watch ends, for ever: nothing is missed for long."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async for news in self._list_and_watch(path, query):
                    yield news
                    pause = _FIRST_PAUSE
            except (ApiError, *AWAY) as error:
                _LOG.info("Watching %s again in %s s: %s", path, pause, error or type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _list_and_watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Listed | Changed]:
        async with await self._request("GET", path, _CALL, query) as response:
            listed = await _answer(response)
        kind = str(listed["kind"]).removesuffix("List")
        yield Listed([{"kind": kind, **item} for item in listed.get("items") or []])
        async for change in self._watch(path, {**query, "resourceVersion": listed["metadata"]["resourceVersion"]}):
            yield change

    async def _watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Changed]:
        wanted = {**query, "watch": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        async with await self._request("GET", path, _WATCH, wanted) as response:
            if response.status != 200:
                await _answer(response)
            async for line in response.content:
                if not line.endswith(b"\n"):
                    return  # cut off in the middle: the API server went away
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), str(event["object"].get("message")))
                yield Changed(event["type"], event["object"])

    async def _request(
        self, method: str, path: str, timeout: aiohttp.ClientTimeout, query: Mapping[str, str] | None = None,
        *, body: Json | None = None, content: str = JSON,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        request = await self._client.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params={"Content-Type": content}, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        response: aiohttp.ClientResponse = (await self._client.call_api(*request, _request_timeout=timeout)).response
        return response

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


async def connect(kubeconfig: Path) -> Api:
    """Return the API server that a kubeconfig file names."""
    settings = client.Configuration()
    load: Any = config.load_kube_config
    await load(str(kubeconfig), client_configuration=settings, persist_config=False)
    settings.connection_pool_maxsize = 0  # no limit: each watch holds a connection
    settings.client_session_kwargs = {"trust_env": False}
    return Api(client.ApiClient(settings))


async def _answer(response: aiohttp.ClientResponse) -> Json:
    """Return the object that was answered. A server that starts or ends may answer with plain text, even with 200."""
    text = await response.text()
    try:
        answer: Json = json.loads(text)
    except ValueError:
        raise ApiError(max(response.status, 500), f"no JSON but: {text[:200]}") from None
    if response.status >= 400:
        raise ApiError(response.status, str(answer.get("message") or answer.get("reason") or "refused"))
    return answer
