"""The steps in the status: a mirror of what the target's journal holds of the attempt at hand, and nothing else."""

from support.both_ways import WITH_WAY_BACK
from support.life import Life
from support.world import World
from whimbrel_api.migration import CheckResult, Cutover, CutoverMode, CutoverState, MigrationStatus, Phase

AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
FORWARD = ["Freeze", "Drain", "FinalCheck", "Retire", "Confirm"]


def names(life: Life) -> list[str]:
    return [step.name for step in life.status.cutover.steps]


def journalled(life: Life) -> list[tuple[str, int]]:
    return [(each.step, each.attempt) for each in life.world.record.acknowledged]


def cutting_over(world: World | None = None, **spec: object) -> Life:
    """Approved, and waiting for the source to come to rest."""
    life = Life(world or World(quiet=False), **spec)
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until_state(CutoverState.FREEZING)
    return life


def test_each_step_is_mirrored_once_its_task_has_journalled_it() -> None:
    life = cutting_over()
    assert names(life) == []
    life.world.quiet = True
    seen: list[list[str]] = []

    def done(status: MigrationStatus) -> bool:
        seen.append(names(life))
        return status.phase is Phase.COMPLETED

    life.until(done)
    whole = [*FORWARD, "Fence"]
    assert seen[-1] == whole
    assert all(each == whole[: len(each)] for each in seen), "in the order of the table"
    assert [len(each) for each in seen] == sorted(len(each) for each in seen), "none is taken back"
    assert {step.position for step in life.status.cutover.steps} == {"p1"}
    assert all(step.by and step.at is not None for step in life.status.cutover.steps)
    assert {each.plan for each in life.world.record.acknowledged} == {life.status.plan.hash}
    assert journalled(life) == [(name, 1) for name in ["Freeze", "Drain", "FinalCheck", "Retire", "Confirm", "Fence"]]
    life.go(20)
    assert names(life) == whole, "though the tasks that said so are gone"


def test_of_a_status_that_was_lost_the_journal_tells_the_steps_again() -> None:
    life = cutting_over(World())
    life.until_phase(Phase.COMPLETED)
    before = life.status.cutover.steps
    life.runtime.resource = life.runtime.resource.model_copy(update={"status": MigrationStatus()})
    life.until_phase(Phase.COMPLETED)
    assert life.status.cutover.steps == before


def test_a_status_lost_in_the_middle_of_a_cutover_begins_anew_and_takes_no_former_step_for_its_own() -> None:
    life = cutting_over(World())
    life.until_state(CutoverState.FINAL_CHECK)
    assert "Drain" in names(life)
    life.runtime.resource = life.runtime.resource.model_copy(update={"status": MigrationStatus()})
    life.until_state(CutoverState.FREEZING)
    assert names(life) == []
    life.until_state(CutoverState.DRAINING)
    assert names(life) == ["Freeze"], "what the journal has of the former try is proven anew first"
    life.until_phase(Phase.COMPLETED)
    assert journalled(life).count(("Drain", 1)) == 1


def test_a_freeze_that_was_written_to_takes_its_steps_along() -> None:
    life = cutting_over(World())
    life.until_state(CutoverState.FINAL_CHECK)
    life.world.position = "p2"
    life.until(lambda _: "WrittenAfterFreeze" in life.reasons())
    assert names(life) == []
    life.until_phase(Phase.COMPLETED)
    assert {step.position for step in life.status.cutover.steps} == {"p2"}
    assert names(life) == [*FORWARD, "Fence"]


def test_another_attempt_begins_without_steps() -> None:
    life = cutting_over(World(checks=[CheckResult.EQUAL, CheckResult.DIFFERENT]))
    life.until(lambda _: "FinalCheckFailed" in life.reasons())
    assert names(life) == ["Freeze", "Drain"], "how far it was stays said while it is given up"
    life.until_phase(Phase.FOLLOWING)
    assert life.status.plan.attempt == 2
    assert names(life) == []
    life.until(
        lambda status: status.cutover.state is CutoverState.TIMED_OUT and life.said("ValidationPassed")[0] == "True"
    )
    life.approve()
    life.until_phase(Phase.COMPLETED)
    assert names(life) == [*FORWARD, "Fence"]
    assert journalled(life) == [("Freeze", 1), ("Drain", 1), *((name, 2) for name in names(life))]


def test_with_a_way_back_the_seal_and_the_arming_are_steps_and_a_rollback_adds_its_own() -> None:
    life = Life(**(WITH_WAY_BACK | {"cutover": AUTOMATIC}))
    life.until_phase(Phase.COMPLETED)
    there = [*FORWARD, "Seal", "Arm", "Fence"]
    assert names(life) == there
    life.until(lambda _: life.said("RollbackReady")[0] == "True")
    life.runtime.patch(cutover=AUTOMATIC.model_copy(update={"rollback": True}))
    life.world.back_quiet = 60.0
    life.until(lambda _: any(ref.task_id == "fence-rolled-back" for ref in life.runtime.instances))
    assert names(life)[: len(there)] == there
    assert names(life)[len(there) :] == ["FreezeTarget", "DrainBack", "CheckBack"]
    assert {step.position for step in life.status.cutover.steps[len(there) :]} == {"0/1"}
    life.until_phase(Phase.FOLLOWING)
    assert names(life) == []
    assert [step for step, _ in journalled(life)][-3:] == ["ConfirmBack", "Hold", "Reopen"]
