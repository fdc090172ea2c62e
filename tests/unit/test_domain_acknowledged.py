"""The steps in the status: a mirror of what the target's journal holds of the attempt at hand, and nothing else."""

from support.both_ways import WITH_WAY_BACK
from support.life import Life
from support.memory_runtime import START, migration
from support.world import World
from whimbrel_api.acknowledgements import Acknowledgement
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, CutoverStatus
from whimbrel_api.migration import CheckResult, MigrationStatus, Phase
from whimbrel_api.reports import StreamResult, WorkerReport
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.cutover.mirror import mirrored
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, Tasks, TaskState

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


def test_what_a_stream_wrote_in_a_former_try_of_the_attempt_is_not_shown_before_it_is_proven_again() -> None:
    """Its report goes on saying so; another attempt's, or another position's, never counts."""

    def told(step: str, attempt: int = 1, position: str = "p1") -> Acknowledgement:
        return Acknowledgement(step=step, attempt=attempt, position=position, at=START)

    cutover = CutoverStatus(state=CutoverState.DRAINING, freeze_position="p1", started_at=START)
    frozen = [told("Freeze"), told("Freeze", 2), told("Drain"), told("Drain", 1, "p0"), told("FinalCheck")]
    for drained, shown in (("", ["Freeze"]), ("p1", ["Freeze", "Drain"])):
        report = WorkerReport(
            task=TaskKind.STREAM, task_id="stream", observed_at=START, stream=StreamResult(drained_to=drained),
            acknowledged=frozen,
        )  # fmt: skip
        stream = TaskState(TaskKind.STREAM, TaskRef("stream"), START, report=report)
        status = MigrationStatus(phase=Phase.CUTTING_OVER, cutover=cutover)
        view = View(Observed(migration(status), Tasks((stream,))), START, Memory())
        assert [step.name for step in mirrored(view, Phase.CUTTING_OVER, cutover)] == shown
        assert mirrored(view, Phase.FOLLOWING, CutoverStatus()) == []
