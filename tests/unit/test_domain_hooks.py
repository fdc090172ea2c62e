"""Hooks and switches of a cutover over the in-memory runtime: their order, their ends, restarts, what is lost."""

from dataclasses import replace

import pytest

from support.life import Life
from support.memory_runtime import migration
from support.world import World
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.hooks import ConfigMapSwitch, Hook, HookPoint, Hooks, HookState, HookStatus, SwitchStep
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.domain.cutover import hooks as domain
from whimbrel_operator.domain.cutover.hooks import RETRY_AFTER
from whimbrel_operator.domain.migration.plan import plan_hash
from whimbrel_operator.reconcile import Reconciler


def hook(name: str, **more: object) -> Hook:
    return Hook.model_validate({"name": name, "image": "tools:1", "service_account_name": "mover", **more})


SWITCH = SwitchStep(
    name="host", service_account_name="mover", config_map=ConfigMapSwitch(name="app", key="host", value="new")
)
HOOKS = Hooks(
    before_freeze=[hook("stop"), hook("wait")], after_drain=[hook("look")], after_switch=[hook("start"), hook("tell")]
)
ALL = Cutover(mode=CutoverMode.AUTOMATIC, hooks=HOOKS, switch=[SWITCH])


class Cut(Life):
    """A migration that cuts over by itself, whose hooks end when the test says so."""

    def __init__(self, cutover: Cutover = ALL, world: World | None = None) -> None:
        super().__init__(world, cutover=cutover)

    def until_hook(self, run_id: str) -> None:
        self.until(lambda status: any(each.id == run_id for each in status.cutover.hooks))

    def end(self, run_id: str, state: HookState = HookState.SUCCEEDED, message: str = "") -> None:
        self.until_hook(run_id)
        job = self.runtime.hooks[run_id]
        self.runtime.hooks[run_id] = replace(job, state=state, finished_at=self.runtime.now, message=message)

    def hooks(self) -> dict[str, HookState]:
        return {each.id: each.state for each in self.status.cutover.hooks}

    def begun(self) -> list[str]:
        return [act.removeprefix("hook ") for act in self.runtime.acts if act.startswith("hook ")]

    def cutting(self) -> tuple[Phase, CutoverState]:
        return self.status.phase, self.status.cutover.state


def drained(life: Cut) -> str:
    """The run of the hook after the drain, whose name holds the position."""
    life.until(lambda status: any(each.point is HookPoint.AFTER_DRAIN for each in status.cutover.hooks))
    return next(each.id for each in life.status.cutover.hooks if each.point is HookPoint.AFTER_DRAIN)


def test_each_runs_once_in_its_place_and_the_next_waits_for_its_end() -> None:
    life = Cut()
    life.until_hook("before-freeze-stop-1")
    life.go(5)
    assert life.cutting() == (Phase.CUTTING_OVER, CutoverState.FREEZING)
    assert life.begun() == ["before-freeze-stop-1"]
    assert "freeze" not in {ref.task_id for ref in life.runtime.instances}
    assert life.status.cutover.message == "hook stop (before freeze) has not ended; see job default/" \
        "shop-before-freeze-stop-1"  # fmt: skip
    life.end("before-freeze-stop-1")
    life.end("before-freeze-wait-1")
    look = drained(life)
    life.go(5)
    assert life.cutting() == (Phase.CUTTING_OVER, CutoverState.DRAINING)
    life.end(look)
    life.until_phase(Phase.COMPLETED)
    life.end("switch-host-1")
    life.end("after-switch-start-1")
    assert life.said("HooksSucceeded")[:2] == ("Unknown", "InProgress")
    life.end("after-switch-tell-1")
    life.go(3)
    assert life.begun() == [
        "before-freeze-stop-1", "before-freeze-wait-1", look, "switch-host-1", "after-switch-start-1",
        "after-switch-tell-1",
    ]  # fmt: skip
    assert life.said("HooksSucceeded")[:2] == ("True", "Succeeded")
    assert [reason for reason in life.reasons() if reason.startswith("Hook")] == ["HookStarted", "HookSucceeded"] * 6


def test_without_any_nothing_is_said_and_nothing_waits() -> None:
    life = Cut(Cutover(mode=CutoverMode.AUTOMATIC))
    life.until_phase(Phase.COMPLETED)
    assert life.begun() == []
    assert life.status.cutover.hooks == []
    assert "HooksSucceeded" not in {each.type for each in life.status.conditions}


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        (HookState.FAILED, "HookFailed", "hook stop (before freeze) failed: it took too long"),
        (HookState.LOST, "HookLost", "hook stop (before freeze) lost: its Job was taken away before its end was seen"),
    ],
)
def test_one_that_fails_before_the_switch_gives_the_cutover_up(state: HookState, reason: str, told: str) -> None:
    life = Cut(ALL.model_copy(update={"mode": CutoverMode.MANUAL}))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.runtime.patch(cutover=ALL.model_copy(update={"mode": CutoverMode.MANUAL, "approved_plan": plan_of(life)}))
    life.until_hook("before-freeze-stop-1")
    if state is HookState.LOST:
        life.runtime.hooks.clear()
    else:
        life.end("before-freeze-stop-1", state, "it took too long")
    life.until_phase(Phase.FOLLOWING)
    assert life.cutting() == (Phase.FOLLOWING, CutoverState.TIMED_OUT)
    assert told in life.status.cutover.message
    assert "approve the new plan" in life.status.cutover.message
    assert life.said("HooksSucceeded")[:2] == ("False", reason)
    assert life.world.record.plan_attempt == 2
    assert life.begun() == ["before-freeze-stop-1"]
    assert life.reasons().count("HookFailed") == 1
    life.go(5)
    life.runtime.patch(cutover=ALL.model_copy(update={"mode": CutoverMode.MANUAL, "approved_plan": plan_of(life)}))
    life.until_hook("before-freeze-stop-2")
    assert life.hooks() == {"before-freeze-stop-2": HookState.RUNNING}


def plan_of(life: Life) -> str:
    return life.status.plan.hash


def test_one_that_runs_is_ended_when_the_cutover_is_given_up() -> None:
    life = Cut(ALL.model_copy(update={"timeout": "10s"}))
    life.until_hook("before-freeze-stop-1")
    life.until_state(CutoverState.TIMED_OUT)
    assert "end hook before-freeze-stop-1" in life.runtime.acts


def test_an_approval_withdrawn_after_a_hook_has_run_ends_the_attempt_so_that_it_runs_again() -> None:
    manual = ALL.model_copy(update={"mode": CutoverMode.MANUAL})
    life = Cut(manual)
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.runtime.patch(cutover=manual.model_copy(update={"approved_plan": plan_of(life)}))
    life.end("before-freeze-stop-1")
    life.until_hook("before-freeze-wait-1")
    life.runtime.patch(cutover=manual)
    life.until_phase(Phase.FOLLOWING)
    assert life.world.record.plan_attempt == 2
    assert "end hook before-freeze-wait-1" in life.runtime.acts


def test_one_that_has_succeeded_does_not_run_twice_when_its_job_is_gone_and_the_operator_new() -> None:
    life = Cut()
    life.end("before-freeze-stop-1")
    life.until_hook("before-freeze-wait-1")
    del life.runtime.hooks["before-freeze-stop-1"]  # a person tidies up
    life.reconciler = Reconciler(life.runtime, life.runtime.clock)
    life.go(3)
    assert life.begun().count("before-freeze-stop-1") == 1
    life.end("before-freeze-wait-1")
    drained(life)


def test_a_status_lost_during_the_cutover_finds_the_jobs_that_have_ended() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1")
    look = drained(life)
    life.runtime.resource = life.runtime.resource.model_copy(update={"status": MigrationStatus()})
    life.until_state(CutoverState.DRAINING)
    assert drained(life) == look
    counts = {each: life.begun().count(each) for each in life.begun()}
    assert counts == {"before-freeze-stop-1": 1, "before-freeze-wait-1": 1, look: 2}, "what had not ended runs again"


def test_a_status_lost_after_the_switch_finds_the_jobs_again() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1", "", "switch-host-1", "after-switch-start-1")
    life.end("after-switch-tell-1")
    life.go(2)
    life.runtime.resource = life.runtime.resource.model_copy(update={"status": MigrationStatus()})
    life.until_phase(Phase.COMPLETED)
    life.go(3)
    assert life.said("HooksSucceeded")[:2] == ("True", "Succeeded")
    assert len(life.begun()) == 6


def finish(life: Cut, *run_ids: str) -> None:
    """Let these succeed, one after the other; an empty one is that after the drain."""
    for run_id in run_ids:
        life.end(run_id or drained(life))


def test_one_that_fails_after_the_switch_takes_nothing_back_and_runs_again_when_its_job_is_deleted() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1", "")
    life.end("switch-host-1", HookState.FAILED, "its pod failed")
    life.go(5)
    assert life.cutting() == (Phase.COMPLETED, CutoverState.SWITCHED)
    status, reason, message = life.said("HooksSucceeded")
    assert (status, reason) == ("False", "SwitchFailed")
    assert "kubectl -n default delete job shop-switch-host-1" in message
    assert "after-switch-start-1" not in life.begun()
    del life.runtime.hooks["switch-host-1"]
    life.go(2)
    assert life.begun().count("switch-host-1") == 2
    life.end("switch-host-1")
    life.until_hook("after-switch-start-1")
    del life.runtime.hooks["after-switch-start-1"]
    life.go(3)
    assert life.begun().count("after-switch-start-1") == 2
    assert "HookLost" in life.reasons()


def test_one_that_is_taken_out_after_the_switch_counts_no_more() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1", "", "switch-host-1")
    life.end("after-switch-start-1", HookState.FAILED)
    life.go(2)
    assert life.said("HooksSucceeded")[:2] == ("False", "HookFailed")
    without = HOOKS.model_copy(update={"after_switch": HOOKS.after_switch[1:]})
    life.runtime.patch(cutover=ALL.model_copy(update={"hooks": without}))
    life.end("after-switch-tell-1")
    life.go(2)
    assert life.said("HooksSucceeded")[:2] == ("True", "Succeeded")


def test_a_migration_made_again_under_its_name_switches_nothing() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1", "")
    life.until_phase(Phase.COMPLETED)
    again = Cut(world=life.world)
    again.until_phase(Phase.COMPLETED)
    again.go(5)
    assert again.begun() == []
    assert again.said("HooksSucceeded")[:2] == ("Unknown", "NotRunHere")


def test_paused_a_hook_goes_on_to_its_end_and_none_starts() -> None:
    life = Cut()
    life.until_hook("before-freeze-stop-1")
    life.runtime.patch(paused=True)
    life.go(3)
    assert life.hooks() == {"before-freeze-stop-1": HookState.RUNNING}
    life.end("before-freeze-stop-1")
    life.go(5)
    assert life.begun() == ["before-freeze-stop-1"]
    life.runtime.patch(paused=False)
    life.until_hook("before-freeze-wait-1")


def test_cancelled_a_hook_that_runs_is_ended() -> None:
    life = Cut()
    life.until_hook("before-freeze-stop-1")
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.CANCELLED)
    assert "end hook before-freeze-stop-1" in life.runtime.acts


def test_a_source_that_is_drained_to_another_position_has_its_hook_run_again() -> None:
    life = Cut()
    finish(life, "before-freeze-stop-1", "before-freeze-wait-1")
    first = drained(life)
    life.world.position = "p2"  # after the freeze at p1: seen by the second look
    life.end(first)
    life.until(lambda status: sum(each.point is HookPoint.AFTER_DRAIN for each in status.cutover.hooks) == 2)
    assert "WrittenAfterFreeze" in life.reasons()
    assert life.hooks()["before-freeze-stop-1"] is HookState.SUCCEEDED
    assert life.begun().count("before-freeze-stop-1") == 1


def test_they_are_part_of_the_plan_that_is_approved_and_change_no_plan_without_them() -> None:
    def hashed(**cutover: object) -> str:
        return plan_hash(migration(cutover=Cutover.model_validate(cutover)).spec, 1)

    assert hashed() == hashed(hooks=Hooks(), switch=[])
    assert len({hashed(), hashed(hooks=HOOKS), hashed(switch=[SWITCH])}) == 3
    assert hashed(hooks=HOOKS) != hashed(hooks=Hooks(before_freeze=[hook("stop", image="tools:2")]))


def test_an_automatic_cutover_that_a_hook_gave_up_waits_before_the_next_one() -> None:
    life = Cut()
    life.end("before-freeze-stop-1", HookState.FAILED)
    life.until_phase(Phase.FOLLOWING)
    life.go(30, 5.0)
    assert life.status.phase is Phase.FOLLOWING
    life.runtime.now += RETRY_AFTER
    life.until_hook("before-freeze-stop-2")


def test_records_of_former_attempts_go_when_the_next_cutover_has_frozen_the_source() -> None:
    life = Cut()
    life.end("before-freeze-stop-1", HookState.FAILED)
    life.until_phase(Phase.FOLLOWING)
    life.runtime.now += RETRY_AFTER
    life.end("before-freeze-stop-2")
    assert "before-freeze-stop-1" in life.runtime.hooks
    life.end("before-freeze-wait-2")
    drained(life)
    life.go(2)
    assert sorted(life.runtime.hooks)[1:] == ["before-freeze-stop-2", "before-freeze-wait-2"]


def test_a_name_of_the_longest_kind_fits_into_a_label() -> None:
    life = Cut(Cutover(mode=CutoverMode.AUTOMATIC, hooks=Hooks(after_drain=[hook("n" * 30)])))
    found = drained(life)
    assert len(found) <= 57
    assert HookStatus(id=found, point=HookPoint.AFTER_DRAIN, name="n" * 30, state=HookState.RUNNING)


def test_a_name_that_somebody_wrote_into_its_job_breaks_no_status() -> None:
    life = Cut()
    life.until_hook("before-freeze-stop-1")
    life.runtime.hooks["before-freeze-stop-1"] = replace(life.runtime.hooks["before-freeze-stop-1"], name="x" * 300)
    life.end("before-freeze-stop-1")
    life.until_hook("before-freeze-wait-1")


def test_a_success_that_counts_stays_known_however_often_the_freeze_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(domain, "_MOST", 2)
    life = Cut(Cutover(mode=CutoverMode.AUTOMATIC, hooks=Hooks(before_freeze=[hook("stop")], after_drain=[hook("x")])))
    life.end("before-freeze-stop-1")
    life.until(lambda status: status.cutover.hooks[0].state is HookState.SUCCEEDED)
    del life.runtime.hooks["before-freeze-stop-1"]
    for position in ("p2", "p3", "p4"):
        life.until(lambda status: any(each.state is HookState.RUNNING for each in status.cutover.hooks))
        life.world.position = position
        life.end(next(run_id for run_id, state in life.hooks().items() if state is HookState.RUNNING))
    life.go(3)
    assert life.begun().count("before-freeze-stop-1") == 1
