"""The cutover with a way back: sealed, armed, switched; what keeps it from that, and what a lost status ends."""

from typing import Any

import pytest

from support.both_ways import POLARDB, WITH_WAY_BACK, forward, steps
from support.life import Life
from support.memory_runtime import KEY, MemoryRuntime
from support.world import Failure, World
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.migration import MigrationStatus, Phase, ReverseSyncPolicy
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncPhase, ReverseSyncSpec
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.decision import WantedWayBack
from whimbrel_operator.errors import Forbidden
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key

AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
REFUSED = Failure(
    code=ExitCode.CONFIGURATION,
    error=ReportedError(category=ErrorCategory.CONFIGURATION, what="wal_level is replica", todo="set it to logical"),
)


def life(world: World | None = None, cutover: Cutover = AUTOMATIC, **spec: Any) -> Life:
    return Life(world, cutover=cutover, **(WITH_WAY_BACK | spec))


def stranger(name: str = "other") -> ReverseSync:
    return ReverseSync(metadata=ObjectMeta(name=name), spec=ReverseSyncSpec(migration_ref=SecretRef(name="shop")))


def test_the_target_is_sealed_then_the_way_back_armed_then_the_switch_made() -> None:
    found = life()
    found.until_state(CutoverState.ARMING_REVERSE)
    assert steps(found) == ["sealed"]
    found.go(1)
    assert not forward(found)
    found.until_phase(Phase.COMPLETED)
    assert steps(found) == ["sealed", "switched"]
    assert found.world.record.epoch == 3
    back = found.runtime.ways_back["shop"].back
    assert back.status.phase is ReverseSyncPhase.STREAMING
    assert back.metadata.belongs_to(found.runtime.resource.metadata.uid)
    assert [state for state in found.runtime.acts if state.startswith(("make", "end", "gone"))] == ["make shop"]
    assert "CutoverArmingReverse" in found.reasons()
    assert "Switched" in found.reasons()
    found.go(5)
    assert list(found.runtime.ways_back) == ["shop"]
    assert found.world.slot


def test_the_switch_waits_until_the_way_back_is_armed() -> None:
    found = life()
    found.until_state(CutoverState.ARMING_REVERSE)
    found.once()
    found.runtime.ways_back["shop"].silent.add("reverse")
    found.go(60)
    assert found.status.cutover.state is CutoverState.ARMING_REVERSE
    assert "ReverseSync shop is Arming" in found.status.cutover.message
    assert steps(found) == ["sealed"]
    found.runtime.ways_back["shop"].silent.clear()
    found.until_phase(Phase.COMPLETED)


@pytest.mark.parametrize("why", ["refused", "late", "stranger", "withdrawn"])
def test_a_way_back_that_is_not_armed_gives_the_cutover_up_and_the_stream_goes_on(why: str) -> None:
    found = life(cutover=Cutover(timeout="60s"))
    found.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
    found.runtime.patch(cutover=Cutover(timeout="60s", approved_plan=found.status.plan.hash))
    found.until_state(CutoverState.ARMING_REVERSE)
    found.once()
    match why:
        case "refused":
            found.world.failures = {TaskKind.REVERSE: REFUSED}
        case "late":
            found.runtime.ways_back["shop"].silent.add("reverse")
        case "stranger":
            found.runtime.strangers = (stranger(),)
            found.runtime.ways_back["shop"].silent.add("reverse")
        case "withdrawn":
            found.runtime.ways_back["shop"].silent.add("reverse")
            found.runtime.patch(cutover=Cutover(timeout="60s"))
    ending = 0
    for _ in range(200):
        found.once()
        assert not (forward(found) and found.runtime.ways_back), "what flows forward would come back"
        assert "timed-out" not in steps(found) or not found.runtime.ways_back, "unsealed before it was gone"
        if found.status.phase is Phase.FOLLOWING:
            break
        ending += "end shop" in found.runtime.acts
        if ending > 5:
            found.world.failures.clear()
            for back in found.runtime.ways_back.values():
                back.silent.clear()
        found.runtime.advance()
    assert found.status.phase is Phase.FOLLOWING
    assert steps(found) == ["sealed", "timed-out"]
    assert found.status.plan.attempt == 2
    assert found.runtime.ways_back == {}
    reason = {"refused": "ReverseSyncRefused", "late": "TimedOut", "stranger": "ReverseSyncRefused"}
    assert reason.get(why, "ApprovalWithdrawn") in found.reasons()
    if why == "refused":
        assert "wal_level is replica" in found.status.cutover.message
    found.go(3)
    assert forward(found)


class Refusing(MemoryRuntime):
    """The account may not make ReverseSyncs."""

    async def make_way_back(self, key: Key, wanted: WantedWayBack) -> None:
        raise Forbidden(f"the operator may not create reversesyncs {wanted.name} of {key}")


def test_a_cutover_whose_way_back_may_not_be_made_is_given_up_in_time() -> None:
    found = life(cutover=Cutover(timeout="60s"))
    found.runtime = Refusing(found.world, found.runtime.resource)
    found.reconciler = Reconciler(found.runtime, found.runtime.clock)
    found.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
    found.runtime.patch(cutover=Cutover(timeout="60s", approved_plan=found.status.plan.hash))
    found.until_phase(Phase.CUTTING_OVER)
    refused = 0
    while found.status.phase is Phase.CUTTING_OVER:
        try:
            found.once()
        except Forbidden:
            refused += 1
        found.runtime.advance()
        assert refused < 100
    assert refused > 10
    assert found.status.phase is Phase.FOLLOWING
    assert steps(found) == ["sealed", "timed-out"]
    found.go(3)
    assert forward(found)


@pytest.mark.parametrize("restart", ["operator", "tasks", "status"])
def test_a_restart_while_arming_goes_on_or_gives_up_and_never_echoes(restart: str) -> None:
    found = life()
    found.until_state(CutoverState.ARMING_REVERSE)
    found.once()
    match restart:
        case "operator":
            found.reconciler.forget(KEY)
        case "tasks":
            found.runtime.instances.clear()
        case "status":
            found.runtime.write_status(MigrationStatus())
    for _ in range(900):
        found.once()
        assert not (forward(found) and found.runtime.ways_back), "what flows forward would come back"
        if found.status.phase is Phase.COMPLETED:
            break
        found.runtime.advance()
    assert found.status.phase is Phase.COMPLETED
    expected = ["sealed", "timed-out", "sealed", "switched"] if restart == "status" else ["sealed", "switched"]
    assert steps(found) == expected
    assert list(found.runtime.ways_back) == ["shop"]


def test_a_status_that_is_lost_after_the_switch_ends_no_way_back() -> None:
    found = life()
    found.until_phase(Phase.COMPLETED)
    found.go(3)
    found.runtime.write_status(MigrationStatus())
    found.until_phase(Phase.COMPLETED)
    found.go(5)
    assert "end shop" not in found.runtime.acts
    assert found.runtime.acts.count("make shop") == 1


def test_one_that_a_person_deletes_after_the_switch_is_not_made_again() -> None:
    found = life()
    found.until_phase(Phase.COMPLETED)
    found.go(2)
    del found.runtime.ways_back["shop"]
    found.go(5)
    assert found.runtime.ways_back == {}


def test_without_the_wish_for_it_the_way_back_ends() -> None:
    found = life()
    found.until_phase(Phase.COMPLETED)
    found.runtime.patch(reverse_sync=ReverseSyncPolicy(polardb=POLARDB))
    found.go(5)
    assert found.runtime.ways_back == {}
    assert found.world.slot == ""


def test_a_pause_while_arming_keeps_what_is_there_and_goes_on_afterwards() -> None:
    found = life()
    found.until_state(CutoverState.ARMING_REVERSE)
    found.once()
    found.runtime.patch(paused=True)
    found.go(5)
    assert (found.status.cutover.state, list(found.runtime.ways_back)) == (CutoverState.ARMING_REVERSE, ["shop"])
    found.runtime.patch(paused=False)
    found.until_phase(Phase.COMPLETED)
    assert steps(found) == ["sealed", "switched"]


def test_a_cancellation_while_arming_leaves_nothing() -> None:
    found = life()
    found.until_state(CutoverState.ARMING_REVERSE)
    found.once()
    found.runtime.patch(cancel=True)
    found.until_phase(Phase.CANCELLED)
    found.go(5)
    assert (found.runtime.ways_back, found.world.slot) == ({}, "")


def test_the_gate_tells_what_the_look_found_and_looks_again() -> None:
    found = life(World(way_back_problems=["wal_level is replica; set it to logical"]))
    found.until_phase(Phase.FOLLOWING)
    found.until(lambda status: status.way_back.checked_at is not None)
    assert found.said("ReverseSyncReady")[:2] == ("False", "Refused")
    assert "wal_level" in found.said("ReverseSyncReady")[2]
    found.go(10)
    assert found.status.phase is Phase.FOLLOWING
    assert found.said("Stalled")[0] == "False"
    found.world.way_back_problems = []
    found.until(lambda _: found.said("ReverseSyncReady")[0] == "True")
    found.until_phase(Phase.COMPLETED)


def test_a_look_that_fails_closes_the_gate_and_stalls_nothing() -> None:
    found = life(World(failures={TaskKind.REVERSE: REFUSED}))
    found.until_phase(Phase.FOLLOWING)
    found.go(5)
    assert found.said("ReverseSyncReady")[:2] == ("False", "LookFailed")
    assert "wal_level is replica" in found.said("ReverseSyncReady")[2]
    assert found.said("Stalled")[0] == "False"


def test_another_reverse_sync_in_the_way_closes_the_gate() -> None:
    found = life()
    found.runtime.strangers = (stranger(),)
    found.until_phase(Phase.FOLLOWING)
    found.go(10)
    assert found.said("ReverseSyncReady")[:2] == ("False", "AnotherWayBack")
    assert "kubectl delete reversesync other" in found.said("ReverseSyncReady")[2]


def test_a_look_is_not_repeated_while_it_is_young() -> None:
    found = life(cutover=Cutover())
    found.until(lambda status: status.way_back.checked_at is not None)
    found.go(60)
    assert [ref.task_id for ref in found.runtime.started].count("way-back-look") == 1
