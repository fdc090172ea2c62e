"""Gates, plan, conditions, backoff and figures, each alone."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.memory_runtime import START, migration
from whimbrel_api.base import Condition, SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, FreezeMethod, FreezePolicy, SourceFreeze, Window
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard
from whimbrel_api.migration import (
    CheckResult,
    Differences,
    MigrationValidationStatus,
    RateLimit,
    ReverseSyncPolicy,
    Snapshot,
    SnapshotStatus,
    Tables,
    TableStatus,
    Thresholds,
    ValidationPolicy,
)
from whimbrel_api.reports import CheckReport, check_passes
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.conditions import Said, merge
from whimbrel_operator.domain.cutover.gate import Gate
from whimbrel_operator.domain.cutover.gates import (
    awaits_approval,
    gates,
    judge_lag,
    stopped_gate,
    validation_gate,
)
from whimbrel_operator.domain.cutover.way_back_look import way_back_gate
from whimbrel_operator.domain.cutover.window import DUE
from whimbrel_operator.domain.failures import may_start, retry_delay
from whimbrel_operator.domain.migration.checks import merged
from whimbrel_operator.domain.migration.plan import frozen_changes, plan_hash
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import LagSample, Memory, Observed, RowSample, TaskRef, Tasks, TaskState
from whimbrel_operator.domain.progress import percent, rate

POLARDB = PolarDBSource(host="polar", credentials_secret_ref=SecretRef(name="polar"))
LIMITS = Thresholds(lag="5s", samples=3)


def samples(*lags: float | None, age: float = 0.0) -> list[LagSample]:
    last = START - timedelta(seconds=age)
    return [LagSample(last - timedelta(seconds=len(lags) - 1 - i), lag) for i, lag in enumerate(lags)]


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        ([], "Unknown", "LagUnknown"),
        (samples(0.1, 0.1), "False", "TooFewSamples"),
        (samples(0.1, 0.1, 5.0), "True", "WithinThreshold"),
        (samples(0.1, 0.1, 5.1), "False", "LagTooHigh"),
        (samples(0.1, 9.0, 0.1, 0.1), "False", "TooFewSamples"),
        (samples(0.1, None, 0.1, 0.1), "False", "TooFewSamples"),
        (samples(0.1, 0.1, None), "Unknown", "LagUnknown"),
        (samples(0.1, 0.1, 0.1, age=2.9), "True", "WithinThreshold"),
        (samples(0.1, 0.1, 0.1, age=3.1), "Unknown", "LagUnknown"),
        (samples(0.1, 0.1, 0.1, age=-60.0), "Unknown", "LagUnknown"),
    ],
)
def test_the_lag_gate(found: list[LagSample], status: str, reason: str) -> None:
    gate = judge_lag(found, LIMITS, START, 1.0)
    assert (gate.status, gate.reason) == (status, reason)
    assert gate.open == (status == "True")


@given(st.lists(st.one_of(st.none(), st.floats(0, 20)), max_size=8))
def test_the_lag_gate_is_open_only_over_good_readings(lags: list[float | None]) -> None:
    opened = judge_lag(samples(*lags), LIMITS, START, 1.0).open
    assert opened == (len(lags) >= 3 and all(lag is not None and lag <= 5 for lag in lags[-3:]))


def compared(
    result: CheckResult,
    found: int = 0,
    unsure: int = 0,
    *,
    age: float = 10.0,
    through: str = "p1",
    tables: tuple[int, int] = (0, 0),
) -> object:
    return MigrationValidationStatus(
        tables_compared=tables[0],
        tables_total=tables[1],
        result=result,
        differences=Differences(missing=found),
        inconclusive=unsure,
        validated_through=through,
        completed_at=START - timedelta(seconds=age),
    )


@pytest.mark.parametrize(
    ("validation", "allowed", "reason"),
    [
        (MigrationValidationStatus(), 0, "NotValidated"),
        (compared(CheckResult.EQUAL), 0, "WithinThreshold"),
        (compared(CheckResult.DIFFERENT, 2), 0, "Different"),
        (compared(CheckResult.DIFFERENT, 2), 1, "Different"),
        (compared(CheckResult.DIFFERENT, 2), 2, "WithinThreshold"),
        (compared(CheckResult.DIFFERENT, 0), 2, "Different"),
        (compared(CheckResult.INCONCLUSIVE, 0, 1), 9, "Inconclusive"),
        (compared(CheckResult.EQUAL, 0, 1), 9, "Inconclusive"),
        (compared(CheckResult.EQUAL, age=3600), 0, "WithinThreshold"),
        (compared(CheckResult.EQUAL, age=3601), 0, "TooOld"),
        (compared(CheckResult.EQUAL, age=-600), 0, "TooOld"),
        (compared(CheckResult.EQUAL, through=""), 0, "PositionUnknown"),
        (compared(CheckResult.EQUAL, tables=(2, 3)), 0, "NotWhole"),
        (compared(CheckResult.EQUAL, tables=(3, 3)), 0, "NotWhole"),
        (compared(CheckResult.EQUAL, tables=(4, 4)), 0, "WithinThreshold"),
        (compared(CheckResult.EQUAL, tables=(4, 0)), 0, "WithinThreshold"),
    ],
)
def test_the_validation_gate(validation: MigrationValidationStatus, allowed: int, reason: str) -> None:
    """Four tables were copied; where nobody counted those compared, what is not whole is not taken at all."""
    gate = validation_gate(validation, ValidationPolicy(max_age="1h"), allowed, START, tables=4)
    assert gate.reason == reason
    assert gate.open == (reason == "WithinThreshold")


@pytest.mark.parametrize(
    ("result", "found", "unsure", "allowed", "passes"),
    [
        (CheckResult.EQUAL, 0, 0, 0, True),
        (CheckResult.DIFFERENT, 1, 0, 0, False),
        (CheckResult.DIFFERENT, 1, 0, 1, True),
        (CheckResult.INCONCLUSIVE, 0, 1, 5, False),
        (None, 0, 0, 5, False),
    ],
)
def test_the_final_check_passes(
    result: CheckResult | None, found: int, unsure: int, allowed: int, passes: bool
) -> None:
    assert check_passes(result, Differences(changed=found), unsure, allowed) == passes


def test_the_stopped_gate_names_the_table() -> None:
    stopped = [TableStatus(name=f"shop.t{i}", state="Stopped", message="DDL") for i in range(7)]
    gate = stopped_gate(stopped, known=True)
    assert not gate.open
    assert "shop.t0: DDL" in gate.message
    assert "and 2 more" in gate.message
    assert not stopped_gate([], known=False).open
    assert stopped_gate([TableStatus(name="a", state="Following")], known=True).open


def test_the_plan_covers_what_matters_and_nothing_else() -> None:
    spec = migration().spec
    plan = plan_hash(spec, 1)
    assert plan.startswith("sha256:")
    assert plan_hash(migration().spec, 1) == plan
    for change in ({"paused": True}, {"snapshot": Snapshot(workers=9)}, {"cutover": Cutover(approved_plan="x")}):
        assert plan_hash(spec.model_copy(update=change), 1) == plan
    limited = Snapshot(rate_limit=RateLimit(rows_per_second=1))
    assert plan_hash(spec.model_copy(update={"snapshot": limited}), 1) == plan
    others: list[dict[str, object]] = [
        {"tables": Tables(include=["a.b"])},
        {"thresholds": Thresholds(lag="9s")},
        {"cutover": Cutover(timeout="1m")},
    ]
    hashes = {plan, plan_hash(spec, 2), *(plan_hash(spec.model_copy(update=change), 1) for change in others)}
    assert len(hashes) == 5


def test_the_plan_covers_what_is_done_and_not_when() -> None:
    spec = migration().spec
    plan = plan_hash(spec, 1)
    others: list[dict[str, object]] = [
        {"cutover": Cutover(source_freeze=SourceFreeze.OPERATOR)},
        {"cutover": Cutover(freeze=FreezePolicy(method=FreezeMethod.LOCK_ACCOUNTS, accounts=["app@%"]))},
        {"cutover": Cutover(freeze=FreezePolicy(method=FreezeMethod.LOCK_ACCOUNTS, accounts=["web@%"]))},
        {"reverse_sync": ReverseSyncPolicy(enabled=True)},
        {"reverse_sync": ReverseSyncPolicy(enabled=True, polardb=POLARDB)},
        {"reverse_sync": ReverseSyncPolicy(enabled=True, layout=Layout(table_rule="other.{table}"))},
        {"reverse_sync": ReverseSyncPolicy(enabled=True, on_truncate=OnTruncate.SKIP)},
    ]
    hashes = {plan, *(plan_hash(spec.model_copy(update=change), 1) for change in others)}
    assert len(hashes) == len(others) + 1
    same: list[dict[str, object]] = [
        {"cutover": Cutover(not_before=START)},
        {"cutover": Cutover(window=Window(schedule="0 2 * * SUN"))},
        {"cutover": Cutover(freeze=FreezePolicy())},
        {"reverse_sync": ReverseSyncPolicy(guard=SlotGuard(warn_bytes=1 << 25))},
    ]
    assert {plan_hash(spec.model_copy(update=change), 1) for change in same} == {plan}


@pytest.mark.parametrize(
    ("changes", "attempt", "plan"),
    [
        ({}, 1, "sha256:a521a77a1502bdd7336e63dda717c409c49b860047e0c7feb5f1fe965614fdf1"),
        (
            {"cutover": Cutover(mode=CutoverMode.AUTOMATIC, timeout="1m"), "tables": Tables(include=["shop.*"]),
             "thresholds": Thresholds(lag="9s")},
            3, "sha256:a6ed14df57bd5bfbf1f1377f295deb233e5df31779e436ba8c66f123e8ae2eb5",
        ),
    ],
)  # fmt: skip
def test_an_approval_survives_a_new_version(changes: dict[str, object], attempt: int, plan: str) -> None:
    """As the first version computed them: a field that came later and stands at its default withdraws no approval."""
    assert plan_hash(migration(**changes).spec, attempt) == plan  # type: ignore[arg-type]


def test_a_way_back_that_is_asked_for_closes_a_gate_until_its_preflight_has_passed() -> None:
    asked = View(Observed(migration(reverse_sync=ReverseSyncPolicy(enabled=True)), Tasks(())), START, Memory())
    (gate,) = way_back_gate(asked)
    assert (gate.type, gate.status, gate.reason) == ("ReverseSyncReady", "Unknown", "NotChecked")
    assert gate in gates(asked, MigrationValidationStatus())
    assert way_back_gate(View(Observed(migration(), Tasks(())), START, Memory())) == ()


def test_an_approval_may_be_given_before_the_time_has_come() -> None:
    def all_open_but(*shut: str) -> list[Gate]:
        return [Gate(kind, "False" if kind in shut else "True", "Test", "") for kind in ("LagWithinThreshold", DUE)]

    assert awaits_approval(all_open_but(), approved=False)
    assert awaits_approval(all_open_but(DUE), approved=False)
    assert not awaits_approval(all_open_but(DUE), approved=True)
    assert not awaits_approval(all_open_but("LagWithinThreshold"), approved=False)


def test_credentials_may_change_and_the_server_may_not() -> None:
    spec = migration().spec
    other = {"mysql": {"host": "mysql", "credentialsSecretRef": {"name": "new"}, "tls": {"mode": "Disabled"}}}
    assert frozen_changes(spec, migration(source=other).spec) == ()
    moved = {"mysql": {"host": "elsewhere", "credentialsSecretRef": {"name": "src"}}}
    assert frozen_changes(spec, migration(source=moved).spec) == ("spec.source",)
    assert frozen_changes(spec, migration(tables=Tables(exclude=["a.*"])).spec) == ("spec.tables",)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    old = [Condition(type="Stalled", status="False", reason="A", message="m", last_transition_time=START)]
    later = START + timedelta(minutes=1)
    kept = merge(old, [Said("Stalled", "False", "B", "n")], later, 7)[0]
    assert (kept.last_transition_time, kept.reason, kept.message, kept.observed_generation) == (START, "B", "n", 7)
    assert merge(old, [Said("Stalled", "True", "B")], later, 7)[0].last_transition_time == later


def failed(code: int, failures: int, ago: float, generation: int = 1) -> TaskState:
    return TaskState(
        TaskKind.STREAM,
        TaskRef("stream"),
        START - timedelta(seconds=ago + 1),
        running=False,
        exit_code=code,
        finished_at=START - timedelta(seconds=ago),
        failures=failures,
        last_failure_at=START - timedelta(seconds=ago),
        generation=generation,
    )


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        (ExitCode.FAILED, [1, 2, 4, 8, 16, 32, 60, 60]),
        (ExitCode.CONFIGURATION, [5, 10, 20, 40, 80, 160, 300, 300]),
        (ExitCode.SOURCE_LOG_LOST, [5, 10, 20, 40, 80, 160, 300, 300]),
        (ExitCode.FENCED_OUT, [1, 2, 4, 8, 16, 32, 60, 60]),
        (-9, [1, 2, 4, 8, 16, 32, 60, 60]),
    ],
)
def test_each_exit_code_waits_as_it_should(code: int, waits: list[int]) -> None:
    for failures, wait in enumerate(waits, start=1):
        assert retry_delay(failed(code, failures, 0)).total_seconds() == wait
        assert not may_start(failed(code, failures, wait - 0.1), START, 1, again=False)
        assert may_start(failed(code, failures, wait), START, 1, again=False)


def test_a_new_generation_or_a_clock_set_back_ends_a_wait() -> None:
    assert may_start(failed(2, 5, 1), START, 2, again=False)
    assert may_start(failed(2, 1, -4000), START, 1, again=False)
    assert may_start(failed(ExitCode.TOLD_TO_STOP, 0, 0), START, 1, again=False)
    assert not may_start(failed(ExitCode.DONE, 0, 100), START, 9, again=False)
    assert may_start(failed(ExitCode.DONE, 0, 100), START, 1, again=True)


def test_rate_and_rest_come_from_two_readings() -> None:
    readings = (RowSample(START, 100), RowSample(START + timedelta(seconds=10), 600))
    found = rate(Memory(rows=readings), 1000)
    assert (found.rows_per_second, found.eta) == (50.0, 20.0)
    assert rate(Memory(rows=readings[:1]), 1000).eta is None


@pytest.mark.parametrize(
    ("copied", "expected"),
    [
        (SnapshotStatus(), 0),
        (SnapshotStatus(rows_total=10, rows_copied=6, tables_total=2), 60),
        (SnapshotStatus(rows_total=10, rows_copied=12, tables_total=2, tables_done=1), 99),
        (SnapshotStatus(rows_total=10, rows_copied=10, tables_total=2, tables_done=2), 100),
        (SnapshotStatus(tables_total=2, tables_done=2), 100),
    ],
)
def test_percent_is_hundred_only_when_all_tables_are_done(copied: SnapshotStatus, expected: int) -> None:
    assert percent(copied) == expected


def test_shares_of_a_comparison_are_summed_and_the_worst_result_wins() -> None:
    one = CheckReport(result=CheckResult.EQUAL, rows_compared=5, rows_total=9, validated_through="p1")
    two = CheckReport(result=CheckResult.DIFFERENT, differences=Differences(extra=2), rows_compared=4, rows_total=9)
    both = merged([one, two])
    assert (both.result, both.rows_compared, both.rows_total) == (CheckResult.DIFFERENT, 9, 18)
    assert (both.differences.extra, both.validated_through) == (2, "")
    assert merged([one, one]).validated_through == "p1"
    assert merged([one, CheckReport()]).result is None
