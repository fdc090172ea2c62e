"""What Jobs, pods and WorkerReports mean, in every order in which a cluster may show them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wanted import OWNER, SETTINGS, instances, usual, work
from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import FreezeOptions, TaskKind
from whimbrel_api.worker_reports import Failures, WorkerReportSpec
from whimbrel_operator.domain.decision import Event, WantedTask
from whimbrel_operator.domain.failures import may_start, trouble
from whimbrel_operator.domain.observed import TaskRef, TaskState
from whimbrel_operator.errors import (
    ClusterAway,
    Forbidden,
    NamespaceEnding,
    NotFound,
    NotInstalled,
    OperatorError,
    Outdated,
    Refused,
    StateUnreadable,
)
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import Call, refusal
from whimbrel_operator.runtime.kubernetes.events import event_of
from whimbrel_operator.runtime.kubernetes.observe.look import TaskObjects, by_task, look
from whimbrel_operator.runtime.kubernetes.observe.objects import (
    Condition,
    Ended,
    Job,
    Pod,
    Report,
    indexes,
    job_of,
    pod_of,
    report_of,
)
from whimbrel_operator.runtime.kubernetes.observe.steps import Step, next_step
from whimbrel_operator.runtime.kubernetes.observe.words import failure_of
from whimbrel_operator.specs import jobs, names, reports
from whimbrel_operator.specs.names import job_name
from whimbrel_operator.specs.rights import OPERATOR_RULES

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ERROR = ReportedError(category=ErrorCategory.CONFIGURATION, what="the password is wrong")
NAME = job_name(OWNER, "snapshot")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def job(**more: Any) -> Job:
    bare = Job(NAME, "job-1", "snapshot", TaskKind.SNAPSHOT, "f", 3, 2, T0)
    return replace(bare, **more)


def pod(index: int = 0, code: int | None = None, began: float = 1, ended: float = 5, **more: Any) -> Pod:
    over = Ended(code, at(ended), at(began), "Error", "last line") if code is not None else None
    bare = Pod(f"p-{index}-{began:g}", "snapshot", TaskKind.SNAPSHOT, index, "job-1", at(began), over, started=True)
    return replace(bare, **more)


def word(state: WorkerState, seconds: float = 5, index: int = 0, error: ReportedError | None = None) -> WorkerReport:
    return WorkerReport(
        task=TaskKind.SNAPSHOT, task_id="snapshot", index=index, state=state, observed_at=at(seconds), last_error=error
    )


def report(index: int = 0, said: WorkerReport | None = None, failures: int = 0, **more: Any) -> Report:
    known = Failures(count=failures, last_at=at(-60) if failures else None, last_error=ERROR if failures else None)
    bare = Report(f"{NAME}-{index}", "snapshot", TaskKind.SNAPSHOT, index, T0, WorkerReportSpec(failures=known), said)
    return replace(bare, **more)


def seen(held: Job | None, pods: list[Pod], told: list[Report], now: datetime | None = None) -> dict[int, TaskState]:
    objects = by_task("shop-prod", [held] if held else [], pods, told)
    return {state.ref.index: state for state in look(objects, now or at(10)).instances}


def wanted(count: int = 2, *, start: bool = True, **more: Any) -> tuple[WantedTask, ...]:
    one = WantedTask(TaskKind.SNAPSHOT, TaskRef("snapshot"), work(), generation=3, start=start, **more)
    return instances(one, count)


FAILED = Condition("PodFailurePolicy", "container worker failed", at(6))
COMPLETE = Condition("CompletionsReached", "", at(6))


def test_an_instance_without_a_pod_yet_runs() -> None:
    states = seen(job(), [], [report(0), report(1)])
    assert [
        (each.running, each.exit_code, each.failures, each.generation, each.fingerprint) for each in states.values()
    ] == [(True, None, 0, 3, "f")] * 2


@pytest.mark.parametrize(
    ("code", "seen_as"), [(1, 1), (2, 2), (3, 3), (4, 4), (137, 1), (255, 1), (5, 5)], ids=lambda code: f"{code}"
)
def test_the_exit_code_of_the_newest_pod_is_the_instances(code: int, seen_as: int) -> None:
    pods = [pod(0, 1, 1, 2), pod(0, code, 3, 5), pod(1, 5)]
    told = [report(0, word(WorkerState.FAILED, error=ERROR)), report(1)]
    states = seen(job(failed=FAILED), pods, told)
    # A pod that was told to stop is not the one that failed: then it is the one before.
    assert states[0].exit_code == (1 if code == 5 else seen_as)
    assert states[0].failed
    assert states[1].exit_code == 5


def test_a_job_that_failed_without_pods_is_told_by_the_report() -> None:
    for category, code in (
        (ErrorCategory.FENCED_OUT, 4),
        (ErrorCategory.SOURCE_LOG_LOST, 3),
        (ErrorCategory.TRANSIENT, 1),
    ):
        error = ReportedError(category=category, what="so")
        states = seen(job(failed=FAILED), [], [report(0), report(1, word(WorkerState.FAILED, index=1, error=error))])
        assert (states[0].exit_code, states[1].exit_code) == (5, code)
        assert (states[1].failures, states[1].last_error) == (1, error)


def test_a_job_that_failed_with_nothing_left_to_tell_why_gives_the_jobs_own_reason() -> None:
    states = seen(job(failed=Condition("BackoffLimitExceeded", "too often", at(6))), [], [report(0), report(1)])
    for state in states.values():
        assert (state.exit_code, state.failures) == (1, 1)
        assert state.last_error is not None
        assert "BackoffLimitExceeded: too often" in state.last_error.sentence()
        assert f"describe job {NAME}" in state.last_error.sentence()


def test_a_finished_index_is_done_while_others_run_and_after_the_job_has_failed() -> None:
    told = [report(0, word(WorkerState.DONE), failures=2), report(1)]
    for held in (job(completed=frozenset({0})), job(completed=frozenset({0}), failed=FAILED)):
        state = seen(held, [pod(0, 0)], told)[0]
        assert (state.done, state.failures, state.last_error, state.finished_at) == (True, 0, None, at(5))
    assert seen(job(complete=COMPLETE, completed=frozenset({0, 1})), [], told)[0].done


def test_a_finished_index_without_its_last_word_has_failed() -> None:
    for said in (None, word(WorkerState.RUNNING)):
        state = seen(job(complete=COMPLETE, completed=frozenset({0, 1})), [pod(0, 0)], [report(0, said, 1), report(1)])[
            0
        ]
        assert (state.exit_code, state.failures) == (1, 2)


def test_a_job_on_its_way_out_is_stopping_and_no_result() -> None:
    told = [report(0, word(WorkerState.DONE)), report(1)]
    for held in (job(deleting=True), job(deleting=True, complete=COMPLETE, completed=frozenset({0, 1}))):
        state = seen(held, [pod(0)], told)[0]
        assert (state.running, state.stopping, state.done) == (True, True, False)
        assert may_start(state, at(10), 3, again=True) is False
        assert trouble(replace(state, failures=3)) is None
    assert seen(job(deleting=True, complete=COMPLETE, completed=frozenset({0, 1})), [], told)[0].report is None


def test_trouble_lasts_from_the_failure_to_the_next_start_without_a_gap() -> None:
    """Failed, counted, on its way out, gone: what a person reads may not come and go."""
    pods, said = [pod(0, 2), pod(1, 5)], word(WorkerState.FAILED, error=ERROR)
    stages = [
        seen(job(failed=FAILED), pods, [report(0, said), report(1)]),
        seen(job(failed=FAILED), pods, [report(0, said, 1, counted="job-1"), report(1)]),
        seen(job(failed=FAILED, deleting=True), [], [report(0, said, 1, counted="job-1"), report(1)]),
        seen(None, [], [report(0, said, 1, counted="job-1"), report(1)]),
        seen(None, [], [report(0, None, 1, counted="job-1"), report(1)]),
        seen(job(uid="job-2"), [], [report(0, None, 1), report(1)]),
    ]
    for number, states in enumerate(stages):
        assert (states[0].failures, states[0].last_error) == (1, ERROR), number
        told = trouble(states[0])
        assert told is not None, number
        assert told.stalls, number


def test_failures_in_a_row_count_on_and_a_long_run_begins_anew() -> None:
    told = [report(0, failures=4), report(1)]
    assert seen(job(), [pod(0, 1, 1, 2), pod(0, 1, 10, 20), pod(0, None, 30)], told)[0].failures == 6
    assert seen(job(), [pod(0, 1, 1, 2), pod(0, 1, 10, 130), pod(0, None, 140)], told)[0].failures == 1
    assert seen(job(), [pod(0, 1, 1, 2), pod(0, 1, 10, 129.9), pod(0, None, 140)], told)[0].failures == 6


def test_what_the_cluster_drove_out_or_told_to_stop_has_not_failed() -> None:
    pods = [pod(0, 5, 1, 2), pod(0, 137, 3, 4, disrupted=True), pod(0, None, 5)]
    state = seen(job(), pods, [report(0), report(1)])[0]
    assert (state.running, state.failures, state.last_error) == (True, 0, None)


def test_a_former_pods_word_is_not_that_of_the_pod_that_runs_now() -> None:
    pods = [pod(0, 1, 1, 5), pod(0, None, 20)]
    assert seen(job(), pods, [report(0, word(WorkerState.RUNNING, 4.5)), report(1)])[0].report is None
    fresh = seen(job(), pods, [report(0, word(WorkerState.RUNNING, 21)), report(1)])[0]
    assert fresh.report is not None
    assert fresh.failures == 1
    assert fresh.last_error is not None
    assert "last line" in fresh.last_error.why


@pytest.mark.parametrize(
    ("code", "message", "category", "why"),
    [
        (
            2,
            "2026-11-21 16:03:53,370 WARNING [shop/a stream-0 epoch 3] MainThread whimbrel_worker.reporting: late\n"
            "2026-11-21 16:03:53,370 ERROR MainThread whimbrel_worker.runner: ConfigurationError: Secret s has none",
            ErrorCategory.CONFIGURATION,
            "the last line of its log: Secret s has none",
        ),
        (
            2,
            '{"level": "error", "task": "stream", "message": "ConfigurationError: Secret s has none"}\n',
            ErrorCategory.CONFIGURATION,
            "the last line of its log: Secret s has none",
        ),
        (137, '{"level": "info", "message": "reading on"}', ErrorCategory.UNEXPECTED, ""),
        (3, "", ErrorCategory.SOURCE_LOG_LOST, ""),
        (4, "", ErrorCategory.FENCED_OUT, ""),
        (
            137,
            "2026-11-21 16:03:53,370 INFO MainThread whimbrel_worker.tasks.stream: reading on",
            ErrorCategory.UNEXPECTED,
            "",
        ),
        (1, "Traceback …\nModuleNotFoundError: No module named 'x'\n", ErrorCategory.UNEXPECTED, "No module named 'x'"),
        (1, "x" * 2000, ErrorCategory.UNEXPECTED, "x" * 599 + "…"),
    ],
)
def test_a_worker_without_a_report_is_told_by_its_exit_code_and_the_last_line_of_its_log(
    code: int, message: str, category: ErrorCategory, why: str
) -> None:
    ended = replace(pod(), ended=Ended(code, at(5), at(1), "Error", message))
    error = failure_of("shop-prod", ended)
    assert (error.category, f"exit code {code} without a report" in error.what) == (category, True)
    assert error.why.endswith(why) if why else error.why == ""
    assert "MainThread" not in error.sentence()
    assert f"kubectl -n shop-prod logs {ended.name}" in error.todo


def test_an_instance_too_many_stops_and_then_is_only_a_remainder() -> None:
    told = [report(0), report(1), report(2)]
    state = seen(job(), [pod(2)], told)[2]
    assert (state.running, state.stopping) == (True, True)
    state = seen(job(), [pod(2, 5)], told)[2]
    assert (state.running, state.exit_code, state.report) == (False, 5, None)
    assert sorted(seen(job(complete=COMPLETE, completed=frozenset({0, 1})), [], told)) == [0, 1]


def test_pods_whose_job_is_gone_are_stopping() -> None:
    states = seen(None, [pod(0), pod(1, 0)], [report(0)])
    assert (states[0].running, states[0].stopping) == (True, True)
    assert (states[1].running, states[1].exit_code) == (False, 5)


@pytest.mark.parametrize(
    ("held", "seconds", "said"),
    [
        (None, 59, ""),
        (None, 61, "no pod was made since 12:00:00 UTC"),
        (pod(started=False, waits_for="ErrImagePull: no such image"), 5, ""),
        (
            pod(started=False, waits_for="ErrImagePull: no such image"),
            15,
            "does not start: ErrImagePull: no such image",
        ),
        (pod(started=False), 15, ""),
        (pod(started=False), 65, "does not start since 12:00:01 UTC"),
        (pod(), 60, ""),
        (pod(), 65, "has reported nothing since 12:00:01 UTC"),
        (pod(deleting=at(30)), 45, ""),
        (pod(deleting=at(30)), 55, "does not end; see"),
        (pod(deleting=at(30), node="n-1"), 55, "its node may be lost, and no other takes its place before it has"),
        (pod(deleting=at(30), node="n-1"), 55, "kubectl delete node n-1"),
    ],
)
def test_why_an_instance_waits(held: Pod | None, seconds: float, said: str) -> None:
    state = seen(job(), [held] if held else [], [report(0), report(1)], at(seconds))[0]
    assert said in state.report_problem if said else state.report_problem == ""
    assert "kubectl -n shop-prod " in state.report_problem or not said


def test_a_worker_that_spoke_not_long_ago_is_not_silent() -> None:
    told = [report(0, word(WorkerState.RUNNING, 100)), report(1)]
    assert seen(job(), [pod()], told, at(159))[0].report_problem == ""
    assert "since 12:01:40 UTC" in seen(job(), [pod()], told, at(161))[0].report_problem


def test_a_pod_told_to_stop_that_does_not_end_is_told() -> None:
    ending = pod(deleting=at(30), node="n-1")
    state = seen(job(deleting=True), [ending], [report(0), report(1)], at(55))[0]
    assert state.stopping
    assert "kubectl delete node n-1" in state.report_problem


def step(held: Job | None, pods: list[Pod], told: list[Report], want: tuple[WantedTask, ...]) -> Step:
    objects = by_task("shop-prod", [held] if held else [], pods, told)
    task = objects.get("snapshot", TaskObjects("shop-prod", "snapshot"))
    return next_step(task, {state.ref.index: state for state in look(objects, at(10)).instances}, want)


def test_the_next_step_of_a_task_without_a_job() -> None:
    assert step(None, [], [], wanted()) is Step.START
    assert step(None, [], [], wanted(start=False)) is Step.WAIT
    assert step(None, [], [report(0)], (wanted(start=False)[0], wanted()[1])) is Step.WAIT
    assert step(None, [pod(0)], [report(0)], wanted(start=False)) is Step.END_STRAYS
    assert step(None, [pod(0, 0)], [report(0)], wanted()) is Step.START


def test_the_next_step_of_a_task_whose_job_is_over() -> None:
    broken = ([pod(0, 2), pod(1, 0)], [report(0), report(1, word(WorkerState.DONE, index=1))])
    failed = job(failed=FAILED, completed=frozenset({1}))
    assert step(failed, *broken, wanted()) is Step.RESTART
    held, free = wanted(start=False), wanted()
    assert step(failed, *broken, (free[0], held[1])) is Step.RESTART, "one that is done has nothing to wait for"
    assert step(failed, *broken, (held[0], free[1])) is Step.WAIT
    assert step(replace(failed, deleting=True), *broken, free) is Step.WAIT
    done = [report(index, word(WorkerState.DONE, index=index)) for index in range(2)]
    complete = job(complete=COMPLETE, completed=frozenset({0, 1}))
    assert step(complete, [], done, free) is Step.WAIT
    assert step(complete, [], done, wanted(again=True)) is Step.RESTART
    assert step(complete, [], done, wanted(start=False, again=True)) is Step.WAIT
    assert step(complete, [], done, wanted(3)) is Step.RESTART
    assert step(complete, [], done, wanted(1)) is Step.WAIT


def test_the_next_step_of_a_task_that_runs() -> None:
    told = [report(0), report(1)]
    own = job(fingerprint=jobs.fingerprint(wanted()[0]))
    assert step(own, [], told, wanted()) is Step.STEER
    assert step(own, [], told, wanted(start=False)) is Step.STEER
    assert step(own, [], told, wanted(3)) is Step.SCALE
    assert step(own, [pod(2)], [*told, report(2)], wanted(3)) is Step.WAIT
    assert step(own, [pod(2)], [*told, report(2)], wanted(1)) is Step.SCALE
    assert step(own, [], told, wanted(freeze=FreezeOptions(quiet_seconds=9))) is Step.REPLACE
    assert step(replace(own, deleting=True), [], told, wanted(3)) is Step.WAIT


CODES = st.one_of(st.none(), st.sampled_from([0, 1, 2, 3, 4, 5, 137]))


@given(
    first=st.lists(CODES, max_size=3),
    second=st.lists(CODES, max_size=3),
    over=st.sampled_from(["", "failed", "complete"]),
    deleting=st.booleans(),
    counted=st.booleans(),
    held=st.booleans(),
    failures=st.integers(0, 5),
)
def test_whatever_a_cluster_shows_an_instance_is_in_one_state(
    first: list[int | None],
    second: list[int | None],
    over: str,
    *,
    deleting: bool,
    counted: bool,
    held: bool,
    failures: int,
) -> None:
    pods = [
        pod(index, code, 10 * n + 1, 10 * n + 5)
        for index, codes in enumerate((first, second))
        for n, code in enumerate(codes)
    ]
    ends: dict[str, Any] = {"failed": {"failed": FAILED}, "complete": {"complete": COMPLETE}, "": {}}[over]
    own = job(deleting=deleting, **ends) if held else None
    told = [report(0, word(WorkerState.RUNNING), failures, counted="job-1" if counted else ""), report(1)]
    states = seen(own, pods, told)
    assert set(states) == {0, 1}
    for state in states.values():
        assert state.running == (state.exit_code is None)
        assert state.running or not state.stopping
        assert not (state.done and state.failures)
        assert state.failures >= 0
        assert not state.failed or own is None or state.failures > 0 or counted
    if over == "" and held and not deleting:
        assert all(state.running for state in states.values())
    if held and deleting and over != "failed":
        assert all(state.stopping for state in states.values())


def test_indexes_are_read_as_kubernetes_writes_them() -> None:
    assert indexes("") == frozenset()
    assert indexes("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}


def test_what_the_builders_make_is_read_back() -> None:
    built = jobs.job(OWNER, usual()["snapshot"], SETTINGS)
    built["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-21T12:00:00Z"}
    read = job_of(built)
    first = usual()["snapshot"][0]
    assert (read.task_id, read.kind, read.count, read.generation) == ("snapshot", TaskKind.SNAPSHOT, 3, 3)
    assert read.fingerprint == first.fingerprint
    assert read.started_at == T0
    body = reports.orders_report(OWNER, usual()["snapshot"][2])
    body["metadata"] |= {"creationTimestamp": "2026-11-21T12:00:00Z"}
    told = report_of(body)
    assert (told.task_id, told.index, told.kind, told.spec.orders) == ("snapshot", 2, TaskKind.SNAPSHOT, first.orders)
    assert not told.spoken
    broken = report_of({**body, "status": {"novelty": 1}})
    assert broken.spoken
    assert "cannot be read" in broken.problem


def test_an_object_without_its_label_is_named_with_what_to_do() -> None:
    built = jobs.job(OWNER, usual()["stream"], SETTINGS)
    built["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-21T12:00:00Z"}
    built["metadata"]["labels"].pop("app.kubernetes.io/component")
    with pytest.raises(StateUnreadable, match=r"kubectl -n shop-prod delete job shop-stream"):
        job_of(built)


def test_a_pod_that_failed_without_a_container_is_read() -> None:
    labels = {names.TASK: "snapshot", "app.kubernetes.io/component": "snapshot"}
    labels |= {"batch.kubernetes.io/job-completion-index": "3", "batch.kubernetes.io/controller-uid": "job-1"}
    meta = {"name": "p", "namespace": "n", "creationTimestamp": "2026-11-21T12:00:00Z", "labels": labels}
    read = pod_of({"metadata": meta, "status": {"phase": "Failed", "reason": "NodeLost", "message": "gone"}})
    assert (read.index, read.job_uid) == (3, "job-1")
    assert read.ended == Ended(1, T0, None, "NodeLost", "gone")
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    read = pod_of({"metadata": meta, "status": {"phase": "Pending", "containerStatuses": [waiting]}})
    assert (read.ended, read.started, read.waits_for) == (None, False, "ErrImagePull: no such image")


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (404, {"details": {"name": "shop"}}, Outdated, "migrations/status a/shop is gone"),
        (404, {}, NotInstalled, "kubectl apply --server-side -f crds/"),
        (409, {"message": "the object has been modified"}, Outdated, "has been modified"),
        (429, {}, ClusterAway, "tried again"),
        (500, {"message": "etcd is away"}, ClusterAway, "500: etcd is away"),
        (403, {"message": 'User "x" cannot update resource'}, Forbidden, "--subresource=status -n a"),
        (403, {"message": "exceeded quota: none"}, Refused, "exceeded quota: none"),
        (422, {"message": "spec.x: Invalid"}, Refused, "spec.x: Invalid"),
        (403, {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}, NamespaceEnding, "being deleted"),
    ],
)
def test_a_refusal_says_what_where_why_and_what_to_do(
    status: int, answer: dict[str, Any], kind: type[OperatorError], words: str
) -> None:
    error = refusal(Call("PUT", kinds.MIGRATIONS, "a", "shop", "status"), status, answer, "https://api")
    assert type(error) is kind
    assert words in str(error)


def test_what_is_not_there_is_not_found_when_it_is_read() -> None:
    told = {"details": {"name": "shop"}}
    assert type(refusal(Call("GET", kinds.MIGRATIONS, "a", "shop"), 404, told, "https://api")) is NotFound


def test_an_event_fits_and_equal_ones_have_equal_names() -> None:
    event = Event("Normal", "PhaseChanged", "€" * 600)
    first, second = event_of(OWNER, event, "me", T0), event_of(OWNER, event, "you", at(9))
    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert len(first["message"].encode()) <= 1024
    assert first["metadata"]["name"] != event_of(OWNER, replace(event, message="x"), "me", T0)["metadata"]["name"]


def test_the_rights_name_no_secrets_and_no_wildcards() -> None:
    for rule in OPERATOR_RULES:
        assert "secrets" not in rule["resources"]
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
