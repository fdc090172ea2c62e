"""A Migration's own comparison: when one is due, and what the last one found. Validations are not here."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from whimbrel_api.base import Moment
from whimbrel_api.durations import seconds
from whimbrel_api.migration import CheckResult, Differences, MigrationValidationStatus
from whimbrel_api.reports import CheckReport, WorkerReport
from whimbrel_api.validation import Validation, ValidationPhase
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.domain.migration.view import View

REPEAT_AFTER = timedelta(seconds=30)
_WORST_FIRST = (CheckResult.DIFFERENT, CheckResult.INCONCLUSIVE, CheckResult.EQUAL)


def check_id(previous: MigrationValidationStatus) -> str:
    """The id of the comparison after the given one, so that a result counts once and is then made anew."""
    return f"check-{stamp(previous.completed_at)}"


def stamp(moment: datetime | None) -> str:
    """A moment as a short name; `0` for none."""
    return format(int(moment.timestamp() * 1000), "x") if moment is not None else "0"


def last_validation(view: View) -> MigrationValidationStatus:
    """The newest comparison of the whole: the status' own, the one just finished, or that of a Validation.

    One that ended before this copy was complete speaks of an earlier copy and proves nothing.
    """
    copied = find(view.status.conditions, "SnapshotComplete")
    if copied is None or copied.status != "True":
        return MigrationValidationStatus()
    known = (view.status.validation, *_finished_check(view), *_children(view))
    found = [(each.completed_at, each) for each in known if each.completed_at is not None]
    of_this_copy = [pair for pair in found if pair[0] >= copied.last_transition_time]
    return max(of_this_copy, key=lambda pair: pair[0], default=(None, MigrationValidationStatus()))[1]


def _finished_check(view: View) -> Iterable[MigrationValidationStatus]:
    task_id = check_id(view.status.validation)
    state, word = view.tasks.find(task_id), view.result(task_id)
    if state is not None and word is not None and word.check is not None and word.check.result is not None:
        found = from_check(word.check, word.observed_at, task_id)
        took, start = (_passed(state.started_at, until) for until in (word.observed_at, word.started_at))
        yield found.model_copy(update={"took_seconds": took, "start_seconds": start})


def _passed(since: datetime, until: datetime | None) -> float | None:
    """The seconds between; None where they are not known, or by the clocks of two machines less than none."""
    if until is None or until < since:
        return None
    return round((until - since).total_seconds(), 1)


def _children(view: View) -> Iterable[MigrationValidationStatus]:
    sampled = view.spec.validation.mode == "Sample"
    return (from_validation(each) for each in view.observed.validations if _counts(each, sampled=sampled))


def _counts(validation: Validation, *, sampled: bool) -> bool:
    """Whether it speaks of the whole. `sampled`: whether a sample does; one that found something always tells."""
    chosen = validation.spec.tables
    whole = not chosen.include and not chosen.exclude
    # Shares that began at different positions prove a difference, but not from where on nothing has been compared.
    proven = bool(validation.status.validated_through) and (sampled or not validation.status.sampled)
    tells = proven or validation.status.result is not CheckResult.EQUAL
    return whole and tells and validation.status.phase is ValidationPhase.COMPLETED


def from_check(check: CheckReport, at: Moment, name: str) -> MigrationValidationStatus:
    """A finished check task as the Migration's status has it."""
    return MigrationValidationStatus(
        name=name,
        result=check.result,
        differences=check.differences,
        inconclusive=check.inconclusive,
        rows_compared=check.rows_compared,
        tables_compared=check.tables_compared,
        tables_total=check.tables_total,
        sampled=check.sampled,
        compared=share_text(check),
        validated_through=check.validated_through,
        completed_at=at,
    )


def from_validation(validation: Validation) -> MigrationValidationStatus:
    """A completed Validation as the Migration's status has it."""
    status = validation.status
    return MigrationValidationStatus(
        name=validation.metadata.name,
        result=status.result,
        differences=status.differences,
        inconclusive=status.inconclusive,
        rows_compared=status.rows_compared,
        tables_compared=status.tables_compared,
        sampled=status.sampled,
        compared=status.compared,
        validated_through=status.validated_through,
        completed_at=status.completed_at,
    )


def share_text(check: CheckReport) -> str:
    """What share of the rows a sample compared, for a reader; empty for a whole comparison."""
    if not check.sampled:
        return ""
    if check.rows_known < max(check.rows_compared, 1):
        return f"a sample: {check.rows_compared:,} items, of how many is not known"
    share = 100 * check.rows_compared / check.rows_known
    return f"a sample: {check.rows_compared:,} of about {check.rows_known:,} items ({share:.3g} %)"


def check_due(view: View, last: MigrationValidationStatus) -> bool:
    """Whether a comparison shall run: none yet, half its allowed age gone, or the last not good and 30 s ago."""
    if last.completed_at is None or last.result is None or not last.validated_through:
        return True
    if last.sampled and view.spec.validation.mode != "Sample":
        return True
    age = view.now - last.completed_at
    half = timedelta(seconds=seconds(view.spec.validation.max_age) / 2)
    good = last.result is CheckResult.EQUAL and left_out(last, view.status.snapshot.tables_total) == 0
    wait = half if good else min(half, REPEAT_AFTER)
    return age >= wait or age < -half


def left_out(validation: MigrationValidationStatus, tables: int) -> int:
    """How many of the tables it left out, of those that it knew of or that were copied (`tables`, 0 for not known).

    Where nobody counted it is whole all the same: a comparison of chosen tables is not taken in the first place.
    """
    compared = validation.tables_compared
    return max(0, max(validation.tables_total, tables) - compared) if compared else 0


def merged(checks: Iterable[CheckReport]) -> CheckReport:
    """The shares of several workers as one: sums and the worst result.

    The position is known only where all name the same one: positions are opaque, so nobody here can tell the earliest.
    """
    parts = list(checks)
    results = {part.result for part in parts}
    through = {part.validated_through for part in parts}
    worst = next((result for result in _WORST_FIRST if result in results), None)
    return CheckReport(
        result=None if None in results else worst,
        differences=_sum(part.differences for part in parts),
        inconclusive=sum(part.inconclusive for part in parts),
        rows_compared=sum(part.rows_compared for part in parts),
        sampled=any(part.sampled for part in parts),
        rows_known=sum(part.rows_known for part in parts),
        rows_total=sum(part.rows_total for part in parts),
        tables_compared=sum(part.tables_compared for part in parts),
        tables_total=sum(part.tables_total for part in parts),
        validated_through=through.pop() if len(through) == 1 else "",
        report_file=", ".join(part.report_file for part in parts if part.report_file),
    )


def _sum(parts: Iterable[Differences]) -> Differences:
    each = list(parts)
    return Differences(
        missing=sum(part.missing for part in each),
        extra=sum(part.extra for part in each),
        changed=sum(part.changed for part in each),
    )


def words_of(view: View) -> WorkerReport | None:
    """The report of the comparison that runs now."""
    return view.word(check_id(view.status.validation))
