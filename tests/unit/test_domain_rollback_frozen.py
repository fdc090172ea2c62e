"""A source that Whimbrel had frozen for a cutover, when that is rolled back: opened late enough, and in time."""

from dataclasses import replace

import pytest

from support.both_ways import AUTOMATIC, BACK, completed, going_back, steps, without_echo_until_following
from support.life import Life
from support.world import Failure
from whimbrel_api.cutover import CutoverState, FreezeMethod, FreezePolicy, SourceFreeze
from whimbrel_api.hooks import ConfigMapSwitch, HookState, SwitchStep
from whimbrel_api.migration import CheckResult, MigrationStatus, Phase
from whimbrel_api.reports import FREEZING, ErrorCategory, JournalEntry, ReportedError
from whimbrel_api.tasks import ExitCode, TaskKind


def frozen(found: Life) -> bool:
    return found.world.frozen


def test_a_source_that_whimbrel_froze_is_opened_by_the_rollback_and_not_before() -> None:
    denied = {"source_freeze": SourceFreeze.OPERATOR, "freeze": FreezePolicy(method=FreezeMethod.DENY_POLICY)}
    found = completed(cutover=AUTOMATIC.model_copy(update=denied))
    assert frozen(found)
    found.runtime.patch(cutover=BACK.model_copy(update=denied))
    found.until_state(CutoverState.ROLLING_BACK)
    found.go(5)
    assert frozen(found), "the way back may still be given up"
    found.world.back_quiet = 60.0
    found.until(lambda status: "Whimbrel undoes a deny statement" in status.cutover.message)
    found.until_state(CutoverState.ROLLED_BACK)
    assert not frozen(found)
    assert found.status.cutover.message.startswith("point the application at the source")
    assert "SourceUnfrozen" in found.reasons()
    found.until_phase(Phase.FOLLOWING)
    again = {"rollback": False, "approved_plan": found.status.plan.hash}
    found.runtime.patch(cutover=BACK.model_copy(update=denied | again))
    found.until_phase(Phase.COMPLETED, 120)
    assert frozen(found)


def frozen_by_us(found: Life) -> None:
    """As a cutover leaves it that had stopped the writes to the source itself."""
    record, entry = found.world.record, JournalEntry(step=FREEZING, recorded_at=found.runtime.now)
    found.world.record = record.model_copy(update={"journal": [entry, *record.journal]})
    found.world.frozen = True


@pytest.mark.parametrize(
    ("lost", "shown"), [("nothing", "ROLLING_BACK"), ("status", "ROLLED_BACK"), ("rewound", "ROLLING_BACK")]
)
def test_a_source_that_whimbrel_froze_is_opened_after_the_journal_and_before_anybody_is_sent_there(
    lost: str, shown: str
) -> None:
    found = going_back()
    frozen_by_us(found)
    old, found.world.back_quiet = found.status, 60.0
    wrong = ReportedError(category=ErrorCategory.TRANSIENT, what="the source is away")
    found.world.failures = {TaskKind.UNFREEZE: Failure(code=ExitCode.FAILED, error=wrong)}
    found.until(lambda _: steps(found)[-1] == "rolled-back")
    match lost:
        case "status":
            found.runtime.write_status(MigrationStatus())
        case "rewound":
            found.runtime.write_status(old.model_copy(deep=True, update={"cutover": completed().status.cutover}))
    found.go(40)
    assert found.world.frozen
    assert found.status.cutover.source_frozen
    assert found.status.cutover.state is CutoverState[shown]
    assert "do not point the application at the source before that" in found.status.cutover.message
    found.world.failures = {}
    found.until(lambda _: not found.world.frozen, 600)
    found.until(lambda status: "point the application at the source; the forward" in status.cutover.message)
    assert found.status.cutover.state is CutoverState.ROLLED_BACK
    assert "SourceUnfrozen" in found.reasons()
    without_echo_until_following(found)
    assert (steps(found).count("rolled-back"), found.world.record.standing_freeze) == (1, None)


def test_a_rollback_that_is_given_up_leaves_the_source_frozen() -> None:
    found = going_back()
    frozen_by_us(found)
    found.world.checks, found.world.back_quiet = [CheckResult.DIFFERENT], 60.0
    found.until_state(CutoverState.SWITCHED)
    found.go(20)
    assert found.world.frozen
    assert found.status.cutover.source_frozen


def test_switches_are_put_back_once_the_source_is_open_again() -> None:
    host = ConfigMapSwitch(name="app", key="host", value="new")
    step = SwitchStep(name="host", service_account_name="mover", config_map=host)
    found = completed(cutover=AUTOMATIC.model_copy(update={"switch": [step]}))
    job = found.runtime.hooks["switch-host-1"]
    found.runtime.hooks["switch-host-1"] = replace(job, state=HookState.SUCCEEDED, finished_at=found.runtime.now)
    found.go(2)
    found.runtime.patch(cutover=BACK.model_copy(update={"switch": [step]}))
    found.world.back_quiet = 60.0
    found.until(lambda _: "hook put-back-host-2" in found.runtime.acts)
    assert found.status.cutover.state is CutoverState.ROLLED_BACK
    assert steps(found) == ["sealed", "switched", "rolled-back"]
    found.until_phase(Phase.FOLLOWING)
    assert found.runtime.acts.count("hook put-back-host-2") == 1
    assert {each.id for each in found.status.cutover.hooks} == {"switch-host-1", "put-back-host-2"}
