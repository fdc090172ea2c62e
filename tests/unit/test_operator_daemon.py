"""A resource's daemon over the in-memory runtime: when it passes, what stops it (nothing), what it tells."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.memory_runtime import KEY, MemoryRuntime, migration
from support.operator_log import logging_to
from support.world import Failure, World
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import ValidationPhase, ValidationStatus
from whimbrel_operator.daemon import AT_REST, BUSY, ENDED, Clearing, Daemon, Shared, after, backoff
from whimbrel_operator.domain.observed import Memory
from whimbrel_operator.errors import ClusterAway, OperatorError, Refused, ResourceUnreadable, StateUnreadable
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.reconcile import Outcome, Reconciler
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.wakeups import Board

LACKS = ReportedError(category=ErrorCategory.CONFIGURATION, what="the account may not read the tables")


@dataclass
class Watched(MemoryRuntime):
    """Counts passes, also those at the same time. `trouble` is raised or awaited by each."""

    passes: int = 0
    at_once: int = 0
    most_at_once: int = 0
    trouble: Callable[[], Awaitable[None]] | None = None
    gone: bool = False
    times: list[float] = field(default_factory=list)

    async def observe(self, key: Key, memory: Memory) -> Any:
        self.passes += 1
        self.times.append(asyncio.get_running_loop().time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.005)
            if self.trouble is not None:
                await self.trouble()
            return None if self.gone else await super().observe(key, memory)
        finally:
            self.at_once -= 1


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def trouble() -> None:
        raise error

    return trouble


class Stage:
    """Some daemons over one runtime."""

    def __init__(self, runtime: Watched, *, slots: int = 4, pass_timeout: float = 5.0, nearest: float = 0.01) -> None:
        self.runtime, self.metrics, self.refused = runtime, Metrics(), list[Key]()
        self.left, self.leading = 3, True
        loop = asyncio.get_running_loop()
        self.board = Board(loop.time)
        self.shared = Shared(
            reconciler=Reconciler(runtime, runtime.clock),
            board=self.board,
            metrics=self.metrics,
            slots=asyncio.Semaphore(slots),
            clock=loop.time,
            leads=lambda: self.leading,
            clear=self.clear,
            refuse=self.refuse,
            pass_timeout=pass_timeout,
            nearest=nearest,
        )

    async def clear(self, key: Key, uid: str) -> bool:
        self.left -= 1
        return self.left > 0

    async def refuse(self, key: Key, error: OperatorError) -> None:
        self.refused.append(key)

    def daemon(self, key: Key = KEY, uid: str = "1") -> asyncio.Task[None]:
        return asyncio.create_task(Daemon(self.shared, self.board.join(key, uid)).run())

    def stalled(self) -> float | None:
        """What the figures say of the condition."""
        labels = {"namespace": KEY.namespace, "name": KEY.name, "kind": KEY.kind, "condition": "Stalled"}
        return self.metrics.registry.get_sample_value("whimbrel_resource_condition", labels)

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)


def run(story: Callable[[Watched], Awaitable[None]], runtime: Watched | None = None) -> None:
    async def whole() -> None:
        await story(runtime or Watched(World(), migration()))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(whole())


def test_it_passes_on_at_once_while_the_phase_moves_then_rests() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.daemon()
        await stage.until(lambda: runtime.resource.status.phase is Phase.PREFLIGHT)
        await asyncio.sleep(0.2)
        assert runtime.passes == 2

    run(story)


def test_many_bells_are_one_pass_and_no_two_passes_are_too_near() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime, nearest=0.1)
        stage.daemon()
        await stage.until(lambda: runtime.passes == 2)
        for _ in range(200):
            stage.board.child("1")
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.15)
        assert runtime.passes <= 2 + (runtime.times[-1] - runtime.times[0]) / 0.1
        assert runtime.passes < 50
        assert min(b - a for a, b in zip(runtime.times, runtime.times[1:], strict=False)) >= 0.1

    run(story)


def test_a_bell_during_a_pass_is_not_lost() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.daemon()
        await stage.until(lambda: runtime.passes == 2 and runtime.at_once == 0)
        stage.board.child("1")
        await stage.until(lambda: runtime.at_once == 1)
        stage.board.child("1")
        await stage.until(lambda: runtime.passes == 4)

    run(story)


def test_a_hundred_resources_share_the_slots_and_all_get_their_turn() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime, slots=3)
        tasks = [stage.daemon(Key("default", "Migration", f"m{number}"), str(number)) for number in range(100)]
        await stage.until(lambda: runtime.passes >= 100)
        assert runtime.most_at_once == 3
        assert not any(task.done() for task in tasks)

    run(story)


def test_two_daemons_of_one_name_take_turns() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.daemon(uid="1")
        stage.daemon(uid="2")
        await stage.until(lambda: runtime.passes >= 3)
        assert runtime.most_at_once == 1

    run(story)


def test_an_error_never_ends_it_and_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(ClusterAway("the API server does not answer", todo="nothing"))
        task = stage.daemon()
        await stage.until(lambda: runtime.passes == 1 and runtime.at_once == 0)
        runtime.trouble = None
        await stage.until(lambda: runtime.passes >= 3)
        assert not task.done()
        assert stage.metrics.registry.get_sample_value(
            "whimbrel_reconcile_errors_total", {"kind": "Migration", "error": "ClusterAway"}
        )

    with caplog.at_level(logging.INFO):
        run(story)
    assert [record.exc_info for record in caplog.records if record.levelno == logging.WARNING] == [None]
    assert "works again after 1 failed" in caplog.text


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_fails_again_and_again_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(ResourceUnreadable("spec.source: unknown"))
        stage.daemon()
        for passes in range(1, 6):
            await stage.until(lambda passes=passes: runtime.passes == passes and runtime.at_once == 0)  # type: ignore[misc]
            stage.board.changed("1", {"metadata": {"generation": passes + 1}})
        runtime.trouble = None
        await stage.until(lambda: runtime.resource.status.phase is Phase.PREFLIGHT)

    with caplog.at_level(logging.INFO):
        run(story)
    assert warned(caplog) == ["waits for a change of its spec: spec.source: unknown"]
    assert [record.levelno for record in caplog.records if "spec.source" in record.getMessage()] == [logging.ERROR]
    assert "works again after" in caplog.text


def test_an_api_server_that_is_away_is_one_line_for_all_resources(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        away = ClusterAway("the API server does not answer")
        away.__cause__ = TimeoutError()
        runtime.trouble = raising(away)
        for number in range(30):
            stage.daemon(Key("default", "Migration", f"m{number}"), str(number))
        await stage.until(lambda: runtime.passes >= 30 and runtime.at_once == 0)

    run(story)
    assert len(warned(caplog)) == 1


def test_steps_are_lines_with_their_resource_and_their_epoch() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.daemon()
        while runtime.resource.status.phase is not Phase.SNAPSHOT:
            runtime.advance()
            stage.board.changed("1", {"metadata": {"generation": runtime.passes + 1}})
            await asyncio.sleep(0.01)
        runtime.world.failures = {TaskKind.SNAPSHOT: Failure(code=ExitCode.CONFIGURATION, error=LACKS)}
        while not any(event.reason == "ConfigurationError" for event in runtime.events):
            runtime.advance()
            stage.board.changed("1", {"metadata": {"generation": runtime.passes + 1}})
            await asyncio.sleep(0.01)

    with logging_to("json") as stream:
        run(story)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    steps = {str(each["message"]).split(":")[0]: each for each in told}
    assert (steps["Started"]["level"], steps["Started"]["migration"]) == ("info", "default/shop")
    wrong = steps["ConfigurationError"]
    assert (wrong["level"], wrong["resource"], wrong["epoch"]) == ("error", str(KEY), 1)


def test_what_a_pass_sees_of_workers_and_the_spec_becomes_figures() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.daemon()
        await stage.until(lambda: runtime.passes == 2 and runtime.at_once == 0)
        stage.board.child("1")
        labels = {"namespace": KEY.namespace, "name": KEY.name}
        task = labels | {"kind": "Migration", "task": "preflight"}
        value = stage.metrics.registry.get_sample_value
        await stage.until(lambda: value("whimbrel_worker_running", task) == 1)
        assert value("whimbrel_worker_transactions_total", task) == 0
        assert value("whimbrel_migration_lag_threshold_seconds", labels) == 5

    run(story)


def test_a_defect_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(KeyError("oops"))
        task = stage.daemon()
        await stage.until(lambda: runtime.passes == 2)
        assert not task.done()

    run(story)
    assert "Traceback" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * len(caplog.records)


def test_a_backoff_is_ended_by_a_change_and_not_by_children() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(ClusterAway("away"))
        stage.daemon()
        await stage.until(lambda: runtime.passes == 1 and runtime.at_once == 0)
        for _ in range(20):
            stage.board.child("1")
            await asyncio.sleep(0.01)
        assert runtime.passes == 1
        stage.board.changed("1", {"metadata": {"generation": 2}})
        await stage.until(lambda: runtime.passes == 2, 0.6)

    run(story)


def test_what_cannot_be_read_is_said_in_its_status_and_waits_for_a_change() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(ResourceUnreadable("spec.source: unknown"))
        stage.daemon()
        await stage.until(lambda: stage.refused == [KEY])
        stage.board.child("1")
        await asyncio.sleep(0.1)
        assert runtime.passes == 1
        assert stage.board.overdue(1) == []
        runtime.trouble = None
        stage.board.changed("1", {"metadata": {"generation": 2}})
        await stage.until(lambda: runtime.resource.status.phase is Phase.PREFLIGHT)

    run(story)


@pytest.mark.parametrize(
    "error",
    [
        Refused("the cluster's rules refuse to create jobs", why="exceeded quota"),
        StateUnreadable("the Job of a hook does not say at which point of the cutover it runs"),
    ],
)
def test_what_a_person_must_put_right_is_said_in_the_status_until_it_works(error: OperatorError) -> None:
    """A quota, a missing right, an edited Job: who waits for the migration does not read the operator's log."""

    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(error)
        stage.daemon()
        await stage.until(lambda: stage.refused == [KEY])
        assert stage.stalled() == 1
        runtime.trouble = None
        await stage.until(lambda: runtime.resource.status.phase is Phase.PREFLIGHT)
        await stage.until(lambda: stage.stalled() == 0)

    run(story)


def test_a_defect_that_stays_is_said_in_the_status_and_one_that_passes_is_not() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        runtime.trouble = raising(KeyError("a row's value"))
        said: list[str] = []

        async def refuse(key: Key, error: OperatorError) -> None:
            said.append(f"{stage.runtime.passes} {error}")

        stage.shared.refuse = refuse
        stage.daemon()
        for passes in (1, 2):
            await stage.until(lambda passes=passes: runtime.passes == passes and runtime.at_once == 0)  # type: ignore[misc]
            assert said == []
            stage.board.changed("1", {"metadata": {"generation": passes + 1}})
        await stage.until(lambda: bool(said))
        assert said[0].startswith("3 the operator fails at this resource with KeyError")
        assert "row" not in said[0]

    run(story)


def test_a_status_that_could_not_say_so_is_tried_again_soon() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        refusals = 0

        async def refuse(key: Key, error: OperatorError) -> None:
            nonlocal refusals
            refusals += 1
            if refusals == 1:
                raise ClusterAway("somebody else wrote it")

        stage.shared.refuse = refuse
        runtime.trouble = raising(ResourceUnreadable("spec.source: unknown"))
        stage.daemon()
        await stage.until(lambda: refusals == 2)

    run(story)


def test_a_pass_that_hangs_is_overdue_and_a_failed_one_is_not() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime, pass_timeout=0.1)
        runtime.trouble = lambda: asyncio.sleep(60)
        stage.daemon()
        await stage.until(lambda: runtime.passes == 1 and runtime.at_once == 0)
        assert [key for key, _ in stage.board.overdue(0.05)] == [KEY]
        other = Watched(World(), migration(), trouble=raising(ClusterAway("refused with 500")))
        second = Stage(other)
        second.daemon()
        await second.until(lambda: other.passes == 1 and other.at_once == 0)
        await asyncio.sleep(0.1)
        assert second.board.overdue(0.05) == []

    run(story)


def test_nothing_is_begun_without_the_lease() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.leading = False
        stage.daemon()
        await asyncio.sleep(0.3)
        assert runtime.passes == 0
        stage.leading = True
        await stage.until(lambda: runtime.resource.status.phase is Phase.PREFLIGHT)

    run(story)


def test_a_resource_that_is_gone_ends_it() -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        task = stage.daemon()
        await stage.until(lambda: runtime.passes == 2)
        runtime.gone = True
        stage.board.child("1")
        await asyncio.wait_for(task, 1)
        assert len(stage.board) == 0

    run(story)


def test_clearing_goes_on_until_nothing_is_left_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        stage.metrics.seen(KEY, MigrationStatus())
        shown: list[bool] = []
        failed = iter([True, False, False, False])

        async def clear(key: Key, uid: str) -> bool:
            shown.append(b"whimbrel_migration_phase{" in stage.metrics.text())
            if next(failed):
                raise ClusterAway("away")
            return await stage.clear(key, uid)

        stage.shared.clear = clear
        await asyncio.wait_for(Clearing(stage.shared, KEY, "1").run(), 20)
        assert stage.left == 0
        assert shown == [False] * 4, "its workers end: what was known of it is so no more"
        assert b'name="shop"' not in stage.metrics.text()

    with caplog.at_level(logging.INFO):
        run(story)
    assert "not cleared yet" in caplog.text


def test_a_deletion_that_waits_for_a_person_says_so_in_the_status() -> None:
    """Its `kubectl delete` stands still, and nobody reads the operator's log."""

    async def story(runtime: Watched) -> None:
        stage = Stage(runtime)
        wrong: list[OperatorError] = [ResourceUnreadable("spec.source: unknown")]

        async def clear(key: Key, uid: str) -> bool:
            if wrong:
                raise wrong[0]
            return False

        stage.shared.clear = clear
        clearing = asyncio.create_task(Clearing(stage.shared, KEY, "1").run())
        await stage.until(lambda: stage.refused == [KEY])
        assert stage.stalled() == 1
        wrong.clear()
        await asyncio.wait_for(clearing, 20)

    run(story)


def test_how_long_it_rests() -> None:
    assert after(Outcome(moved=True)).seconds == 0
    assert after(Outcome(MigrationStatus(), busy=True)).seconds == pytest.approx(BUSY, rel=0.2)
    assert after(Outcome(MigrationStatus())).seconds == pytest.approx(AT_REST, rel=0.2)
    for ended in (MigrationStatus(phase=Phase.COMPLETED), ValidationStatus(phase=ValidationPhase.COMPLETED)):
        assert after(Outcome(ended)).seconds == pytest.approx(ENDED, rel=0.2)
        assert after(Outcome(ended, busy=True)).seconds == pytest.approx(BUSY, rel=0.2), "its last Job is still there"


def test_only_what_has_or_wants_tasks_is_busy() -> None:
    async def story(runtime: Watched) -> None:
        reconciler = Reconciler(runtime, runtime.clock)
        assert (await reconciler.reconcile(KEY)).busy
        runtime.patch(paused=True)
        await reconciler.reconcile(KEY)
        assert not (await reconciler.reconcile(KEY)).busy

    run(story)


def test_the_backoff_grows_to_a_minute_and_is_spread() -> None:
    lengths = [[backoff(failures).seconds for _ in range(50)] for failures in range(1, 40)]
    assert all(1 <= each <= 60 for row in lengths for each in row)
    assert min(lengths[-1]) >= 30
    assert max(lengths[0]) <= 1
    assert len(set(lengths[-1])) > 40
