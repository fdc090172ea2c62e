"""The life of a migration whose change log is divided into shards: many follow it, and no page proves its end."""

from typing import Any

import pytest

from support.life import Life
from support.world import World
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, Source, Target
from whimbrel_api.migration import Phase, Stream
from whimbrel_api.tasks import CheckScope
from whimbrel_operator.domain.observed import TaskRef

SHARDED: dict[str, Any] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
    "cutover": Cutover(mode=CutoverMode.AUTOMATIC),
}


def streams(life: Life) -> list[TaskRef]:
    return sorted(ref for ref in life.runtime.instances if ref.task_id == "stream")


def test_as_many_follow_as_are_asked_for_and_all_of_them_are_retired() -> None:
    life = Life(stream=Stream(workers=3), **SHARDED)
    life.until_phase(Phase.FOLLOWING)
    life.go(1)
    assert streams(life) == [TaskRef("stream", index) for index in range(3)]
    assert all(life.runtime.orders("stream").workers == 3 for _ in streams(life))
    life.until_phase(Phase.COMPLETED)
    life.go(3)
    assert life.runtime.instances == {}


def test_the_number_of_workers_changes_in_flight_without_starting_the_others_anew() -> None:
    life = Life(World(quiet=False), stream=Stream(workers=3), **SHARDED)
    life.until_phase(Phase.FOLLOWING)
    life.go(2)
    before = list(life.runtime.started)
    life.runtime.patch(stream=Stream(workers=1))
    life.go(2)
    assert streams(life) == [TaskRef("stream", 0)]
    assert life.runtime.orders("stream").workers == 1
    assert [ref for ref in life.runtime.started[len(before) :] if ref.task_id == "stream"] == []


def test_one_worker_that_has_not_ended_holds_the_cutover() -> None:
    life = Life(stream=Stream(workers=2), **SHARDED)
    life.until_state(CutoverState.FREEZING)
    ref = TaskRef("stream", 1)
    life.runtime.silent.add("stream")
    life.go(20)
    assert life.status.cutover.state is not CutoverState.SWITCHED
    assert ref in life.runtime.instances
    life.runtime.silent.clear()
    life.until_phase(Phase.COMPLETED)


def test_the_final_check_compares_everything() -> None:
    life = Life(**SHARDED)
    life.until_phase(Phase.COMPLETED)
    assert len(life.world.scopes) == 2
    assert set(life.world.scopes) == {CheckScope.FULL}


def test_quiet_shards_open_the_gate_without_a_lag_and_say_what_proves_the_rest() -> None:
    life = Life(World(lag=None, quiet_log=True), **SHARDED | {"cutover": Cutover()})
    life.until_state(CutoverState.AWAITING_APPROVAL)
    status, reason, message = life.said("LagWithinThreshold")
    assert (status, reason) == ("True", "Quiet")
    assert "read every item" in message
    assert life.status.lag == "quiet"
    assert life.status.stream.quiet
    assert life.status.stream.lag_seconds is None


@pytest.mark.parametrize("lag", [None, 99.0])
def test_without_lag_and_quiet_the_gate_stays_closed(lag: float | None) -> None:
    life = Life(World(lag=lag), **SHARDED)
    life.until_phase(Phase.CATCH_UP)
    life.go(30)
    assert life.status.phase is Phase.CATCH_UP
    assert life.status.lag == ("unknown" if lag is None else "1m39s")
