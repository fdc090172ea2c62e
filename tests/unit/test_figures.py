"""What the figures say of a resource and its workers: counters over restarts and operators, silence, lag, names."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from support.argo_lua import script
from support.memory_runtime import KEY, START, migration
from whimbrel_api.base import Condition
from whimbrel_api.cutover import Cutover, TargetExclusive
from whimbrel_api.migration import (
    CheckResult,
    Differences,
    MigrationStatus,
    MigrationValidationStatus,
    ReverseSyncPolicy,
    StreamStatus,
)
from whimbrel_api.reports import Counters, StreamResult, WorkerReport, WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.cutover.gates import approval_gate, gates
from whimbrel_operator.domain.migration.gate_news import GATES
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, Tasks, TaskState
from whimbrel_operator.figures import catalogue, dashboard
from whimbrel_operator.figures.counting import Account
from whimbrel_operator.metrics import Metrics

FILES = Path(__file__).parents[2] / "charts" / "whimbrel" / "files"


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def worker(
    counters: Counters | None, began: float | None = 0.0, *, index: int = 0, stream: StreamResult | None = None
) -> TaskState:
    """A running worker of the stream with its newest report; without counters it has not spoken yet."""
    word = counters and WorkerReport(
        task=TaskKind.STREAM, task_id="stream", index=index, state=WorkerState.RUNNING, counters=counters,
        observed_at=later((began or 0.0) + 1), started_at=None if began is None else later(began), stream=stream,
    )  # fmt: skip
    return TaskState(TaskKind.STREAM, TaskRef("stream", index), START, report=word or None)


def looked(*looks: TaskState) -> Account:
    """An operator that sees these, one after the other, after a first look at nothing."""
    account = Account()
    account.look(Tasks())
    for state in looks:
        account.look(Tasks((state,)))
    return account


def rows(account: Account) -> int:
    return account.totals[TaskKind.STREAM, "rows"]


def test_a_worker_that_starts_while_the_operator_looks_counts_in_full() -> None:
    assert rows(looked(worker(Counters(rows=5)), worker(Counters(rows=12)), worker(Counters(rows=12)))) == 12


def test_a_restarted_worker_is_added_and_a_former_one_that_still_speaks_is_not() -> None:
    first, second = worker(Counters(rows=10), 0), worker(Counters(rows=4), 60)
    assert rows(looked(first, second)) == 14
    assert rows(looked(first, second, first, worker(Counters(rows=30), 0), second)) == 14


def test_a_restarted_worker_that_has_overtaken_its_former_self_counts_in_full() -> None:
    assert rows(looked(worker(Counters(rows=10), 0), worker(Counters(rows=25), 60))) == 35


def test_a_new_operator_counts_nothing_of_what_it_finds() -> None:
    account = Account()
    account.look(Tasks((worker(Counters(rows=1000)),)))
    assert rows(account) == 0
    account.look(Tasks((worker(Counters(rows=1003)),)))
    assert rows(account) == 3


def test_a_worker_that_does_not_tell_its_start_is_another_one_once_it_has_counted_less() -> None:
    told = [worker(Counters(rows=count), None) for count in (10, 15, 4, 6)]
    assert rows(looked(*told)) == 15 + 6


def test_a_counter_is_there_at_0_before_the_first_report() -> None:
    metrics = Metrics()
    metrics.seen(KEY, MigrationStatus(), Observed(migration(), Tasks((worker(None),))))
    assert samples(metrics)["whimbrel_worker_rows_written_total", "stream"] == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50), st.booleans()), max_size=30))
def test_whatever_is_seen_a_sum_never_falls_and_never_exceeds_what_was_done(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Each step: a worker's index writes so many rows, or starts anew first; the operator looks after each."""
    account, lives, done = Account(), dict.fromkeys(range(3), (0.0, 0)), 0
    account.look(Tasks())
    before = 0
    for number, (index, count, anew) in enumerate(steps):
        began, written = (float(number + 1), 0) if anew else lives[index]
        lives[index] = (began, written + count)
        done += count
        account.look(Tasks(tuple(worker(Counters(rows=n), b, index=i) for i, (b, n) in lives.items())))
        assert before <= rows(account) <= done
        before = rows(account)
    assert rows(account) == done


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Values by name and the last label of each."""
    families = text_string_to_metric_families(metrics.text().decode())
    told = {figure.name: figure.labels[-1] for figure in catalogue.OF_RESOURCES}
    found = [each for family in families for each in family.samples]
    return {(each.name, each.labels[told[each.name]]): each.value for each in found if each.name in told}


def seen(status: MigrationStatus, *states: TaskState) -> dict[tuple[str, str], float]:
    metrics = Metrics(lambda: 1234.0)
    metrics.seen(KEY, MigrationStatus(), Observed(migration()))
    metrics.seen(KEY, status, Observed(migration(), Tasks(states)))
    return samples(metrics)


def test_retries_are_told_by_their_reason_and_each_once() -> None:
    metrics = Metrics()
    metrics.seen(KEY, MigrationStatus(), Observed(migration()))
    done = Counters(retries=10, conflicts=3, throttled=2, source_retries=5, source_throttled=4)
    metrics.seen(KEY, MigrationStatus(), Observed(migration(), Tasks((worker(done),))))
    families = text_string_to_metric_families(metrics.text().decode())
    (found,) = [family for family in families if family.name == "whimbrel_worker_retries"]
    assert {(each.labels["side"], each.labels["reason"]): each.value for each in found.samples} == {
        ("target", "conflict"): 3, ("target", "throttled"): 2, ("target", "other"): 5,
        ("source", "throttled"): 4, ("source", "other"): 1,
    }  # fmt: skip


def test_a_worker_that_never_spoke_is_silent_since_its_start_and_an_ended_one_is_no_news() -> None:
    running = worker(Counters())
    silent = TaskState(TaskKind.STREAM, TaskRef("stream", 1), later(-5))
    ended = TaskState(TaskKind.CHECK, TaskRef("check"), START, running=False, exit_code=1, failures=4)
    found = seen(MigrationStatus(), running, silent, ended)
    assert found["whimbrel_worker_last_report_timestamp_seconds", "stream"] == later(-5).timestamp()
    assert ("whimbrel_worker_last_report_timestamp_seconds", "check") not in found
    assert (found["whimbrel_worker_running", "stream"], found["whimbrel_worker_running", "check"]) == (2, 0)
    assert found["whimbrel_worker_failures_in_a_row", "check"] == 4


def test_a_worker_whose_pod_was_replaced_is_silent_since_the_former_ones_last_word() -> None:
    metrics, spoke = Metrics(), worker(Counters(), 7000)
    for state in (spoke, worker(None)):
        metrics.seen(KEY, MigrationStatus(), Observed(migration(), Tasks((state,))))
    assert samples(metrics)["whimbrel_worker_last_report_timestamp_seconds", "stream"] == later(7001).timestamp()


def test_fetch_and_apply_lag_stand_apart_and_old_ones_are_not_told() -> None:
    state = worker(Counters(), stream=StreamResult(fetch_lag_seconds=0.5))
    fresh = StreamStatus(lag_seconds=7.5, lag_observed_at=START)
    found = seen(MigrationStatus(stream=fresh), state)
    assert found["whimbrel_migration_lag_seconds", "shop"] == 7.5
    assert found["whimbrel_migration_fetch_lag_seconds", "shop"] == 0.5
    assert found["whimbrel_migration_lag_threshold_seconds", "shop"] == 5
    found = seen(MigrationStatus(), state)
    assert not {"whimbrel_migration_lag_seconds", "whimbrel_migration_fetch_lag_seconds"} & {name for name, _ in found}


def test_the_last_comparison_has_its_time_and_its_differences() -> None:
    last = MigrationValidationStatus(
        result=CheckResult.DIFFERENT, completed_at=START, differences=Differences(missing=2), inconclusive=1
    )
    found = seen(MigrationStatus(validation=last))
    assert found["whimbrel_migration_validation_timestamp_seconds", "shop"] == START.timestamp()
    assert found["whimbrel_migration_validation_differences", "missing"] == 2
    assert found["whimbrel_migration_validation_differences", "extra"] == 0
    assert found["whimbrel_migration_validation_inconclusive_rows", "shop"] == 1
    assert found["whimbrel_migration_validation_max_age_seconds", "shop"] == 3600
    assert found["whimbrel_resource_reconciled_timestamp_seconds", "Migration"] == 1234
    assert ("whimbrel_migration_validation_timestamp_seconds", "shop") not in seen(MigrationStatus())


def test_a_resource_of_which_no_pass_ends_shows_since_when() -> None:
    metrics, now = Metrics(lambda: now[0]), [100.0]
    metrics.begins(KEY)
    now[0] = 900.0
    metrics.begins(KEY)
    assert samples(metrics) == {("whimbrel_resource_reconciled_timestamp_seconds", "Migration"): 100.0}
    metrics.seen(KEY, MigrationStatus())
    assert samples(metrics)["whimbrel_resource_reconciled_timestamp_seconds", "Migration"] == 900.0


def test_a_resource_that_cannot_be_worked_on_is_stalled_until_a_pass_comes_to_its_end() -> None:
    metrics = Metrics()
    metrics.refused(KEY)
    assert samples(metrics)["whimbrel_resource_condition", "Stalled"] == 1
    goes_on = Condition(type="Stalled", status="False", reason="x", last_transition_time=START)
    metrics.seen(KEY, MigrationStatus(conditions=[goes_on]))
    assert samples(metrics)["whimbrel_resource_condition", "Stalled"] == 0
    metrics.refused(KEY)
    found = samples(metrics)
    assert (found["whimbrel_resource_condition", "Stalled"], found["whimbrel_migration_phase", "Pending"]) == (1, 1)


def test_of_a_resource_that_is_being_deleted_only_the_last_look_is_known() -> None:
    metrics, now = Metrics(lambda: now[0]), [100.0]
    metrics.seen(KEY, MigrationStatus(), Observed(migration(), Tasks((worker(Counters(rows=1)),))))
    metrics.clears(KEY)
    now[0] = 200.0
    metrics.cleared(KEY)
    assert samples(metrics) == {("whimbrel_resource_reconciled_timestamp_seconds", "Migration"): 200.0}


@pytest.mark.parametrize("figure", catalogue.ALL, ids=lambda figure: figure.name)
def test_names_follow_the_conventions(figure: catalogue.Figure) -> None:
    assert re.fullmatch(r"whimbrel_[a-z_]+", figure.name)
    assert figure.name.endswith("_total") == (figure.type == "counter")
    assert not re.search(r"_(ms|millis|minutes|hours|kb|mb|percent)\b", figure.name)
    assert figure.help.endswith(".")
    assert not {"table", "message", "pod", "index"} & set(figure.labels)


def test_each_name_is_there_once() -> None:
    names = [figure.name for figure in catalogue.ALL]
    assert len(names) == len(set(names))


def names_in(expr: str) -> set[str]:
    """The figures that an expression reads, a histogram's by its own name."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"whimbrel_\w+", expr)}


def test_the_dashboard_and_the_alerts_ask_for_figures_that_there_are() -> None:
    served = {figure.name for figure in catalogue.ALL}
    asked = [expr for _, expr in dashboard.queries()]
    assert len(asked) > 30
    assert {name for expr in asked for name in names_in(expr)} <= served
    assert names_in((FILES / "alerts.yaml").read_text(encoding="utf-8")) <= served


def test_the_dashboard_and_argo_cd_know_every_gate() -> None:
    strict = Cutover(target_exclusive=TargetExclusive.REQUIRE)
    resource = migration(cutover=strict, reverse_sync=ReverseSyncPolicy(enabled=True))
    view = View(Observed(resource, Tasks(())), START, Memory())
    found = [each.type for each in (*gates(view, MigrationValidationStatus()), approval_gate(view))]
    assert list(GATES) == found
    assert any(f'condition=~"{"|".join(GATES)}"' in expr for _, expr in dashboard.queries())
    # In Argo CD's script TargetExclusive has a branch of its own, because it is a gate only where it is required.
    (told,) = re.findall(r"local gates = \{(.*?)\}", script("Migration"), re.DOTALL)
    assert re.findall(r'"(\w+)"', told) == [each for each in found if each != "TargetExclusive"]


def test_no_panel_lies_over_another_and_each_has_a_title_and_says_what_it_shows() -> None:
    board = json.loads(dashboard.render())
    assert (FILES / "dashboard.json").read_text(encoding="utf-8") == dashboard.render(), "run make generate"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or (panel["description"] and panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
