"""The gates before a cutover. Each gives a condition with its figures; unknown closes it. What follows: see phases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from whimbrel_api.base import ConditionStatus
from whimbrel_api.durations import seconds
from whimbrel_api.migration import (
    CheckResult,
    Differences,
    MigrationValidationStatus,
    TableStatus,
    Thresholds,
    ValidationPolicy,
)
from whimbrel_operator.domain.cutover.exclusive import exclusive_gate
from whimbrel_operator.domain.cutover.gate import Gate, clock
from whimbrel_operator.domain.cutover.retention import retention_gate
from whimbrel_operator.domain.cutover.way_back_look import way_back_gate
from whimbrel_operator.domain.cutover.window import DUE, due_gate
from whimbrel_operator.domain.migration.checks import left_out
from whimbrel_operator.domain.migration.view import STREAM, View
from whimbrel_operator.domain.observed import LagSample, Memory, TaskState, is_fresh

STOPPED = "Stopped"
_KEPT_SAMPLES = 100
_QUIET = "Quiet"
_CLOCK_SKEW = timedelta(seconds=60)


def lag_gate(view: View) -> Gate:
    """Lag within its threshold in `samples` fresh, distinct readings in a row."""
    state = view.stream_state
    interval = state.report_interval if state is not None else 2.0
    return judge_lag(view.memory.lag, view.spec.thresholds, view.now, interval)


def judge_lag(samples: Sequence[LagSample], thresholds: Thresholds, now: datetime, interval: float) -> Gate:
    """The lag gate over the readings in the order in which they came. `interval` in seconds between two of them."""
    limit, needed = seconds(thresholds.lag), thresholds.samples
    newest = samples[-1] if samples else None
    if newest is None or newest.applied_to is None or not is_fresh(newest.at, now, interval):
        return _lag(
            "Unknown", "LagUnknown", "no fresh reading of the lag: the stream is not running or has not reported"
        )
    shown = _shown(newest)
    if not newest.within(limit):
        return _lag("False", "LagTooHigh", f"{shown} is above {limit:g} s")
    good = _good_in_a_row(samples, limit)
    if good < needed:
        return _lag("False", "TooFewSamples", f"{shown}, {good} of {needed} readings in a row within {limit:g} s")
    return _lag("True", _QUIET if newest.quiet else "WithinThreshold", f"{shown}, {_proof(newest, needed, limit)}")


def _shown(sample: LagSample) -> str:
    return "every shard is quiet" if sample.lag is None else f"lag {sample.lag:.1f} s"


def _proof(sample: LagSample, needed: int, limit: float) -> str:
    if sample.lag is None:
        return "which DynamoDB Streams cannot prove; the comparisons before and during the cutover read every item"
    return f"the last {needed} readings within {limit:g} s"


def _lag(status: ConditionStatus, reason: str, message: str) -> Gate:
    return Gate("LagWithinThreshold", status, reason, message)


def _good_in_a_row(samples: Sequence[LagSample], limit: float) -> int:
    count = 0
    for sample in reversed(samples):
        if not sample.within(limit):
            break
        count += 1
    return count


def remember_lag(memory: Memory, state: TaskState | None, now: datetime) -> Memory:
    """The memory with the stream's newest reading. A stale or stopped stream wipes it, and so closes the gate."""
    word = state.fresh_word(now) if state is not None else None
    if state is None or word is None or word.stream is None:
        return replace(memory, lag=())
    at, kept = word.stream.lag_observed_at, memory.lag
    if kept and not is_fresh(kept[-1].at, now, state.report_interval):
        kept = ()
    if at is not None and is_fresh(at, now, state.report_interval) and (not kept or at > kept[-1].at):
        kept = (*kept, LagSample(at, word.stream.lag_seconds, word.stream.quiet))[-_KEPT_SAMPLES:]
    return replace(memory, lag=kept)


def caught_up(view: View, since: datetime | None) -> bool:
    """Whether the lag gate is open and the target holds everything committed until `since`, the end of the copy.

    Chunks were read at different moments, so the copy is consistent only from a position after the last read.
    """
    newest = view.memory.lag[-1] if view.memory.lag else None
    applied_to = newest.applied_to if newest is not None else None
    if since is None or applied_to is None or not lag_gate(view).open:
        return False
    return applied_to >= since


def validation_gate(
    validation: MigrationValidationStatus, policy: ValidationPolicy, allowed: int, now: datetime, *, tables: int = 0
) -> Gate:
    """The last comparison is equal (or within the threshold), nothing inconclusive, whole, and young enough.

    `tables`: how many were copied; 0 where that is not known. A part of them is never taken for the whole, see checks.
    """
    completed, result = validation.completed_at, validation.result
    if completed is None or result is None:
        return _validation("Unknown", "NotValidated", "no comparison has been completed yet")
    rows = f"{validation.inconclusive} inconclusive in {validation.rows_compared} rows"
    found = f"{_differences(validation.differences)}, {rows}{f' ({validation.compared})' if validation.sampled else ''}"
    shut = _shut_by_result(validation, policy, allowed, found) or _shut_by_share(validation, tables, found)
    if shut is not None:
        return shut
    age, limit = now - completed, timedelta(seconds=seconds(policy.max_age))
    if not -_CLOCK_SKEW <= age <= limit:
        return _validation(
            "False", "TooOld", f"{found}, completed at {clock(completed)}, more than {policy.max_age} ago"
        )
    if not validation.validated_through:
        return _validation("Unknown", "PositionUnknown", f"{found}, but the position it holds for is not known")
    return _validation("True", "WithinThreshold", f"{found}, allowed {allowed}, completed at {clock(completed)}")


def _shut_by_result(
    validation: MigrationValidationStatus, policy: ValidationPolicy, allowed: int, found: str
) -> Gate | None:
    if validation.sampled and policy.mode != "Sample":
        return _validation("False", "Sampled", f"{found}, but spec.validation.mode asks for every row")
    if validation.result is CheckResult.INCONCLUSIVE or validation.inconclusive:
        return _validation("False", "Inconclusive", f"{found}: rows changed faster than they could be compared")
    if validation.result is CheckResult.DIFFERENT and not 0 < validation.differences.total <= allowed:
        return _validation("False", "Different", f"{found}, allowed {allowed}; a Validation by whimbrel run lists them")
    return None


def _shut_by_share(validation: MigrationValidationStatus, tables: int, found: str) -> Gate | None:
    if (left := left_out(validation, tables)) == 0:
        return None
    return _validation("False", "NotWhole", f"{found}, and {left} tables were left out")


def _validation(status: ConditionStatus, reason: str, message: str) -> Gate:
    return Gate("ValidationPassed", status, reason, message)


def _differences(found: Differences) -> str:
    return f"{found.total} differences ({found.missing} missing, {found.extra} extra, {found.changed} changed)"


def stopped_gate(tables: Sequence[TableStatus], *, known: bool) -> Gate:
    """No table is stopped. Without a fresh report of the stream that is not known."""
    stopped = [table for table in tables if table.state == STOPPED]
    if stopped:
        named = "; ".join(f"{table.name}: {table.message}" for table in stopped[:5])
        more = f" and {len(stopped) - 5} more" if len(stopped) > 5 else ""
        return Gate("NoStoppedTable", "False", "TableStopped", f"{len(stopped)} stopped: {named}{more}"[:4096])
    if not known:
        return Gate("NoStoppedTable", "Unknown", "NoFreshReport", "the stream has not reported lately")
    return Gate("NoStoppedTable", "True", "AllTablesFollow", "no table is stopped")


def stopped_now(view: View) -> Gate:
    """No table is stopped, by the newest reports and what was reported before."""
    word = view.word(STREAM)
    tables = (word.tables if word is not None else None) or view.status.tables
    return stopped_gate(tables, known=view.fresh_stream is not None)


def indexes_gate(view: View) -> Gate:
    """The secondary indexes are built."""
    if view.indexes_ready:
        return Gate("IndexesReady", "True", "IndexesReady", "the secondary indexes are built")
    return Gate("IndexesReady", "False", "NotYet", "the secondary indexes are not built yet")


def approval_gate(view: View) -> Gate:
    """The approval names this very plan. One for an older plan does nothing, and says so."""
    policy, plan = view.spec.cutover, view.plan
    if policy.rollback:
        message = "spec.cutover.rollback is true: set it to false, and approve the plan, for another cutover"
        return Gate("CutoverApproved", "False", "RollbackAsked", message)
    if view.automatic:
        return Gate("CutoverApproved", "True", "Automatic", "spec.cutover.mode is Automatic")
    if view.approved:
        return Gate("CutoverApproved", "True", "Approved", f"plan {plan.hash} (attempt {plan.attempt}) is approved")
    if policy.approved_plan:
        now = f"the plan is now {plan.hash} (attempt {plan.attempt})"
        message = f"the approval is for {policy.approved_plan}, {now}; approve it anew"
        return Gate("CutoverApproved", "False", "OldPlan", message)
    return Gate("CutoverApproved", "False", "NotApproved", f"approve plan {plan.hash} by spec.cutover.approvedPlan")


def gates(view: View, validation: MigrationValidationStatus) -> tuple[Gate, ...]:
    """All gates but the approval, in the order in which they are shown."""
    differences, tables = view.spec.thresholds.differences, view.status.snapshot.tables_total
    compared = validation_gate(validation, view.spec.validation, differences, view.now, tables=tables)
    asked = (lag_gate(view), compared, stopped_now(view), indexes_gate(view), retention_gate(view))
    return (*asked, *exclusive_gate(view), *way_back_gate(view), due_gate(view.spec.cutover, view.now))


def awaits_approval(found: Sequence[Gate], *, approved: bool) -> bool:
    """Whether only a person's word is missing. It may be given before the time has come, which the plan waits for."""
    return all(gate.open or (gate.type == DUE and not approved) for gate in found)
