"""What the Kubernetes runtime asks an API server for the ReverseSync of a Migration's own, by a server of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from support.both_ways import WITH_WAY_BACK
from support.memory_runtime import KEY, UID, migration
from whimbrel_api.base import SecretRef
from whimbrel_api.reverse_sync import ReverseSyncSpec
from whimbrel_operator.domain.decision import WantedWayBack
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.specs.settings import PodSettings

ROOT = "/apis/whimbrel.dev/v1alpha1/namespaces/default"
WANTED = WantedWayBack("shop", ReverseSyncSpec(migration_ref=SecretRef(name="shop")), make=True)


@dataclass
class Server:
    """A Migration that is there, and the ReverseSyncs that are made; what else is asked for is empty."""

    backs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == f"{ROOT}/migrations/shop":
            return web.json_response(self._migration())
        if request.path.startswith(f"{ROOT}/reversesyncs"):
            return await self._back(request, request.path.removeprefix(f"{ROOT}/reversesyncs").strip("/"))
        return web.json_response({"items": []})

    def _migration(self) -> dict[str, Any]:
        found = migration(**WITH_WAY_BACK).model_dump(mode="json", by_alias=True, exclude_none=True)
        return found | {"metadata": {**found["metadata"], "uid": UID, "resourceVersion": "7"}}

    async def _back(self, request: web.Request, name: str) -> web.Response:
        if request.method == "GET":
            return web.json_response({"items": list(self.backs.values())})
        body = await request.json()
        if request.method == "POST":
            name = body["metadata"]["name"]
            if name in self.backs:
                return web.json_response({"message": "already exists"}, status=409)
            self.backs[name] = body | {"metadata": {**body["metadata"], "uid": "b1", "resourceVersion": "1"}}
            return web.json_response(self.backs[name], status=201)
        version = self.backs[name]["metadata"]["resourceVersion"]
        if body["preconditions"] != {"uid": "b1", "resourceVersion": version}:
            return web.json_response({"message": "the precondition failed"}, status=409)
        return web.json_response(self.backs.pop(name))


async def served(server: Server, scene: Callable[[KubernetesRuntime], Awaitable[None]]) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api = client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}"))
    try:
        await scene(KubernetesRuntime(api, PodSettings(image="w:1"), lambda: datetime.now(UTC)))
    finally:
        await api.close()
        await runner.cleanup()


def test_it_is_made_once_seen_as_its_own_and_deleted_by_its_uid() -> None:
    server = Server()

    async def seen(runtime: KubernetesRuntime) -> View:
        found = await runtime.observe(KEY, Memory())
        assert isinstance(found, Observed)
        return View(found, datetime.now(UTC), Memory())

    async def scene(runtime: KubernetesRuntime) -> None:
        assert (await seen(runtime)).way_back is None
        await runtime.make_way_back(KEY, WANTED)
        await runtime.make_way_back(KEY, WANTED)
        made = await seen(runtime)
        assert made.way_back is not None
        assert made.strange_ways_back == ()
        await runtime.end_way_back(KEY, made.way_back)
        assert (await seen(runtime)).way_back is None

    asyncio.run(served(server, scene))
    assert f"DELETE {ROOT}/reversesyncs/shop" in server.asked
    assert server.asked.count(f"POST {ROOT}/reversesyncs") == 2


def test_one_of_another_owner_is_a_stranger() -> None:
    spec = {"migrationRef": {"name": "shop"}}
    meta = {"name": "other", "namespace": "default", "uid": "x", "resourceVersion": "1"}
    server = Server(backs={"other": {"metadata": meta, "spec": spec}})

    async def scene(runtime: KubernetesRuntime) -> None:
        found = await runtime.observe(KEY, Memory())
        assert isinstance(found, Observed)
        view = View(found, datetime.now(UTC), Memory())
        assert view.way_back is None
        assert [each.metadata.name for each in view.strange_ways_back] == ["other"]

    asyncio.run(served(server, scene))


def test_one_that_went_on_since_it_was_seen_is_not_deleted_by_an_old_decision() -> None:
    """An operator that stood still meanwhile would else end a way back with which another has made the switch."""
    server = Server()

    async def scene(runtime: KubernetesRuntime) -> None:
        await runtime.observe(KEY, Memory())
        await runtime.make_way_back(KEY, WANTED)
        found = await runtime.observe(KEY, Memory())
        assert isinstance(found, Observed)
        server.backs["shop"]["metadata"]["resourceVersion"] = "2"
        await runtime.end_way_back(KEY, found.ways_back[0])
        assert list(server.backs) == ["shop"]
        found = await runtime.observe(KEY, Memory())
        assert isinstance(found, Observed)
        await runtime.end_way_back(KEY, found.ways_back[0])
        assert server.backs == {}

    asyncio.run(served(server, scene))
