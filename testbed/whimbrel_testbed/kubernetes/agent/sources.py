"""Secrets and ConfigMaps that pods use, watched one by one, as a node's rights allow; and service-account tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from whimbrel_testbed.kubernetes.agent.bell import Bell
from whimbrel_testbed.kubernetes.agent.client import Api, Listed
from whimbrel_testbed.kubernetes.agent.shapes import Json, Reference
from whimbrel_testbed.kubernetes.agent.volumes import TokenWish

_RENEW_AFTER = 0.8


@dataclass
class _Watched:
    task: asyncio.Task[None] | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    item: Json | None = None
    bells: list[Bell] = field(default_factory=list)


class Sources:
    """The present Secrets and ConfigMaps of whoever holds them; shared by the pods of a node."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._watched: dict[tuple[str, Reference], _Watched] = {}

    async def hold(self, namespace: str, references: Iterable[Reference], bell: Bell) -> None:
        """Begin to watch for a pod, whose bell is rung at each change; return once all are known (or known to miss)."""
        entries = [self._entry(namespace, reference) for reference in references]
        for entry in entries:
            entry.bells.append(bell)
        for entry in entries:
            await entry.known.wait()

    def release(self, bell: Bell) -> None:
        """End what is watched for a pod; nothing is wrong where it holds nothing."""
        for key, entry in list(self._watched.items()):
            entry.bells = [other for other in entry.bells if other is not bell]
            if not entry.bells and entry.task is not None:
                entry.task.cancel()
                del self._watched[key]

    def find(self, namespace: str, reference: Reference) -> Json | None:
        """Return the object as it is now, None where there is none."""
        entry = self._watched.get((namespace, reference))
        return None if entry is None else entry.item

    def _entry(self, namespace: str, reference: Reference) -> _Watched:
        key = (namespace, reference)
        if key not in self._watched:
            self._watched[key] = entry = _Watched()
            entry.task = asyncio.create_task(self._watch(namespace, reference, entry))
        return self._watched[key]

    async def _watch(self, namespace: str, reference: Reference, entry: _Watched) -> None:
        path = f"/api/v1/namespaces/{namespace}/{reference.resource}"
        async for news in self._api.follow(path, {"fieldSelector": f"metadata.name={reference.name}"}):
            if isinstance(news, Listed):
                entry.item = news.items[0] if news.items else None
            else:
                entry.item = None if news.kind == "DELETED" else news.item
            entry.known.set()
            for bell in entry.bells:
                bell.ring()


class TokenJar:
    """The tokens of one pod, each renewed when four fifths of its time are over."""

    def __init__(self, api: Api, pod: Json, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._metadata, self._clock = api, pod["metadata"], clock
        account = pod["spec"].get("serviceAccountName") or "default"
        self._path = f"/api/v1/namespaces/{self._metadata['namespace']}/serviceaccounts/{account}/token"
        self._due: dict[TokenWish, float] = {}
        self.tokens: dict[TokenWish, str] = {}

    async def renew(self, wishes: Iterable[TokenWish]) -> None:
        """Fetch each token that is missing or due. Raises ApiError, or one of client.AWAY."""
        for wish in wishes:
            if self._clock() >= self._due.get(wish, 0.0):
                self.tokens[wish] = await self._fetch(wish)
                self._due[wish] = self._clock() + wish.seconds * _RENEW_AFTER

    def seconds_left(self) -> float | None:
        """Return the time until a token is due, None where there are none."""
        return max(0.0, min(self._due.values()) - self._clock()) if self._due else None

    async def _fetch(self, wish: TokenWish) -> str:
        bound = {key: self._metadata[key] for key in ("name", "uid")}
        spec: Json = {"expirationSeconds": wish.seconds, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **bound}}
        if wish.audience:
            spec["audiences"] = [wish.audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str((await self._api.call("POST", self._path, body))["status"]["token"])
