"""A cutover whose writers Whimbrel stops itself: on every way out but the switch the source is open again."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from support.life import Life
from support.memory_runtime import KEY, UID, MemoryRuntime, migration
from support.world import Failure, World
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import (
    Cutover,
    CutoverMode,
    CutoverState,
    CutoverStatus,
    FreezeMethod,
    FreezePolicy,
    SourceFreeze,
)
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, Source, Target
from whimbrel_api.migration import CheckResult, MigrationStatus, Phase
from whimbrel_api.reports import UNFROZEN, JournalEntry, Record
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.abandoning import Abandoning
from whimbrel_operator.domain.cutover.hooks import RETRY_AFTER
from whimbrel_operator.domain.migration import aftermath
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.runtime.port import Key
from whimbrel_worker.endpoints.dynamodb.freeze.statements import SID_PREFIX

ACCOUNTS = FreezePolicy(method=FreezeMethod.LOCK_ACCOUNTS, accounts=["app@%"])
OPERATOR = Cutover(source_freeze=SourceFreeze.OPERATOR)
AUTOMATIC = OPERATOR.model_copy(update={"mode": CutoverMode.AUTOMATIC})


DENIED = FreezePolicy(method=FreezeMethod.DENY_POLICY)
DENYING = AUTOMATIC.model_copy(update={"freeze": DENIED})
ITEMS: dict[str, object] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
}


def frozen(world: World | None = None, policy: Cutover = OPERATOR) -> Life:
    """A life in the middle of its cutover, the source frozen."""
    life = Life(world or World(), cutover=policy)
    if policy.mode is CutoverMode.MANUAL:
        life.until_state(CutoverState.AWAITING_APPROVAL)
        life.runtime.patch(cutover=policy.model_copy(update={"approved_plan": life.status.plan.hash}))
    life.until(lambda _: life.world.frozen)
    assert life.status.cutover.source_frozen
    return life


def test_a_switch_leaves_the_source_frozen_and_says_so() -> None:
    life = frozen()
    life.until_phase(Phase.COMPLETED)
    life.go(3)
    assert life.world.frozen
    assert life.status.cutover.source_frozen
    assert "the source stays frozen (super_read_only)" in life.status.cutover.message
    said = [event.message for event in life.runtime.events if event.reason == "CutoverSwitched"]
    assert "point the application at the target; the source stays frozen" in said[0]
    assert not any(ref.task_id.startswith("unfreeze") for ref in life.runtime.started)


def test_nothing_is_frozen_before_a_written_status_says_so() -> None:
    life = Life(World(), cutover=AUTOMATIC)
    life.until_phase(Phase.CUTTING_OVER)
    assert life.status.cutover.source_frozen
    assert TaskRef("freeze") not in life.runtime.instances
    life.runtime.advance()
    life.once()
    assert TaskRef("freeze") in life.runtime.instances


def withdraw(life: Life) -> None:
    life.runtime.patch(cutover=OPERATOR)


def change_the_freezer(life: Life) -> None:
    user = OPERATOR.model_copy(update={"source_freeze": SourceFreeze.USER})
    life.runtime.patch(cutover=user.model_copy(update={"approved_plan": life.status.plan.hash}))


def run_late(life: Life) -> None:
    life.runtime.advance(700)


def stop_a_table(life: Life) -> None:
    life.world.stopped_table = "shop.b"


def pause(life: Life) -> None:
    life.runtime.patch(paused=True)


WAYS_OUT: list[tuple[str, Callable[[Life], None]]] = [
    ("ApprovalWithdrawn", withdraw),
    ("ApprovalWithdrawn", change_the_freezer),
    ("TimedOut", run_late),
    ("TableStopped", stop_a_table),
    ("PausedWhileFrozen", pause),
]


@pytest.mark.parametrize(("reason", "happens"), WAYS_OUT)
def test_every_setback_opens_the_source_before_the_cutover_is_given_up(
    reason: str, happens: Callable[[Life], None]
) -> None:
    life = frozen(World(quiet=False))
    happens(life)
    life.until(lambda _: reason in life.reasons())
    assert life.status.cutover.state is CutoverState.TIMED_OUT
    life.runtime.patch(paused=False)
    life.until_phase(Phase.FOLLOWING)
    opened(life)
    steps = [entry.step for entry in life.world.record.journal]
    assert steps.index(UNFROZEN) < steps.index("timed-out")
    assert "Whimbrel undoes super_read_only, then writes to the source may go on" in life.status.cutover.message
    assert life.status.plan.attempt == 2, "an approval that was given for the first attempt does not count"
    life.go(3)
    assert not any(ref.task_id.startswith("unfreeze") for ref in life.runtime.instances)


def opened(life: Life) -> None:
    assert not life.world.frozen
    assert not life.status.cutover.source_frozen
    assert life.world.record.standing_freeze is None
    assert "SourceUnfrozen" in life.reasons()


def test_a_failed_final_check_opens_the_source() -> None:
    life = frozen()
    life.world.checks = [CheckResult.DIFFERENT]
    life.until(lambda _: "FinalCheckFailed" in life.reasons())
    life.until_phase(Phase.FOLLOWING)
    opened(life)


def test_writes_in_spite_of_the_freeze_give_the_cutover_up_and_name_the_tables() -> None:
    life = frozen(policy=OPERATOR.model_copy(update={"freeze": ACCOUNTS}))
    life.until(lambda status: status.cutover.freeze_position == "p1")
    life.world.position, life.world.written = "p2", {"shop.a": 3}
    life.until(lambda _: "WrittenAfterFreeze" in life.reasons())
    told = life.status.cutover.message
    assert "changes in shop.a (3), though frozen by locking the accounts app@%" in told
    life.until_phase(Phase.FOLLOWING)
    opened(life)


def test_an_automatic_cutover_does_not_freeze_the_source_again_and_again() -> None:
    life = frozen(policy=AUTOMATIC)
    life.until(lambda status: status.cutover.freeze_position == "p1")
    life.world.position = "p2"
    life.until_phase(Phase.FOLLOWING)
    given_up = life.runtime.now
    life.until_phase(Phase.CUTTING_OVER, within=600)
    assert life.runtime.now - given_up > RETRY_AFTER - timedelta(seconds=10)


def test_writes_after_a_users_own_freeze_are_named_and_it_starts_again() -> None:
    life = Life(World(), cutover=Cutover(mode=CutoverMode.AUTOMATIC))
    life.until(lambda status: status.cutover.freeze_position == "p1")
    life.world.position, life.world.written = "p2", {"shop.a": 3, "shop.b": 1}
    life.until(lambda _: "WrittenAfterFreeze" in life.reasons())
    assert "changes in shop.a (3), shop.b (1); stop the writes" in life.status.cutover.message
    life.until_phase(Phase.COMPLETED)


def test_the_source_stays_to_be_opened_while_that_fails() -> None:
    life = frozen(World(quiet=False))
    life.world.failures = {TaskKind.UNFREEZE: Failure(code=ExitCode.CONFIGURATION)}
    withdraw(life)
    life.go(30)
    assert life.status.phase is Phase.CUTTING_OVER
    assert life.world.record.last("timed-out") is None
    assert life.said("Stalled")[0] == "True"
    life.world.failures = {}
    life.until_phase(Phase.FOLLOWING, within=65)
    opened(life)


def test_cancel_opens_the_source_first() -> None:
    life = frozen(World(quiet=False), AUTOMATIC)
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.CANCELLED)
    opened(life)
    steps = [entry.step for entry in life.world.record.journal]
    assert steps.index(UNFROZEN) < steps.index("cancelled")
    life.go(3)
    assert life.runtime.instances == {}


@pytest.mark.parametrize("paused", [False, True])
def test_a_lost_status_is_read_from_the_journal_and_the_source_is_opened(paused: bool) -> None:
    life = frozen(World(quiet=False))
    life.runtime.write_status(MigrationStatus())
    life.runtime.patch(cutover=OPERATOR)
    life.until_phase(Phase.CATCH_UP)
    life.runtime.patch(paused=paused)
    life.until(lambda status: not life.world.frozen and not status.cutover.source_frozen)
    opened(life)


def test_a_restarted_operator_opens_the_source() -> None:
    life = frozen(World(quiet=False))
    withdraw(life)
    life.once()
    life.reconciler.forget(KEY)
    life.runtime.instances.clear()
    life.until_phase(Phase.FOLLOWING)
    opened(life)


def disturb(life: Life, rng: random.Random) -> None:
    """One thing that may happen to a migration, its operator or its source."""
    broken = rng.choice([TaskKind.FREEZE, TaskKind.UNFREEZE, TaskKind.STREAM, TaskKind.FENCE, TaskKind.CHECK])
    what: list[Callable[[], object]] = [
        lambda: life.reconciler.forget(KEY),
        life.runtime.instances.clear,
        lambda: life.runtime.write_status(MigrationStatus()),
        lambda: life.runtime.patch(paused=rng.random() < 0.5),
        lambda: withdraw(life),
        lambda: approve(life),
        lambda: approve(life),
        lambda: run_late(life) if rng.random() < 0.2 else None,
        lambda: setattr(life.world, "failures", {broken: Failure(code=ExitCode.FAILED)}),
        lambda: setattr(life.world, "failures", {}),
        lambda: setattr(life.world, "quiet", rng.random() < 0.7),
        lambda: setattr(life.world, "position", f"p{int(life.world.position[1:]) + 1}"),
        lambda: setattr(life.world, "checks", [rng.choice(list(CheckResult))]),
    ]
    rng.choice(what)()


def approve(life: Life) -> None:
    life.runtime.patch(cutover=OPERATOR.model_copy(update={"approved_plan": life.status.plan.hash}))


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_only_a_switch_leaves_the_source_frozen(seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    life = Life(World(), cutover=OPERATOR)
    life.until_phase(Phase.FOLLOWING)
    for _ in range(60):
        life.go(rng.randint(0, 4))
        if rng.random() < 0.4:
            approve(life)
        disturb(life, rng)
        known = life.status.cutover.source_frozen or life.world.record.standing_freeze is not None
        assert known or not life.world.frozen, "nobody would know that it is frozen"
    life.world.failures, life.world.quiet, life.world.checks = {}, True, []
    life.runtime.patch(paused=False, cancel=True)
    life.until(lambda status: status.phase in (Phase.CANCELLED, Phase.COMPLETED), within=700)
    life.go(5)
    switched = life.world.record.last("switched") is not None
    assert life.world.frozen == switched
    assert (life.status.phase is Phase.COMPLETED) == switched


class _Clearing:
    """The in-memory runtime, with nothing but tasks to take away."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.observe, self.remove, self.event, self.apply = (
            runtime.observe, runtime.remove, runtime.event, runtime.apply,
        )  # fmt: skip

    async def clear(self, key: Key, uid: str) -> bool:
        assert (key, uid) == (KEY, UID)
        return False


def deleted(life: Life, seconds: int) -> bool:
    """Delete it; whether it is gone within that time."""
    abandoning = Abandoning(_Clearing(life.runtime), life.runtime.clock)  # type: ignore[arg-type]
    for _ in range(seconds):
        if not asyncio.run(abandoning.clear(KEY, life.runtime.resource.metadata.uid)):
            return True
        life.runtime.advance()
    return False


def test_a_deletion_in_mid_cutover_opens_the_source_before_it_goes() -> None:
    life = frozen(World(quiet=False))
    assert deleted(life, 20)
    assert not life.world.frozen
    assert life.world.record.plan_attempt == 2, "a late freeze of the first attempt does nothing"


def test_a_deletion_that_cannot_open_the_source_goes_in_the_end_and_says_what_to_run() -> None:
    life = frozen(World(quiet=False))
    life.world.failures = {TaskKind.UNFREEZE: Failure(code=ExitCode.FAILED)}
    assert not deleted(life, 200)
    assert deleted(life, 400)
    assert life.runtime.events[-1].reason == "SourceLeftFrozen"
    assert "SET GLOBAL read_only = OFF" in life.runtime.events[-1].message


def test_a_deletion_after_the_switch_leaves_the_source_frozen() -> None:
    life = frozen()
    life.until_phase(Phase.COMPLETED)
    assert deleted(life, 5)
    assert life.world.frozen


def test_what_a_deletion_has_to_undo() -> None:
    cutting = MigrationStatus(phase=Phase.CUTTING_OVER, cutover=CutoverStatus(source_frozen=True))
    done = MigrationStatus(phase=Phase.COMPLETED, cutover=CutoverStatus(source_frozen=True))
    resource = migration(cutting, cutover=OPERATOR)
    assert aftermath.may_retain(resource)
    assert not aftermath.may_retain(migration(done, cutover=OPERATOR))
    assert "SET GLOBAL read_only = OFF" in aftermath.by_hand(resource).message
    locked = migration(cutting, cutover=OPERATOR.model_copy(update={"freeze": ACCOUNTS}))
    assert "ACCOUNT UNLOCK for each of app@%" in aftermath.by_hand(locked).message


@pytest.mark.parametrize(("policy", "spec"), [(OPERATOR, ITEMS), (OPERATOR.model_copy(update={"freeze": DENIED}), {})])
def test_a_method_of_another_kind_of_source_is_refused_before_anything_is_done(
    policy: Cutover, spec: dict[str, object]
) -> None:
    life = Life(World(), cutover=policy, **spec)
    life.go(5)
    assert life.said("Stalled")[:2] == ("True", "NotSupportedYet")
    assert "set it to User and stop the writers yourself" in life.said("Stalled")[2]
    assert life.runtime.started == []


def test_a_dynamodb_source_is_frozen_by_its_tables_policies_and_opened_again() -> None:
    life = Life(World(quiet=False), cutover=DENYING, **ITEMS)
    life.until(lambda _: life.world.frozen, 120)
    assert "Whimbrel stops the writes to the source by a deny statement" in life.status.cutover.message
    run_late(life)
    life.until_phase(Phase.FOLLOWING)
    opened(life)
    cutting = MigrationStatus(phase=Phase.CUTTING_OVER, cutover=CutoverStatus(source_frozen=True))
    told = aftermath.by_hand(
        migration(cutting, cutover=DENYING, source=ITEMS["source"], target=ITEMS["target"])
    ).message
    assert f"whose Sid begins with {SID_PREFIX}" in told


def test_the_journal_tells_what_stands() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for steps, stands in [
        ([], None),
        (["freezing"], "freezing"),
        (["freezing", "unfreezing"], "unfreezing"),
        (["freezing", "unfreezing", "unfrozen", "timed-out"], None),
        (["freezing", "unfrozen", "timed-out", "freezing", "switched"], "freezing"),
    ]:
        journal = [JournalEntry(step=step, recorded_at=at + timedelta(seconds=n)) for n, step in enumerate(steps)]
        found = Record(exists=True, journal=journal).standing_freeze
        assert (found.step if found else None) == stands
