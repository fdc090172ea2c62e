"""A ReverseSync says that it is not there yet: once, steadily, and with what to do."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from support.memory_runtime import START
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncPhase, ReverseSyncSpec, ReverseSyncStatus
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.observed import Memory, ObservedReverseSync
from whimbrel_operator.domain.reverse_sync import decide_reverse_sync
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key, Observation, Status

BACK = ReverseSync(
    metadata=ObjectMeta(name="back", namespace="shop", generation=3),
    spec=ReverseSyncSpec(migration_ref=SecretRef(name="shop")),
)
KEY = Key("shop", "ReverseSync", "back")


def test_it_stalls_with_a_reason_and_the_way_out() -> None:
    decision = decide_reverse_sync(ObservedReverseSync(BACK), START)
    said = {each.type: (each.status, each.reason) for each in decision.status.conditions}
    assert said == {
        "Ready": ("False", "NotSupportedYet"),
        "Reconciling": ("False", "NotSupportedYet"),
        "Stalled": ("True", "NotSupportedYet"),
    }
    stalled = find(decision.status.conditions, "Stalled")
    assert stalled is not None
    assert "kubectl delete reversesync back -n shop" in stalled.message
    assert (decision.status.phase, decision.status.observed_generation) == (ReverseSyncPhase.PENDING, 3)
    assert decision.wanted == ()
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "NotSupportedYet")]


def test_it_says_so_once_and_keeps_its_times() -> None:
    first = decide_reverse_sync(ObservedReverseSync(BACK), START).status
    later = START + timedelta(hours=1)
    again = BACK.model_copy(update={"status": first})
    decision = decide_reverse_sync(ObservedReverseSync(again), later)
    assert (decision.status, decision.events) == (first, ())
    edited = again.model_copy(update={"metadata": BACK.metadata.model_copy(update={"generation": 4})})
    decision = decide_reverse_sync(ObservedReverseSync(edited), later)
    assert decision.status.observed_generation == 4
    assert {each.observed_generation for each in decision.status.conditions} == {4}
    assert {each.last_transition_time for each in decision.status.conditions} == {START}
    assert decision.events == ()


@dataclass
class OneReverseSync:
    """The runtime port with one ReverseSync."""

    resource: ReverseSync = BACK
    written: int = 0
    events: list[Event] = field(default_factory=list)

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        return ObservedReverseSync(self.resource, memory=memory, resource_version=str(self.written))

    async def apply(self, key: Key, wanted: object) -> None:
        raise AssertionError(f"nothing is to be made: {wanted}")

    async def remove(self, key: Key, task_id: str) -> None:
        raise AssertionError(f"nothing is to be removed: {task_id}")

    async def report(self, key: Key, status: Status, resource_version: str) -> None:
        assert isinstance(status, ReverseSyncStatus)
        assert resource_version == str(self.written)
        self.resource, self.written = self.resource.model_copy(update={"status": status}), self.written + 1

    async def event(self, key: Key, event: Event) -> None:
        self.events.append(event)


def test_the_reconciler_reports_it_and_then_rests() -> None:
    runtime = OneReverseSync()
    reconciler = Reconciler(runtime, lambda: START)
    assert asyncio.run(reconciler.reconcile(KEY)).changed
    assert not asyncio.run(reconciler.reconcile(KEY)).changed
    assert (runtime.written, len(runtime.events)) == (1, 1)
