"""Events of whole lives: each step is told, nothing is told twice, and no more is told than has changed."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from support.both_ways import WITH_WAY_BACK
from support.life import Life
from support.memory_runtime import KEY, MemoryRuntime, migration
from support.world import Failure, World
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, TargetExclusive
from whimbrel_api.migration import CheckResult, MigrationStatus, MigrationValidationStatus, Phase
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import Validation, ValidationPhase
from whimbrel_operator.domain.cutover.gates import approval_gate, gates
from whimbrel_operator.domain.migration.gate_news import gates_of
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.news import MOST_ALIKE
from whimbrel_operator.domain.observed import Memory, Observed
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key

AWAY = ReportedError(category=ErrorCategory.TRANSIENT, what="the source cannot be reached")


def facts(status: MigrationStatus) -> Iterator[tuple[str, object]]:
    """All that an Event may be about; figures are none."""
    cutover = status.cutover
    yield "phase", status.phase
    yield "state", cutover.state
    yield "frozen", cutover.source_frozen
    yield "unread", cutover.left_unread
    yield "attempt", status.plan.attempt
    yield "compared", status.validation.completed_at
    yield from ((f"condition {each.type}", (each.status, each.reason)) for each in status.conditions)
    yield from ((f"hook {each.id}", each.state) for each in cutover.hooks)


def changed(before: MigrationStatus, after: MigrationStatus) -> int:
    known = dict(facts(before))
    return sum(known.get(name) != value for name, value in facts(after))


def restart(life: Life) -> None:
    """Another operator takes over: what was only remembered is gone."""
    life.reconciler = Reconciler(life.runtime, life.runtime.clock)


def rested(life: Life, seconds: int) -> list[str]:
    """What is told while nothing happens."""
    count = len(life.runtime.events)
    life.go(seconds)
    return life.reasons()[count:]


def upset(life: Life, rng: random.Random) -> None:
    """Something that happens to a migration, or to its operator."""
    world, runtime = life.world, life.runtime
    match rng.randrange(14):
        case 0 | 1:
            restart(life)
        case 2:
            world.lag = rng.choice((0.1, 4.9, 60.0, None))
        case 3:
            world.checks = [rng.choice(list(CheckResult))]
        case 4:
            runtime.patch(paused=rng.random() < 0.5)
        case 5 | 6:
            kinds = [state.kind for state, _ in runtime.instances.values() if state.running]
            code = rng.choice((ExitCode.FAILED, ExitCode.CONFIGURATION))
            error = AWAY.model_copy(update={"why": f"port {rng.random()}"})
            world.failures = {kind: Failure(code=code, error=error) for kind in kinds[:1]}
        case 7:
            world.failures = {}
        case 8:
            world.quiet = rng.random() < 0.7
        case 9:
            plan = life.status.plan.hash if rng.random() < 0.7 else rng.choice(("", "sha256:old"))
            runtime.patch(cutover=Cutover(approved_plan=plan))
        case 10:
            runtime.silent = set() if runtime.silent else {"stream"}
        case 11:
            world.stopped_table = "" if world.stopped_table else "shop.orders"
        case 12:
            runtime.missing = () if runtime.missing else ("src",)
        case _:
            world.writes_at_fence = True


@pytest.mark.parametrize("turn", range(3))
def test_no_more_is_told_than_has_changed(turn: int) -> None:
    """A life of many passes in which much goes wrong, with operators that are started anew."""
    rng = random.Random(turn)
    life = Life(World(), validation={"max_age": "60s"})
    told, changes = 0, 0
    for _ in range(600):
        if rng.random() < 0.1:
            upset(life, rng)
        before, count = life.status, len(life.runtime.events)
        life.once()
        news, new = life.runtime.events[count:], changed(before, life.status)
        extra = sum(event.reason == "NotCarried" for event in news)
        assert len(news) - extra <= new, f"{[event.reason for event in news]} of {new} changes"
        assert extra <= MOST_ALIKE
        assert len(set(news)) == len(news), news
        told, changes = told + len(news), changes + new
        life.runtime.advance()
    assert 0 < told <= changes


def following(**spec: object) -> Life:
    life = Life(World(), **spec)
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.go(5)
    return life


def test_at_rest_a_thousand_passes_tell_nothing() -> None:
    assert rested(following(validation={"max_age": "48h"}), 1000) == []


def test_an_operator_that_is_started_again_tells_nothing_again() -> None:
    life = following(validation={"max_age": "48h"})
    for _ in range(3):
        restart(life)
        life.once()
        assert life.said("LagWithinThreshold")[0] != "True", "the lag is measured anew"
        assert rested(life, 20) == []
    assert life.said("LagWithinThreshold")[0] == "True"


def test_what_is_wrong_is_told_once_over_restarts_of_the_operator() -> None:
    life = following()
    wrong = ReportedError(category=ErrorCategory.CONFIGURATION, what="the account may not read the log")
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.CONFIGURATION, error=wrong)}
    life.go(60)
    for _ in range(5):
        restart(life)
        life.go(60)
    assert Counter(life.reasons())["ConfigurationError"] == 1


def told(life: Life, reason: str) -> list[str]:
    return [event.message for event in life.runtime.events if event.reason == reason]


def test_gates_that_open_and_close_are_told() -> None:
    life = following()
    assert told(life, "GateOpened") == ["IndexesReady is open", "ValidationPassed is open"]
    life.world.lag = 60.0
    life.go(3)
    assert told(life, "GateClosed") == ["LagWithinThreshold is closed: LagTooHigh; its condition says more"]
    life.go(20)
    life.world.lag = 0.1
    life.go(10)
    assert len(told(life, "GateClosed")) == 1
    assert told(life, "GateOpened")[2:] == ["LagWithinThreshold is open"]


def test_a_gate_whose_closing_another_event_tells_is_not_told_twice() -> None:
    life = following()
    life.runtime.patch(cutover=Cutover(approved_plan="sha256:old"))
    life.go(3)
    life.world.stopped_table = "shop.orders"
    life.go(3)
    assert (len(told(life, "OldPlan")), len(told(life, "TableStopped"))) == (1, 1)
    assert told(life, "GateClosed") == []


def test_a_gate_is_told_although_the_status_could_not_be_written_at_first() -> None:
    life = following()
    life.world.lag = 60.0
    life.runtime.advance()
    asyncio.run(conflicted(life))
    life.go(3)
    assert len(told(life, "GateClosed")) == 1


async def conflicted(life: Life) -> None:
    """A pass whose status somebody else is quicker with."""
    report = life.runtime.report

    async def late(key: Key, status: object, version: str) -> None:
        life.runtime.report = report  # type: ignore[method-assign]
        life.runtime.version += 1
        await report(key, status, version)  # type: ignore[arg-type]

    life.runtime.report = late  # type: ignore[method-assign,assignment]
    assert (await life.reconciler.reconcile(KEY)).events == ()


@pytest.mark.parametrize("exclusive", list(TargetExclusive))
@pytest.mark.parametrize("back", [False, True])
def test_the_gates_that_are_told_are_those_that_there_are(exclusive: TargetExclusive, back: bool) -> None:
    life = Life(World(), **(WITH_WAY_BACK if back else {}), cutover={"target_exclusive": exclusive})
    observed = asyncio.run(life.runtime.observe(KEY, Memory()))
    assert isinstance(observed, Observed)
    view = View(observed, life.runtime.now, Memory())
    judged = {gate.type for gate in (*gates(view, MigrationValidationStatus()), approval_gate(view))}
    told = set(gates_of(view)) - (set() if back else {"ReverseSyncReady"})
    assert judged == told


def test_a_pause_and_its_end_are_told() -> None:
    life = following()
    life.runtime.patch(paused=True)
    life.go(5)
    restart(life)
    life.go(5)
    life.runtime.patch(paused=False)
    life.go(20)
    steps = [reason for reason in life.reasons() if reason in ("Paused", "Resumed", "Progressing")]
    assert steps == ["Paused", "Resumed"]


def test_a_worker_that_fails_is_told_and_that_it_goes_on() -> None:
    life = following()
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.FAILED, error=AWAY)}
    life.go(5)
    life.world.failures = {}
    life.go(80)
    found = [event for event in life.runtime.events if event.reason in ("Retrying", "Progressing")]
    assert [event.reason for event in found] == ["Retrying", "Progressing"]
    assert "the source cannot be reached" in found[0].message
    assert (found[0].type, found[1].type) == ("Warning", "Normal")


def test_a_log_that_is_kept_again_is_told() -> None:
    life = Life(World(retention=100.0), cutover={"mode": "Manual"})
    life.until_phase(Phase.FOLLOWING)
    life.runtime.patch(paused=True)
    life.go(85)
    life.runtime.patch(paused=False)
    life.go(30)
    reasons = [reason for reason in life.reasons() if reason in ("RetentionNear", "LogKept")]
    assert reasons == ["RetentionNear", "LogKept"]


def test_a_cutover_tells_each_step_once() -> None:
    life = Life(World(), cutover=Cutover(mode=CutoverMode.AUTOMATIC))
    life.until_phase(Phase.COMPLETED)
    life.go(30)
    steps = [
        "CutoverApproved",
        "CutoverFreezing",
        "CutoverDraining",
        "CutoverFinalCheck",
        "Switched",
        "CutoverSwitched",
    ]
    counted = Counter(life.reasons())
    assert [counted[step] for step in steps] == [1] * len(steps)
    assert [reason for reason in life.reasons() if reason in steps] == steps


def test_a_validation_tells_what_keeps_it_and_that_it_goes_on() -> None:
    whole = migration().spec
    world = World(failures={TaskKind.CHECK: Failure(code=ExitCode.FAILED, error=AWAY)})
    resource = Validation.model_validate(
        {"metadata": {"name": "check", "uid": "v"}, "spec": {"source": whole.source, "target": whole.target}}
    )
    runtime, key = MemoryRuntime(world, resource), Key("default", "Validation", "check")
    reconciler = Reconciler(runtime, runtime.clock)

    def go(seconds: int) -> None:
        for _ in range(seconds):
            asyncio.run(reconciler.reconcile(key))
            runtime.advance()

    go(30)
    world.failures = {}
    go(120)
    assert runtime.resource.status.phase is ValidationPhase.COMPLETED
    reasons = [event.reason for event in runtime.events]
    assert reasons == ["Running", "Retrying", "Progressing", "ValidationEqual"]


def test_what_is_the_same_but_for_its_figures_is_no_news() -> None:
    life = following()
    life.world.position = "p99"
    assert rested(life, 30) == []
