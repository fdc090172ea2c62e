"""The Kubernetes runtime on a real API server, Job controller and garbage collector: what becomes of tasks."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.stage import NOWHERE, Play, Stage, error, failed, run_so_many, running, soon
from whimbrel_api.reports import ErrorCategory, WorkerState
from whimbrel_api.tasks import FreezeOptions, Orders, TaskKind
from whimbrel_operator.domain.observed import TaskState
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.observe.objects import job_of
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.runtime.kubernetes.writes import Writer
from whimbrel_operator.specs.names import job_name, report_name
from whimbrel_operator.specs.settings import PodSettings


def test_a_task_is_made_in_few_requests_and_then_left_alone(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        assert await stage.states() == ()
        before = stage.runtime.api.requests
        await stage.runtime.apply(stage.key, wanted)
        assert stage.runtime.api.requests - before == 6
        await stage.pod()
        before = stage.runtime.api.requests
        (state,) = await stage.step(wanted)
        assert stage.runtime.api.requests - before == 5
        assert (state.running, state.stopping, state.failures, state.report, state.generation) == (
            True,
            False,
            0,
            None,
            1,
        )
        assert state.fingerprint == wanted[0].fingerprint
        before = stage.runtime.api.requests
        await stage.runtime.apply(stage.key, wanted)
        assert stage.runtime.api.requests == before

    play(scene)


def test_applied_twice_upon_one_look_a_task_is_made_once(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.step(stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.RUNNING)
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all")
        await stage.until(lambda states: not states[0].running, stage.wanted(start=False))
        await stage.runtime.apply(stage.key, stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.RUNNING)
        uid = await stage.job_uid()
        await stage.runtime.apply(stage.key, stage.wanted())
        assert await stage.job_uid() == uid
        (state,) = await stage.states()
        assert state.report is not None, "a worker's word was taken away by the second time"

    play(scene)


def test_a_finished_task_stays_finished_and_is_removed_without_a_trace(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.runs()
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        (state,) = await stage.until(lambda states: states[0].done, wanted)
        assert state.word is not None
        assert (state.word.state, state.exit_code, state.failures) == (WorkerState.DONE, 0, 0)
        uid = await stage.job_uid()
        await stage.step(wanted)
        assert await stage.job_uid() == uid
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_a_removed_result_is_not_read_while_it_goes(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        await stage.until(lambda states: states[0].done, wanted)
        await stage.runtime.remove(stage.key, "preflight")
        seen = await stage.until(lambda states: running(states) and states[0].report is None, wanted)
        assert not any(state.done for state in seen)

    play(scene)


def test_a_stream_that_ended_is_started_again_where_it_has_no_end(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(TaskKind.STREAM, again=True)
        await stage.step(wanted)
        first = await stage.job_uid("stream")
        await stage.speak(TaskKind.STREAM, WorkerState.DONE)
        await stage.ends(0, "stream")
        await stage.until(lambda states: states[0].done, stage.wanted(TaskKind.STREAM, again=True, start=False))
        await stage.until(lambda states: running(states) and states[0].report is None, wanted)
        assert await stage.job_uid("stream") != first

    play(scene)


def test_a_finished_worker_whose_report_was_taken_away_is_no_result(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(start=False)
        await stage.step(stage.wanted())
        await stage.ends(0)
        (state,) = await stage.until(failed, wanted)
        assert state.last_error is not None
        assert "its report is gone" in state.last_error.what

    play(scene)


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (2, ErrorCategory.CONFIGURATION),
        (3, ErrorCategory.SOURCE_LOG_LOST),
        (4, ErrorCategory.FENCED_OUT),
    ],
)
def test_what_is_hopeless_fails_the_task_at_once(play: Play, code: int, category: ErrorCategory) -> None:
    async def scene(stage: Stage) -> None:
        held = stage.wanted(start=False)
        await stage.step(stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error(category))
        await stage.ends(code)
        (state,) = await stage.until(failed, held)
        assert (state.exit_code, state.failures, state.running, state.stopping) == (code, 1, False, False)
        assert state.last_error == error(category)
        assert state.last_failure_at is not None
        assert await stage.job() is not None, "a failed task is kept until it is tried again"

    play(scene)


def test_failures_are_counted_over_jobs_and_a_former_report_is_not_read(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted, held = stage.wanted(), stage.wanted(start=False)
        seen: list[TaskState] = []
        for times in (1, 2):
            await stage.until(running, wanted)
            await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error())
            await stage.ends(2)
            (state,) = await stage.until(failed, held)
            assert state.failures == times
            uid = await stage.job_uid()

            def told(states: tuple[TaskState, ...], times: int = times) -> bool:
                seen.extend(states)
                return running(states) and states[0].failures == times

            (fresh,) = await stage.until(told, wanted)
            assert (fresh.report, fresh.last_error) == (None, error())
            assert await stage.job_uid() != uid
        assert all(state.failures > 0 for state in seen), "the failures were forgotten for a moment"
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        (state,) = await stage.until(lambda states: states[0].done, wanted)
        assert (state.failures, state.last_error) == (0, None)

    play(scene)


def test_a_crash_between_counting_and_deleting_counts_nothing_twice(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.step(stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error())
        await stage.ends(2)
        (state,) = await stage.until(failed, stage.wanted(start=False))
        job = await stage.job()
        assert job is not None
        await Writer(stage.runtime.api, NOWHERE).remember(stage.owner, job_of(job), [state])
        (again,) = await stage.states()
        assert (again.failures, again.failed, again.last_error) == (1, True, error())

    play(scene)


def test_a_worker_that_crashed_is_tried_again_within_its_job(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.runs()
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.RUNNING)
        name = await stage.ends(137, message="…out of patience")
        (state,) = await stage.until(lambda states: states[0].failures == 1, wanted)
        assert state.running
        assert state.last_error is not None
        for part in ("exit code 137", name, "out of patience", f"logs {name}"):
            assert part in state.last_error.sentence()

    play(scene)


def test_a_real_worker_on_a_node_that_misses_its_secret_says_which(play: Play) -> None:
    """The one scene with a node: the test bed's agent runs the worker that the Job asks for."""

    async def scene(stage: Stage) -> None:
        stage.runtime = KubernetesRuntime(stage.client, PodSettings(image="any"), lambda: datetime.now(UTC))
        await stage.step(stage.wanted())
        (state,) = await stage.until(failed, stage.wanted(start=False))
        assert (state.exit_code, state.failures) == (2, 1)
        assert state.word is not None
        assert state.last_error is not None
        assert "mysql.source" in state.last_error.sentence()
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_a_worker_told_to_stop_has_not_failed(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        name = await stage.ends(5)

        async def accounted() -> bool:
            """The Job controller takes its finalizer away once it has drawn its conclusions."""
            pod = await stage.admin.get(kinds.PODS, stage.owner.namespace, name)
            return pod is not None and not pod["metadata"].get("finalizers")

        await soon(accounted)
        (state,) = await stage.states()
        assert (state.running, state.failures, state.last_error) == (True, 0, None)

    play(scene)


def test_one_hopeless_instance_ends_the_others_with_it(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted, held = stage.wanted(TaskKind.SNAPSHOT, 3), stage.wanted(TaskKind.SNAPSHOT, 3, start=False)
        await stage.step(wanted)
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.DONE, 2)
        await stage.ends(0, "snapshot", 2)
        await stage.until(lambda states: states[2].done, wanted)
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.FAILED, 1, last_error=error())
        await stage.ends(2, "snapshot", 1)
        states = await stage.until(failed, held)
        assert [state.exit_code for state in states] == [5, 2, 0]
        assert [state.failures for state in states] == [0, 1, 0]
        uid = await stage.job_uid("snapshot")
        mixed = tuple(replace(each, start=each.ref.index != 1) for each in wanted)
        await stage.step(mixed)
        assert await stage.job_uid("snapshot") == uid, "none begins while one has to wait"
        await stage.step(tuple(replace(each, start=each.ref.index != 2) for each in wanted))
        states = await stage.until(running, wanted)
        assert await stage.job_uid("snapshot") != uid
        assert [state.failures for state in states] == [0, 1, 0]

    play(scene)


def test_the_number_of_workers_changes_in_flight(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        def reports() -> list[str]:
            told = stage.cluster.kubectl("-n", stage.owner.namespace, "get", "workerreports", "-o", "name")
            return sorted(each.rpartition("-")[2] for each in told.split())

        async def rights() -> int:
            role = await stage.admin.get(kinds.ROLES, stage.owner.namespace, job_name(stage.owner, "snapshot"))
            assert role is not None
            return len(role["rules"][0]["resourceNames"])

        for count in (2, 4, 1):
            await stage.until(run_so_many(count), stage.wanted(TaskKind.SNAPSHOT, count))
            await stage.pod("snapshot", count - 1)
            assert (reports(), await rights()) == ([str(index) for index in range(count)], count)
        assert await stage.job_uid("snapshot")

    play(scene)


def test_a_finished_task_for_more_workers_is_done_once_more(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.step(stage.wanted(TaskKind.SNAPSHOT, 1))
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.DONE)
        await stage.ends(0, "snapshot")
        await stage.until(lambda states: states[0].done, stage.wanted(TaskKind.SNAPSHOT, 1))
        states = await stage.until(run_so_many(2), stage.wanted(TaskKind.SNAPSHOT, 2))
        assert [state.report for state in states] == [None, None]

    play(scene)


def test_another_wish_ends_the_job_and_makes_another(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(TaskKind.FREEZE)
        await stage.until(running, wanted)
        first = await stage.job_uid("freeze")
        other = stage.wanted(TaskKind.FREEZE, freeze=FreezeOptions(quiet_seconds=9))
        held = tuple(replace(each, start=False) for each in other)
        await stage.step(held)
        await stage.until(lambda states: all(not state.running and state.exit_code == 5 for state in states), held)
        await stage.until(lambda states: running(states) and states[0].fingerprint == other[0].fingerprint, other)
        assert await stage.job_uid("freeze") != first

    play(scene)


def test_orders_are_written_when_they_change_only(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.until(running, stage.wanted(TaskKind.STREAM))
        told = stage.wanted(TaskKind.STREAM, orders=Orders(drain_to="u:1-7", rows_per_second=9))
        for writes in (1, 0):
            await stage.observe()
            before = stage.runtime.api.requests
            await stage.runtime.apply(stage.key, told)
            assert stage.runtime.api.requests - before == writes
        name = report_name(job_name(stage.owner, "stream"), 0)
        for orders in (told[0].orders, Orders()):
            report = await stage.admin.get(kinds.WORKER_REPORTS, stage.owner.namespace, name)
            assert report is not None
            assert Orders.model_validate(report["spec"]["orders"]) == orders
            await stage.step(stage.wanted(TaskKind.STREAM))

    play(scene)


def test_a_task_in_flight_is_removed_without_a_trace(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.until(running, stage.wanted(TaskKind.SNAPSHOT, 2))
        await stage.runs("snapshot", 0)
        name = (await stage.pod("snapshot", 0))["metadata"]["name"]
        kept = {"metadata": {"finalizers": ["whimbrel.dev/lingers"]}}
        await stage.admin.merge(kinds.PODS, stage.owner.namespace, name, kept)
        await stage.runtime.remove(stage.key, "snapshot")

        async def told() -> bool:
            pod = await stage.admin.get(kinds.PODS, stage.owner.namespace, name)
            return pod is not None and "deletionTimestamp" in pod["metadata"]

        await soon(told)
        assert await stage.job_uid("snapshot"), "the Job went before its pods"
        states = await stage.step(stage.wanted(TaskKind.SNAPSHOT, 2))
        assert all(state.stopping for state in states)
        await stage.admin.merge(kinds.PODS, stage.owner.namespace, name, {"metadata": {"finalizers": None}})
        await stage.removed("snapshot")
        assert stage.left() == []

    play(scene)


def test_what_a_deleted_job_leaves_is_seen_and_taken_up_again(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.until(running, wanted)
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all")
        held = stage.wanted(start=False)
        (state,) = await stage.until(lambda states: not states[0].running, held)
        assert (state.exit_code, state.failures) == (5, 0)
        await stage.until(running, wanted)
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all")
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_pods_whose_job_was_taken_from_under_them_are_ended(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.until(running, wanted)
        orphan = (await stage.pod())["metadata"]["name"]
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all", "--cascade=orphan")
        (state,) = await stage.states()
        assert (state.running, state.stopping) == (True, True)
        await stage.until(running, wanted)
        assert (await stage.pod())["metadata"]["name"] != orphan
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all", "--cascade=orphan")
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)
