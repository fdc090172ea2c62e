"""Approval, time and retention in whole lives: what an old approval does, when a cutover begins, what warns."""

from datetime import UTC, datetime, timedelta

import pytest

from support.life import Life
from support.memory_runtime import START
from support.world import World
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, Window
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.tasks import TaskKind

AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
BROKEN = Window(schedule="0 2 * * *", time_zone="Europe/Berlln")


def minutes_past_noon(minutes: int) -> datetime:
    return START.replace(minute=minutes)


def soon_after(minutes: int, moment: datetime) -> bool:
    """The plan's attempt is read from the target first, which takes a turn."""
    return minutes_past_noon(minutes) <= moment <= minutes_past_noon(minutes) + timedelta(seconds=2)


def window_at(minutes: int, **policy: object) -> Cutover:
    """One minute a day in which a cutover may begin."""
    return Cutover(window=Window(schedule=f"{minutes} 12 * * *", duration="1m"), **policy)  # type: ignore[arg-type]


def switches(life: Life) -> int:
    return sum(entry.step == "switched" for entry in life.world.record.journal)


def test_an_approval_for_an_old_plan_does_nothing_and_says_so_once() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    old = life.status.plan.hash
    life.runtime.patch(cutover=Cutover(approved_plan=old, timeout="1m"))
    life.go(40)
    assert life.status.phase is Phase.FOLLOWING
    status, reason, message = life.said("CutoverApproved")
    assert (status, reason) == ("False", "OldPlan")
    assert old in message
    assert life.status.plan.hash in message
    assert life.reasons().count("OldPlan") == 1


@pytest.mark.parametrize("mode", list(CutoverMode))
@pytest.mark.parametrize("remembered", [True, False])
def test_the_same_manifest_again_fires_no_second_cutover(mode: CutoverMode, remembered: bool) -> None:
    """Applied again as git has it; and with a status that was lost, as after the resource was deleted and made anew."""
    life = Life(cutover=Cutover(mode=mode))
    if mode is CutoverMode.MANUAL:
        life.until_state(CutoverState.AWAITING_APPROVAL)
        life.approve()
    life.until_phase(Phase.COMPLETED)
    life.go(3)
    epoch, started = life.status.epoch, len(life.runtime.started)
    life.runtime.patch(cutover=life.runtime.resource.spec.cutover)  # type: ignore[union-attr]
    if not remembered:
        life.runtime.write_status(MigrationStatus())
    life.go(60)
    assert life.status.phase is Phase.COMPLETED
    assert (life.status.epoch, switches(life)) == (epoch, 1)
    kinds = {ref.task_id for ref in life.runtime.started[started:]}
    assert kinds == (set() if remembered else {"preflight"})


def test_a_cutover_begins_in_its_window_and_goes_on_past_its_end() -> None:
    life = Life(World(quiet=False), cutover=window_at(3, mode=CutoverMode.AUTOMATIC))
    life.until_phase(Phase.CUTTING_OVER, within=240)
    assert soon_after(3, life.runtime.now)
    life.go(90)
    assert life.status.phase is Phase.CUTTING_OVER
    assert life.said("CutoverDue")[:2] == ("False", "OutsideWindow")
    life.world.quiet = True
    life.until_phase(Phase.COMPLETED)


def test_nothing_begins_before_its_time() -> None:
    life = Life(cutover=Cutover(mode=CutoverMode.AUTOMATIC, not_before=minutes_past_noon(2)))
    life.until(lambda status: any(each.reason == "NotBefore" for each in status.conditions))
    life.until_phase(Phase.CUTTING_OVER, within=240)
    assert soon_after(2, life.runtime.now)


def test_a_plan_may_be_approved_before_the_window_opens() -> None:
    life = Life(cutover=window_at(4))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    (told,) = [event.message for event in life.runtime.events if event.reason == "CutoverAwaitingApproval"]
    assert "no cutover begins before 2026-11-21T12:04:00+00:00" in told
    life.runtime.patch(cutover=window_at(4, approved_plan=life.status.plan.hash))
    life.go(10)
    assert (life.status.phase, life.status.cutover.state) == (Phase.FOLLOWING, CutoverState.NOT_READY)
    assert life.said("CutoverApproved")[0] == "True"
    life.until_phase(Phase.CUTTING_OVER, within=240)
    assert soon_after(4, life.runtime.now)


def test_the_windows_change_withdraws_no_approval_and_moves_the_time() -> None:
    life = Life(cutover=window_at(4))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    approved = life.status.plan.hash
    life.runtime.patch(cutover=window_at(5, approved_plan=approved))
    life.until_phase(Phase.CUTTING_OVER, within=300)
    assert soon_after(5, life.runtime.now)
    assert life.status.plan.hash == approved


def test_a_window_that_cannot_be_read_keeps_a_migration_from_beginning() -> None:
    life = Life(cutover=Cutover(mode=CutoverMode.AUTOMATIC, window=BROKEN))
    life.go(20)
    assert (life.status.phase, life.runtime.started) == (Phase.PENDING, [])
    status, reason, message = life.said("Stalled")
    assert (status, reason) == ("True", "InvalidSpec")
    assert message.startswith("spec.cutover.window.timeZone: 'Europe/Berlln' is no time zone")
    assert life.reasons() == ["InvalidSpec"]
    life.runtime.patch(cutover=AUTOMATIC)
    life.until_phase(Phase.COMPLETED)


def test_a_window_that_cannot_be_read_closes_a_gate_and_stops_no_stream() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.runtime.patch(cutover=Cutover(mode=CutoverMode.AUTOMATIC, window=BROKEN))
    life.go(40)
    assert life.status.phase is Phase.FOLLOWING
    assert life.said("CutoverDue")[:2] == ("False", "InvalidSpec")
    assert life.said("Stalled")[:2] == ("True", "InvalidSpec")
    kinds = [state.kind for state, _ in life.runtime.instances.values() if state.running]
    assert TaskKind.STREAM in kinds
    assert life.status.stream.lag_observed_at is not None
    assert (life.runtime.now.astimezone(UTC) - life.status.stream.lag_observed_at).total_seconds() < 5
    life.runtime.patch(cutover=AUTOMATIC)
    life.until_phase(Phase.COMPLETED)


def test_a_retention_that_runs_out_is_told_once_and_keeps_a_cutover_from_beginning() -> None:
    """Paused, nobody reads: of a day's retention four fifths may be used."""
    life = Life(World(retention=86_400.0))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    assert life.said("RetentionSafe")[:2] == ("True", "LogKept")
    life.runtime.patch(paused=True)
    life.go(19, 3600.0)
    assert life.said("RetentionSafe")[0] == "True"
    life.go(3, 3600.0)
    assert life.said("RetentionSafe")[:2] == ("False", "RetentionNear")
    assert life.status.cutover.state is CutoverState.NOT_READY
    assert life.reasons().count("RetentionNear") == 1
    life.runtime.patch(paused=False)
    life.until(lambda status: any(each.reason == "LogKept" for each in status.conditions))
