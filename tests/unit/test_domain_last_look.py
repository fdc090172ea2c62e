"""What the operator does when a fence finds that the source was written to, or cannot look at it."""

from typing import Any

import pytest

from support.both_ways import WITH_WAY_BACK, forward, steps
from support.life import Life
from support.world import World, number
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, FreezeMethod, FreezePolicy, SourceFreeze
from whimbrel_api.migration import Phase
from whimbrel_api.reports import Record
from whimbrel_api.tasks import ExitCode, Orders, TaskFile
from whimbrel_operator.domain.observed import TaskRef

USER = Cutover(timeout="60s")
FROZEN = FreezePolicy(method=FreezeMethod.SUPER_READ_ONLY)
OPERATOR = Cutover(timeout="60s", source_freeze=SourceFreeze.OPERATOR, freeze=FROZEN)
WRITTEN = {"shop.a": 2}


def at_the_fence(cutover: Cutover = USER, *, task: str = "fence-switched", **spec: Any) -> Life:
    """A cutover whose fence is ordered and has not had its turn."""
    life = Life(World(written=WRITTEN), cutover=cutover, **spec)
    life.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
    life.runtime.patch(cutover=cutover.model_copy(update={"approved_plan": life.status.plan.hash}))
    life.until(lambda _: TaskRef(task) in life.runtime.instances)
    return life


def write(life: Life) -> None:
    life.world.position = f"p{number(life.world.position) + 1}"


def last_order(life: Life, step: str) -> TaskFile:
    return next(order for order in reversed(life.world.fences) if order.fence.step == step)


def test_a_write_before_the_switch_is_named_and_the_freeze_starts_again_under_the_same_approval() -> None:
    life = at_the_fence()
    write(life)
    life.until_state(CutoverState.FREEZING)
    assert "shop.a (2)" in life.status.cutover.message
    assert "WrittenAfterFreeze" in life.reasons()
    life.until_phase(Phase.COMPLETED)
    assert steps(life) == ["refused", "switched"]
    assert life.world.switched_at == life.world.position
    assert life.status.plan.attempt == 1


def test_a_write_though_whimbrel_had_frozen_the_source_gives_up_and_opens_it() -> None:
    life = at_the_fence(OPERATOR)
    write(life)
    life.until_phase(Phase.FOLLOWING)
    assert "though frozen by super_read_only" in life.status.cutover.message
    assert (life.world.frozen, life.status.plan.attempt) == (False, 2)


def test_a_write_before_the_seal_starts_the_freeze_again() -> None:
    life = at_the_fence(task="fence-sealed", **WITH_WAY_BACK)
    write(life)
    life.until_phase(Phase.COMPLETED)
    assert steps(life) == ["refused", "sealed", "switched"]
    assert "make shop" in life.runtime.acts


def test_a_write_while_the_way_back_is_armed_gives_up_tears_it_down_and_the_stream_goes_on() -> None:
    life = at_the_fence(**WITH_WAY_BACK)
    assert life.runtime.ways_back
    write(life)
    life.until_phase(Phase.FOLLOWING)
    assert steps(life) == ["sealed", "refused", "timed-out"]
    assert "shop.a (2), while the way back was armed" in life.status.cutover.message
    life.go(3)
    assert (life.runtime.ways_back, life.world.slot) == ({}, "")
    assert forward(life)
    assert life.world.record.stream_position == life.world.position
    assert life.status.plan.attempt == 2


@pytest.mark.parametrize("task", ["fence-sealed", "fence-switched"])
def test_a_source_that_cannot_be_looked_at_is_waited_for_until_the_time_is_up(task: str) -> None:
    life = at_the_fence(task=task, **WITH_WAY_BACK)
    life.world.unreadable = True
    life.go(10)
    assert life.status.phase is Phase.CUTTING_OVER
    assert "refused" not in steps(life)
    life.until_phase(Phase.FOLLOWING)
    assert "switched" not in steps(life)
    if task == "fence-switched":  # a seal may be given up whatever has become of it, and its time is up a second before
        assert "SourceNotLookedAt" in life.reasons()
        assert "could not be looked at before the switch: connection refused" in life.status.cutover.message


def test_a_source_that_answers_again_is_switched_from() -> None:
    life = at_the_fence()
    life.world.unreadable = True
    life.go(10)
    life.world.unreadable = False
    life.until_phase(Phase.COMPLETED)
    assert steps(life) == ["switched"]


def test_nothing_leads_back_while_it_is_not_known_what_the_fence_has_done() -> None:
    life = at_the_fence()
    life.runtime.silent.add("fence-switched")
    write(life)
    life.runtime.patch(cutover=life.runtime.resource.spec.cutover.model_copy(update={"approved_plan": ""}))  # type: ignore[union-attr]
    life.go(80)
    assert life.status.phase is Phase.CUTTING_OVER
    assert life.status.cutover.state is not CutoverState.TIMED_OUT


def test_a_fence_whose_word_is_lost_is_read_from_the_target() -> None:
    life = at_the_fence()
    write(life)
    life.runtime.lost.add("fence-switched")
    life.until_phase(Phase.COMPLETED)
    assert TaskRef("inspect-switched") in life.runtime.started
    assert steps(life) == ["refused", "switched"]


def test_a_late_fence_of_the_position_before_changes_nothing() -> None:
    """Its pod looked before the write, or was slow to start; meanwhile the freeze began again."""
    life = at_the_fence()
    write(life)
    life.until_state(CutoverState.FREEZING)
    late = last_order(life, "switched")
    life.until_phase(Phase.COMPLETED)
    before = life.world.record
    assert life.world.work(late, Orders(), life.runtime.now)[1] is ExitCode.FENCED_OUT
    assert life.world.record == before


def test_after_a_refusal_that_was_given_up_a_new_approval_switches() -> None:
    life = at_the_fence(**WITH_WAY_BACK)
    write(life)
    life.until_phase(Phase.FOLLOWING)
    life.go(20)
    assert life.status.phase is Phase.FOLLOWING
    life.runtime.patch(cutover=USER.model_copy(update={"approved_plan": life.status.plan.hash}))
    life.until_phase(Phase.COMPLETED)
    assert steps(life) == ["sealed", "refused", "timed-out", "sealed", "switched"]


def test_an_automatic_cutover_that_was_refused_goes_on_by_itself() -> None:
    life = at_the_fence(Cutover(timeout="60s", mode=CutoverMode.AUTOMATIC))
    write(life)
    life.until_phase(Phase.COMPLETED)
    assert steps(life) == ["refused", "switched"]


def test_the_verdict_is_the_newest_word_on_an_order() -> None:
    life = at_the_fence()
    assert Record().verdict is None
    for step in ("sealed", "refused", "freezing"):
        life.world.add(step, life.runtime.now, "p1")
    record = life.world.record
    assert (record.verdict and record.verdict.step, record.traffic and record.traffic.step) == ("refused", "sealed")
