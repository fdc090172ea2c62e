"""How Events come to an API server: counted where they are the same, bounded where they flap, never lost in silence."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from support.memory_runtime import KEY, UID, migration
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.decision import Event, WantedTask, Work
from whimbrel_operator.domain.news import MOST_ALIKE
from whimbrel_operator.domain.observed import Memory, TaskRef
from whimbrel_operator.errors import Forbidden, OperatorError, Refused, ResourceUnreadable
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.events import Recorder
from whimbrel_operator.runtime.kubernetes.flow import ALIKE, BURST, Flow
from whimbrel_operator.runtime.kubernetes.runtime import NOT_STARTED, KubernetesRuntime
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings
from whimbrel_operator.unreadable import refuse

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OWNER = Owner("Migration", "default", "shop", UID)
FLAPS = Event("Warning", "Retrying", "the source cannot be reached")
ROOT = "/apis/whimbrel.dev/v1alpha1/namespaces/default/migrations/shop"
EVENTS = "/api/v1/namespaces/default/events"


@dataclass
class Clock:
    now: datetime = T0

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Server:
    """Events as an API server keeps them, a Migration, and refusals. `forgets` an event as soon as it is made again."""

    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    writes: int = 0
    forgets: bool = False
    refusal: str = "exceeded quota: used pods=9"

    async def answer(self, request: web.Request) -> web.Response:
        if request.path.startswith(EVENTS):
            return await self._event(request, request.path.removeprefix(EVENTS).strip("/"))
        if request.path.startswith(ROOT):
            if request.method == "PUT":
                self.resource = await request.json()
            return web.json_response(self.resource)
        if request.method != "POST":
            return web.json_response({"items": []})
        return web.json_response({"message": self.refusal, "reason": "Forbidden"}, status=403)

    async def _event(self, request: web.Request, name: str) -> web.Response:
        if request.method == "GET":
            found = self.events.get(name)
            return web.json_response(found) if found else web.json_response({"message": "not found"}, status=404)
        self.writes += 1
        body = await request.json()
        name = name or body["metadata"]["name"]
        if request.method == "POST" and name in self.events:
            if self.forgets:
                del self.events[name]
            return web.json_response({"message": "already exists", "reason": "AlreadyExists"}, status=409)
        self.events[name] = {**self.events.get(name, {}), **body}
        return web.json_response(self.events[name], status=201)

    def told(self) -> list[tuple[str, str, int]]:
        return [(each["reason"], each["message"], each["count"]) for each in self.events.values()]


def served(server: Server, scene: Callable[[client.ApiClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api = client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
        try:
            await scene(api)
        finally:
            await api.close()
            await runner.cleanup()

    asyncio.run(whole())


def test_what_flaps_for_a_day_is_few_writes_and_counted_whole() -> None:
    flow, now, passed = Flow(), T0, []
    for _ in range(2 * 86400):
        passed.append(flow.passed(UID, FLAPS, now))
        now += timedelta(seconds=0.5)
    written = [each for each in passed if each is not None]
    assert len(written) <= BURST + 24 * 12 + 1
    assert sum(each.times for each in written) >= 2 * 86400 - 600
    assert not any(each.combined for each in written)


def test_what_differs_each_time_becomes_one_event() -> None:
    flow, now = Flow(), T0
    written = []
    for number in range(1000):
        each = flow.passed(UID, Event("Warning", "Retrying", f"port {number}"), now)
        written += [each] if each is not None else []
        now += timedelta(seconds=1)
    assert [each.combined for each in written[:ALIKE]] == [False] * ALIKE
    assert all(each.combined for each in written[ALIKE:])
    assert len(written) <= ALIKE + BURST + 1000 // 300 + 1


def test_all_that_one_pass_tells_of_one_reason_is_told_as_it_is() -> None:
    flow = Flow()
    found = [flow.passed(UID, Event("Warning", "NotCarried", f"view {number}"), T0) for number in range(MOST_ALIKE)]
    assert [each is not None and not each.combined for each in found] == [True] * MOST_ALIKE


def test_what_flaps_takes_nothing_from_a_step_of_the_cutover() -> None:
    flow = Flow()
    for number in range(1000):
        flow.passed(UID, FLAPS, T0)
        flow.passed(UID, Event("Warning", "Retrying", f"port {number}"), T0)
    step = flow.passed(UID, Event("Normal", "CutoverSwitched", "epoch 3"), T0)
    assert step is not None
    assert not step.combined
    assert flow.passed("another", FLAPS, T0) is not None


def test_after_a_while_what_differs_is_told_as_it_is_again() -> None:
    flow = Flow()
    for number in range(50):
        flow.passed(UID, Event("Warning", "Retrying", f"port {number}"), T0)
    later = flow.passed(UID, FLAPS, T0 + timedelta(minutes=11))
    assert later is not None
    assert not later.combined


def test_a_clock_that_is_set_back_holds_nothing_up_for_ever() -> None:
    flow = Flow()
    for _ in range(BURST):
        assert flow.passed(UID, FLAPS, T0) is not None
    assert flow.passed(UID, FLAPS, T0 - timedelta(days=1)) is None
    assert flow.passed(UID, FLAPS, T0 + timedelta(minutes=5)) is not None


def test_a_fact_that_another_operator_has_told_is_counted() -> None:
    server, clock = Server(), Clock()

    async def scene(api: client.ApiClient) -> None:
        for instance in ("one", "two", "three"):
            await Recorder(Api(api), instance, clock).tell(OWNER, FLAPS)
            clock.now += timedelta(hours=1)

    served(server, scene)
    assert server.told() == [("Retrying", FLAPS.message, 3)]
    (event,) = server.events.values()
    assert event["firstTimestamp"] < event["lastTimestamp"] == "2026-11-21T14:00:00Z"
    assert event["reportingInstance"] == "one"


def test_what_was_held_back_is_counted_with_the_next_one() -> None:
    server, clock = Server(), Clock()

    async def scene(api: client.ApiClient) -> None:
        recorder = Recorder(Api(api), "one", clock)
        for _ in range(100):
            await recorder.tell(OWNER, FLAPS)
        assert server.told()[0][2] == BURST
        clock.now += timedelta(minutes=5)
        await recorder.tell(OWNER, FLAPS)

    served(server, scene)
    assert server.told() == [("Retrying", FLAPS.message, 101)]
    assert server.writes <= 2 * (BURST + 1)


def test_many_alike_are_one_event_with_the_newest_message() -> None:
    server, clock = Server(), Clock()

    async def scene(api: client.ApiClient) -> None:
        recorder = Recorder(Api(api), "one", clock)
        for number in range(ALIKE + 5):
            await recorder.tell(OWNER, Event("Warning", "Retrying", f"port {number}"))

    served(server, scene)
    assert len(server.events) == ALIKE + 1
    assert server.told()[-1] == ("Retrying", f"(one of many alike) port {ALIKE + 4}", 5)


def test_an_event_that_the_cluster_forgets_meanwhile_is_made_anew() -> None:
    server = Server(forgets=True)

    async def scene(api: client.ApiClient) -> None:
        recorder = Recorder(Api(api), "one", Clock())
        await recorder.tell(OWNER, FLAPS)
        await recorder.tell(OWNER, FLAPS)

    served(server, scene)
    assert server.told() == [("Retrying", FLAPS.message, 1)]


def test_what_the_cluster_refuses_is_told_once_until_it_says_something_else() -> None:
    server, clock = Server(), Clock()
    server.resource = _body()
    task = WantedTask(TaskKind.PREFLIGHT, TaskRef("preflight"), Work.of(migration()))

    async def scene(api: client.ApiClient) -> None:
        runtime = KubernetesRuntime(api, PodSettings(image="w:1"), clock)
        for refusal in (*["exceeded quota: used pods=9"] * 5, *["exceeded quota: used pods=10"] * 5):
            server.refusal = refusal
            await runtime.observe(KEY, Memory())
            with pytest.raises(Refused) as caught:
                await runtime.apply(KEY, [task])
            assert caught.value.told

    served(server, scene)
    assert [(reason, count) for reason, _, count in server.told()] == [(NOT_STARTED, 1)] * 2
    assert "pods=10" in server.told()[1][1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ResourceUnreadable("spec.source: unknown"), "InvalidSpec"), (Forbidden("it may not list jobs"), "Forbidden")],
)
def test_what_cannot_be_worked_on_is_told_once(error: OperatorError, reason: str) -> None:
    server = Server(resource=_body())

    async def scene(api: client.ApiClient) -> None:
        requests = Api(api)
        news = await refuse(requests, KEY, error)
        assert news is not None
        assert news == (OWNER, Event("Warning", reason, str(error)))
        assert await refuse(requests, KEY, error) is None
        error.told = True
        server.resource = _body()
        assert await refuse(requests, KEY, error) is None, "another Event says so"

    served(server, scene)


def _body() -> dict[str, Any]:
    found = migration().model_dump(mode="json", by_alias=True, exclude_none=True)
    return found | {"metadata": {**found["metadata"], "uid": UID, "resourceVersion": "7"}}
