"""A log that runs out while nobody reads it, and a migration that is retired: what is said, wanted and kept."""

from typing import Any

import pytest

from support.life import Life
from support.world import Failure, World
from whimbrel_api.cutover import Cutover, CutoverMode
from whimbrel_api.migration import MigrationStatus, Mode, Phase, ReverseSyncPolicy
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.migration.aftermath import is_over

AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
HOUR = 3600.0


def following(**spec: Any) -> Life:
    life = Life(**spec)
    life.world.retention = HOUR
    life.until_phase(Phase.FOLLOWING)
    life.go(3)
    return life


def test_a_stream_that_keeps_up_is_far_from_the_end_of_its_log() -> None:
    life = following()
    status, reason, message = life.said("RetentionNear")
    assert (status, reason) == ("False", "LogKept")
    deadline = life.status.stream.retention_deadline
    assert deadline is not None
    assert deadline.isoformat(timespec="seconds") in message
    assert life.status.stream.retention_seconds == HOUR


def test_a_paused_migration_keeps_the_moment_and_warns_as_it_comes_near() -> None:
    life = following()
    life.runtime.patch(paused=True)
    life.go(3)
    deadline = life.status.stream.retention_deadline
    life.runtime.advance(0.79 * HOUR)
    life.once()
    assert life.said("RetentionNear")[:2] == ("False", "LogKept")
    assert life.status.stream.retention_deadline == deadline
    life.runtime.advance(0.02 * HOUR)
    life.once()
    status, reason, message = life.said("RetentionNear")
    assert (status, reason) == ("True", "RetentionNear")
    assert "whimbrel resume shop" in message
    assert life.reasons().count("RetentionNear") == 1
    life.runtime.advance(0.3 * HOUR)
    life.once()
    assert life.said("RetentionNear")[:2] == ("True", "RetentionOver")
    assert life.status.stream.retention_deadline == deadline
    life.runtime.patch(paused=False)
    life.go(4)
    assert life.said("RetentionNear")[:2] == ("False", "LogKept")


def test_a_lag_beyond_the_guard_is_an_alarm_while_the_stream_runs() -> None:
    life = following()
    life.world.lag = 0.7 * HOUR
    life.go(2)
    assert life.said("RetentionNear")[0] == "False"
    life.world.lag = 0.9 * HOUR
    life.go(2)
    status, _, message = life.said("RetentionNear")
    assert status == "True"
    assert "spec.stream.applyConnections" in message
    assert "RetentionNear" in life.reasons()


def test_a_log_that_forgets_nothing_by_time_gives_no_alarm() -> None:
    life = following()
    life.world.retention = None
    life.world.lag = 2 * HOUR
    life.go(2)
    assert life.said("RetentionNear")[:2] == ("Unknown", "RetentionUnknown")
    assert life.status.stream.retention_deadline is None


def test_a_copy_says_until_when_its_changes_are_kept() -> None:
    life = Life(World(snapshot_steps=2000, retention=HOUR))
    life.until_phase(Phase.SNAPSHOT)
    life.go(2)
    began = life.status.stream.retention_deadline
    assert began is not None
    assert life.said("RetentionNear")[0] == "False"
    for _ in range(60):
        life.runtime.advance(60)
        life.once()
    assert life.status.stream.retention_deadline == began
    status, _, message = life.said("RetentionNear")
    assert status == "True"
    assert "spec.snapshot.workers" in message


def ended(phase: Phase = Phase.COMPLETED, **spec: Any) -> Life:
    if phase is Phase.COMPLETED:
        life = Life(cutover=AUTOMATIC, **spec)
    else:
        life = Life(**spec)
        life.until_phase(Phase.FOLLOWING)
        life.runtime.patch(cancel=True)
    life.until_phase(phase)
    life.go(2)
    return life


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.CANCELLED])
def test_what_is_over_is_retired_once(phase: Phase) -> None:
    life = ended(phase)
    before = life.status
    life.runtime.patch(retire=True)
    life.go(6)
    assert life.said("Retired")[:2] == ("True", "Retired")
    assert [ref.task_id for ref in life.runtime.started].count("retire") == 1
    assert life.runtime.instances == {}
    assert (life.status.phase, life.status.epoch) == (phase, before.epoch)
    assert life.status.checkpoint.position == before.checkpoint.position
    assert life.reasons().count("Retired") == 1
    assert is_over(life.runtime.resource)  # type: ignore[arg-type]
    life.runtime.patch(retire=False)
    life.go(3)
    assert life.said("Retired")[0] == "True"
    assert life.status.phase is phase


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.CANCELLED])
def test_a_status_that_is_lost_after_it_is_made_anew_and_nothing_begins_again(phase: Phase) -> None:
    life = ended(phase, retire=True)
    life.until(lambda _: life.said("Retired")[0] == "True")
    started = len(life.runtime.started)
    life.runtime.write_status(MigrationStatus())
    life.until(lambda status: status.phase is phase)
    life.go(3)
    assert life.said("Retired")[0] == "True"
    later = {ref.task_id for ref in life.runtime.started[started:]}
    assert later <= {"preflight", "inspect-cancel"}


def test_before_the_end_it_is_refused_with_the_reason() -> None:
    life = following(retire=True)
    assert life.said("Retired")[:2] == ("False", "NotOver")
    assert "retire" not in {ref.task_id for ref in life.runtime.started}
    assert life.reasons().count("NotOver") == 1


def test_what_keeps_it_from_being_retired_is_said_and_tried_again() -> None:
    life = ended()
    life.world.failures[TaskKind.RETIRE] = Failure(code=ExitCode.CONFIGURATION)
    life.runtime.patch(retire=True)
    life.go(3)
    assert life.said("Retired")[:2] == ("False", "RetireFailed")
    assert not is_over(life.runtime.resource)  # type: ignore[arg-type]
    assert life.status.phase is Phase.COMPLETED
    del life.world.failures[TaskKind.RETIRE]
    life.go(15)
    assert life.said("Retired")[0] == "True"


def test_a_copy_without_a_stream_is_retired_too() -> None:
    life = Life(mode=Mode.SNAPSHOT_ONLY, retire=True)
    life.until_phase(Phase.COMPLETED)
    life.until(lambda _: life.said("Retired")[0] == "True")
    assert "RetentionNear" not in {condition.type for condition in life.status.conditions}


def test_a_way_back_keeps_what_it_would_go_on_from() -> None:
    life = ended()
    life.runtime.patch(retire=True, reverse_sync=ReverseSyncPolicy(enabled=True))
    life.go(3)
    assert life.said("Retired")[:2] == ("False", "WayBackKept")
    assert is_over(life.runtime.resource)  # type: ignore[arg-type]
