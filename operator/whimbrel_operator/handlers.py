"""kopf's registrations: a daemon a resource, bells for its events and its children's, a way to the API server.

Level-based: an event carries nothing but the news that there is some. kopf spawns no daemon for a resource that is
being deleted already, so a deletion has a handler of its own, which also serves what a former process has left.
"""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf
from kubernetes.aio import client

from whimbrel_api.base import GROUP, VERSION
from whimbrel_operator.daemon import Clearing, Daemon, Shared
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs.names import FIELD_MANAGER as MANAGER
from whimbrel_operator.specs.names import MANAGED_BY, UID, every_child
from whimbrel_operator.wakeups import referred

FINALIZER: Final = f"{GROUP}/finalizer"
RESOURCES: Final = ("migrations", "validations", "reversesyncs")
CHILDREN: Final = ((GROUP, VERSION, "workerreports"), ("batch", "v1", "jobs"))
WATCH_IDLE: Final = 70.0
"""Seconds without a byte after which a watch is opened anew: the API server sends a bookmark each minute."""
_STOPS: Final = 3.0


class NothingKept(kopf.DiffBaseStorage):
    """Remembers no former spec at the resource: nothing here asks what has changed, and GitOps would see it."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002
        """What kopf compares: always the same."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        """What it was before: the same."""
        return kopf.BodyEssence()

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is written."""


def kopf_settings() -> kopf.OperatorSettings:
    """kopf's settings: of its own it writes the finalizer only, and its progress while a resource is being deleted."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = NothingKept()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False, touch_key="touched")
    settings.watching.label_selectors["jobs"] = every_child()
    settings.watching.label_selectors["workerreports"] = every_child()
    settings.watching.server_timeout = 600
    settings.watching.inactivity_timeout = WATCH_IDLE
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 4, 8, 15, 15, 15)
    settings.background.instant_exit_timeout = _STOPS
    return settings


def register(shared: Shared, api: client.ApiClient) -> kopf.OperatorRegistry:
    """All handlers, in a registry of their own."""
    registry = kopf.OperatorRegistry()
    _login(registry, api)
    for plural in RESOURCES:
        _resource(registry, plural, shared)
    for group, version, plural in CHILDREN:
        _child(registry, (group, version, plural), shared)
    return registry


def _resource(registry: kopf.OperatorRegistry, plural: str, shared: Shared) -> None:
    where = (GROUP, VERSION, plural)

    @kopf.daemon(*where, id="reconcile", registry=registry, cancellation_timeout=_STOPS)
    async def reconcile(body: kopf.Body, stopped: Any, **_: Any) -> None:
        await _until(stopped, Daemon(shared, shared.board.join(key_of(body), _uid(body), referred(body))).run())

    @kopf.on.delete(*where, id="clear", registry=registry)
    async def clear(body: kopf.Body, **_: Any) -> None:
        await Clearing(shared, key_of(body), _uid(body)).run()

    @kopf.on.event(*where, id="changed", registry=registry)
    async def changed(event: Mapping[str, Any], body: kopf.Body, **_: Any) -> None:
        gone = event["type"] == "DELETED"
        if shared.board.changed(_uid(body), body) or gone:
            shared.board.around(key_of(body), body)
        if gone:
            shared.board.deleted(_uid(body))
            shared.metrics.forget(key_of(body))


def _child(registry: kopf.OperatorRegistry, where: tuple[str, str, str], shared: Shared) -> None:
    @kopf.on.event(*where, id="child", registry=registry, labels={MANAGED_BY: MANAGER, UID: kopf.PRESENT})
    async def child(labels: Mapping[str, str], **_: Any) -> None:
        shared.board.child(labels[UID])


async def _until(stopped: Any, coroutine: Any) -> None:
    """Run the coroutine until it ends or kopf asks to stop; a pass is given up where it is, which does no harm."""
    work, asked = asyncio.ensure_future(coroutine), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        asked.cancel()
        await asyncio.gather(work, asked, return_exceptions=True)


def _login(registry: kopf.OperatorRegistry, api: client.ApiClient) -> None:
    @kopf.on.login(id="login", registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=api.configuration.host, aiohttp_session=_session(api))


def _session(api: client.ApiClient) -> aiohttp.ClientSession:
    """kopf's own connections, by the same certificates as the client, and by the token as it stands at each request."""

    async def sign(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams) -> None:
        found = await api.configuration.auth_settings()
        token = found.get("BearerToken", {}).get("value")
        if token:
            request.headers["Authorization"] = token

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(sign)
    connector = aiohttp.TCPConnector(limit=0, ssl=api.rest_client.ssl_context)
    return aiohttp.ClientSession(
        connector=connector, trace_configs=[trace], headers={"User-Agent": "whimbrel-operator"}
    )


def key_of(body: Mapping[str, Any]) -> Key:
    """The key of a resource."""
    meta = body["metadata"]
    return Key(str(meta["namespace"]), str(body["kind"]), str(meta["name"]))


def _uid(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["uid"])


# Of kopf's peering, which is not used. Without one kopf asks for the account's name, and the image's user has none.
_IDENTITY: Final[Any] = MANAGER


async def serve(
    registry: kopf.OperatorRegistry, namespaces: tuple[str, ...], stop: asyncio.Event, on_spawned: Any
) -> None:
    """Run kopf until `stop` is set. `on_spawned` is called once its tasks are there: it takes signals for itself.

    Raises what has ended one of kopf's tasks, such as a watch that was refused.
    """
    existing = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        identity=_IDENTITY,
    )
    on_spawned()
    running = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=existing))
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await running
            return
        # kopf may never end after a failure: its other watches wait for a login by tasks that it has ended already.
        await asyncio.wait((running,), timeout=_STOPS)
        for each in ended:
            if not each.cancelled():
                each.result()
    finally:
        running.cancel()
