"""Passes that are lost between what they did and what the status says of it: the journal and the status never part."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from support.both_ways import WITH_WAY_BACK, forward, steps
from support.life import Life
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, SourceFreeze
from whimbrel_api.hooks import ConfigMapSwitch, SwitchStep
from whimbrel_api.migration import MigrationStatus, Phase, Stream
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.errors import Refused, StatusConflict
from whimbrel_operator.runtime.port import Key, Status

SWITCH = SwitchStep(
    name="host", service_account_name="mover", config_map=ConfigMapSwitch(name="app", key="host", value="new")
)
AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC, switch=[SWITCH])
PAIRS: dict[str, dict[str, Any]] = {"mysql": {}, "way back": WITH_WAY_BACK}


def losing(found: Life, lost: Callable[[MigrationStatus], bool], meanwhile: Callable[[], None]) -> list[bool]:
    """The first status of which `lost` holds is not written, because something happened meanwhile."""
    written = found.runtime.report
    struck: list[bool] = []

    async def report(key: Key, status: Status, resource_version: str) -> None:
        if not struck and isinstance(status, MigrationStatus) and lost(status):
            struck.append(True)
            meanwhile()
            raise StatusConflict("somebody wrote meanwhile", where=str(key))
        await written(key, status, resource_version)

    found.runtime.report = report  # type: ignore[method-assign]
    return struck


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("meanwhile", ["nothing", "cancelled", "late"])
def test_a_switch_that_no_status_has_seen_is_never_journalled_over(pair: str, meanwhile: str) -> None:
    found = Life(cutover=AUTOMATIC, **PAIRS[pair])

    def act() -> None:
        if meanwhile == "cancelled":
            found.runtime.patch(cancel=True)
        if meanwhile == "late":
            found.runtime.now += timedelta(hours=1)

    struck = losing(found, lambda status: status.phase is Phase.COMPLETED, act)
    found.go(150)
    assert struck
    assert steps(found)[-1] == "switched"
    assert found.status.phase is Phase.COMPLETED
    assert bool(found.runtime.ways_back) is (pair == "way back")


def test_a_rollback_that_no_status_has_seen_is_not_called_broken() -> None:
    found = switched()
    losing(found, lambda status: status.cutover.state is CutoverState.ROLLED_BACK, lambda: None)
    found.runtime.patch(cutover=AUTOMATIC.model_copy(update={"rollback": True}))
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    assert steps(found)[-1] == "rolled-back"
    assert "RollbackBroken" not in found.reasons()


def test_a_rollback_that_is_ordered_is_not_taken_back_while_the_way_back_is_silent() -> None:
    found = switched()
    found.runtime.patch(cutover=AUTOMATIC.model_copy(update={"rollback": True}))
    found.world.back_quiet = 60.0
    found.until(lambda _: any(ref.task_id == "fence-rolled-back" for ref in found.runtime.instances))
    found.runtime.ways_back["shop"].silent.add("reverse")
    found.runtime.patch(cutover=AUTOMATIC.model_copy(update={"rollback": False}))
    found.until_phase(Phase.FOLLOWING)
    assert steps(found)[-1] == "rolled-back"
    assert "RollbackWithdrawn" not in found.reasons()


def test_a_fence_that_is_ordered_is_not_taken_back_while_a_worker_more_is_asked_for() -> None:
    found = Life(cutover=AUTOMATIC)
    found.until(lambda _: any(ref.task_id == "fence-switched" for ref in found.runtime.instances))
    found.runtime.patch(stream=Stream(workers=2))
    found.go(60)
    assert (steps(found), found.status.phase) == (["switched"], Phase.COMPLETED)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_status_from_before_the_switch_ends_no_way_back(forgotten: bool) -> None:
    found = Life(cutover=Cutover(), **WITH_WAY_BACK)
    found.until_phase(Phase.FOLLOWING)
    found.go(10)
    old = found.status
    found.runtime.patch(cutover=AUTOMATIC)
    found.until(lambda status: status.phase is Phase.COMPLETED and found.said("RollbackReady")[0] == "True")
    if forgotten:
        found.runtime.instances.clear()
    found.runtime.write_status(old)
    found.go(15)
    assert found.status.phase is Phase.COMPLETED
    assert list(found.runtime.ways_back) == ["shop"]
    assert found.runtime.acts.count("make shop") == 1
    assert not forward(found)


def test_a_status_from_the_arming_makes_no_way_back_once_the_cutover_was_given_up() -> None:
    policy = AUTOMATIC.model_copy(update={"timeout": "1h", "switch": []})
    found = Life(cutover=policy, **WITH_WAY_BACK)
    found.until(lambda status: status.cutover.sealed and status.cutover.state is CutoverState.ARMING_REVERSE)
    old = found.status
    found.runtime.patch(cutover=Cutover(timeout="1h"))
    found.until_phase(Phase.FOLLOWING)
    found.go(5)
    made = found.runtime.acts.count("make shop")
    found.runtime.patch(cutover=policy)
    found.runtime.write_status(old)
    for _ in range(6):
        found.go(1)
        assert not (forward(found) and found.runtime.ways_back)
    assert found.runtime.acts.count("make shop") == made


def test_a_refused_stream_does_not_keep_the_source_frozen() -> None:
    policy = Cutover(mode=CutoverMode.AUTOMATIC, source_freeze=SourceFreeze.OPERATOR, timeout="30s")
    found = Life(cutover=policy)
    found.until_state(CutoverState.FINAL_CHECK)
    assert found.world.frozen
    started = found.runtime.apply

    async def apply(key: Key, wanted: Sequence[WantedTask]) -> None:
        if wanted[0].ref.task_id == "stream":
            raise Refused("exceeded quota", where=str(key))
        await started(key, wanted)

    found.runtime.apply = apply  # type: ignore[method-assign]
    found.runtime.instances = {ref: task for ref, task in found.runtime.instances.items() if ref.task_id != "stream"}
    for _ in range(60):
        with pytest.raises(Refused):
            found.once()
        found.runtime.advance()
    assert not found.world.frozen


def switched() -> Life:
    found = Life(cutover=AUTOMATIC, **WITH_WAY_BACK)
    found.until(lambda status: status.phase is Phase.COMPLETED and found.said("RollbackReady")[0] == "True")
    return found
