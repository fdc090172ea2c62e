"""Who else may write to the target: what is said of it, when it closes a cutover, and when it is looked at."""

from datetime import timedelta
from typing import Any

import pytest

from support.both_ways import WITH_WAY_BACK
from support.life import Life
from support.memory_runtime import START, migration
from support.world import World
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, TargetExclusive, TargetWriters
from whimbrel_api.migration import Migration, MigrationStatus, Mode, Phase, ReverseSyncPolicy
from whimbrel_operator.domain.cutover.exclusive import TYPE, exclusive_gate, exclusive_said, judged, look_due
from whimbrel_operator.domain.cutover.rehearsal import rehearse
from whimbrel_operator.domain.migration.plan import plan_hash
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, Tasks

ITEMS: dict[str, Any] = {**WITH_WAY_BACK, "reverse_sync": ReverseSyncPolicy()}
OTHERS = TargetWriters(
    account='"mover"', tables=4, roles=['"app" holds INSERT on 4 tables of "shop"'], roles_total=12,
    remedies=['REVOKE INSERT ON ALL TABLES IN SCHEMA "shop" FROM "app";'], superusers=['"root"'], superusers_total=3,
    notes=['"etl" may make tables of its own in "shop"'], checked_at=START,
)  # fmt: skip
ALONE = OTHERS.model_copy(update={"roles": [], "roles_total": 0, "remedies": []})


def policy(exclusive: TargetExclusive = TargetExclusive.WARN, **more: Any) -> Cutover:
    return Cutover(target_exclusive=exclusive, **more)


def automatic(exclusive: TargetExclusive, **more: Any) -> Cutover:
    return policy(exclusive, mode=CutoverMode.AUTOMATIC, **more)


def view(found: TargetWriters, exclusive: TargetExclusive, later: float = 0.0, **spec: Any) -> View:
    status = MigrationStatus(phase=Phase.FOLLOWING, target_writers=found)
    resource = migration(status, cutover=policy(exclusive), **spec)
    return View(Observed(resource, Tasks(())), START + timedelta(seconds=later), Memory())


def test_with_warn_they_are_named_once_and_nothing_is_closed() -> None:
    life = Life(World(writers=["app", "etl"]), cutover=policy())
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.until(lambda _: life.said(TYPE)[0] == "False")
    status, reason, message = life.said(TYPE)
    assert (status, reason) == ("False", "OthersMayWrite")
    assert '2 roles besides "mover" may write' in message
    assert '"app" holds INSERT' in message
    life.go(30)
    (told,) = [event for event in life.runtime.events if event.reason == "OthersMayWrite"]
    assert told.type == "Warning"
    assert '"etl" holds INSERT' in told.message
    life.approve()
    life.until_phase(Phase.COMPLETED)
    life.go(2)
    assert TYPE not in {each.type for each in life.status.conditions}


def test_with_require_they_close_the_cutover_until_they_are_gone() -> None:
    life = Life(World(writers=["app"]), cutover=automatic(TargetExclusive.REQUIRE))
    life.until_phase(Phase.FOLLOWING)
    life.go(90)
    assert life.status.phase is Phase.FOLLOWING
    assert life.said(TYPE)[:2] == ("False", "OthersMayWrite")
    assert life.said("Stalled")[0] == "False"
    life.world.writers = []
    life.until(lambda _: life.said(TYPE)[0] == "True", within=60)
    life.until_phase(Phase.COMPLETED)


def test_a_grant_that_is_made_after_the_look_is_found_before_the_cutover_begins() -> None:
    life = Life(cutover=policy(TargetExclusive.REQUIRE))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    assert life.said(TYPE)[:2] == ("True", "Exclusive")
    life.world.writers = ["app"]
    life.runtime.patch(cutover=policy(TargetExclusive.REQUIRE, approved_plan=life.status.plan.hash))
    life.go(5)
    assert life.said(TYPE)[:2] == ("False", "OthersMayWrite")
    life.go(60)
    assert life.status.phase is Phase.FOLLOWING
    life.world.writers = []
    life.until_phase(Phase.COMPLETED)


def test_who_is_allowed_closes_nothing() -> None:
    life = Life(World(writers=["app"]), cutover=automatic(TargetExclusive.REQUIRE, allowed_writers=["app"]))
    life.until_phase(Phase.COMPLETED)


def test_with_ignore_nobody_looks() -> None:
    life = Life(World(writers=["app"]), cutover=automatic(TargetExclusive.IGNORE))
    life.until_phase(Phase.COMPLETED)
    assert life.world.looks == 0
    assert "OthersMayWrite" not in life.reasons()


@pytest.mark.parametrize("exclusive", [TargetExclusive.WARN, TargetExclusive.REQUIRE])
def test_what_is_not_known_closes_the_cutover_where_it_is_required_alone(exclusive: TargetExclusive) -> None:
    life = Life(World(writers_unknown="the target refused a statement"), cutover=automatic(exclusive))
    if exclusive is TargetExclusive.WARN:
        life.until_phase(Phase.COMPLETED)
        return
    life.until_phase(Phase.FOLLOWING)
    life.go(60)
    assert life.status.phase is Phase.FOLLOWING
    status, reason, message = life.said(TYPE)
    assert (status, reason) == ("Unknown", "LookFailed")
    assert "the target refused a statement" in message
    life.world.writers_unknown = ""
    life.until_phase(Phase.COMPLETED)


def test_it_is_not_looked_at_again_while_it_is_young() -> None:
    life = Life(World(writers=["app"]), cutover=policy())
    life.until(lambda _: life.world.looks > 0)
    life.go(600)
    assert life.world.looks == 1


def test_an_endpoint_that_cannot_tell_closes_nothing_unless_it_is_required() -> None:
    warned = view(TargetWriters(), TargetExclusive.WARN, **ITEMS)
    (said,) = exclusive_said(warned, Phase.FOLLOWING)
    assert (said.status, said.reason) == ("Unknown", "CannotAsk")
    assert said.message.startswith("not checked: the endpoint has no way to ask")
    assert exclusive_gate(warned) == ()
    assert not look_due(warned)
    required = view(TargetWriters(), TargetExclusive.REQUIRE, **ITEMS)
    (gate,) = exclusive_gate(required)
    assert not gate.open
    assert "set spec.cutover.targetExclusive to Warn, or name PolarDB's server" in gate.message
    assert exclusive_said(required, Phase.FOLLOWING) == ()


def test_behind_an_endpoint_the_look_at_the_way_back_tells() -> None:
    life = Life(World(writers=["app"]), cutover=automatic(TargetExclusive.REQUIRE), **WITH_WAY_BACK)
    life.until_phase(Phase.FOLLOWING)
    life.until(lambda _: life.said(TYPE)[0] == "False")
    assert life.said("ReverseSyncReady")[0] == "True"
    life.go(60)
    assert life.status.phase is Phase.FOLLOWING
    life.world.writers = []
    life.until(lambda _: life.said(TYPE)[0] == "True", within=60)
    life.until_phase(Phase.COMPLETED)


@pytest.mark.parametrize(
    ("found", "later", "reason"),
    [
        (ALONE, 0.0, "Exclusive"),
        (ALONE, 3601.0, "TooOld"),
        (OTHERS, 0.0, "OthersMayWrite"),
        (TargetWriters(), 0.0, "NotChecked"),
        (TargetWriters(checked_at=START, unknown="a privilege is missing"), 0.0, "LookFailed"),
    ],
)
def test_what_the_gate_says_of_a_finding(found: TargetWriters, later: float, reason: str) -> None:
    gate = judged(view(found, TargetExclusive.REQUIRE, later))
    assert (gate.reason, gate.open) == (reason, reason == "Exclusive")


def test_the_message_counts_whom_it_does_not_name() -> None:
    message = judged(view(OTHERS, TargetExclusive.WARN)).message
    assert message.startswith('12 roles besides "mover" may write')
    assert "and 11 more" in message
    assert 'REVOKE INSERT ON ALL TABLES IN SCHEMA "shop" FROM "app"; superusers' in message
    assert 'superusers always may: "root" and 2 more' in message
    assert '"etl" may make tables of its own' in message


def test_a_copy_without_a_stream_has_no_such_condition() -> None:
    for exclusive in TargetExclusive:
        alone = view(TargetWriters(), exclusive, mode=Mode.SNAPSHOT_ONLY)
        assert (exclusive_gate(alone), exclusive_said(alone, Phase.SNAPSHOT)) == ((), ())
        assert not look_due(alone)


def test_it_belongs_to_the_plan_only_where_it_is_required() -> None:
    spec = migration().spec

    def plan(exclusive: TargetExclusive, *allowed: str) -> str:
        changed = {"cutover": policy(exclusive, allowed_writers=list(allowed))}
        return plan_hash(spec.model_copy(update=changed), 1)

    plain = plan_hash(spec, 1)
    assert {plan(each, *who) for each in (TargetExclusive.WARN, TargetExclusive.IGNORE) for who in ((), ("a",))} == {
        plain
    }
    assert len({plain, plan(TargetExclusive.REQUIRE), plan(TargetExclusive.REQUIRE, "a")}) == 3


@pytest.mark.parametrize("later", [0.0, 3601.0])
def test_a_dry_run_judges_the_gate_by_the_clock(later: float) -> None:
    life = Life(cutover=policy(TargetExclusive.REQUIRE))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    assert isinstance(life.runtime.resource, Migration)
    found = rehearse(life.runtime.resource, life.runtime.now + timedelta(seconds=later))
    (gate,) = [each for each in found.gates if each.type == TYPE]
    assert (gate.open, gate.reason) == ((True, "Exclusive") if later == 0 else (False, "TooOld"))


def test_a_dry_run_tells_of_them_where_they_close_nothing() -> None:
    life = Life(World(writers=["app"]), cutover=policy())
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.until(lambda _: life.said(TYPE)[0] == "False")
    assert isinstance(life.runtime.resource, Migration)
    found = rehearse(life.runtime.resource, life.runtime.now)
    assert TYPE not in {gate.type for gate in found.gates}
    assert [notice.reason for notice in found.notices] == ["OthersMayWrite"]
