"""A Migration's own comparison: when one is due, and what the last one found. Validations are not here."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from whimbrel_api.base import Moment
from whimbrel_api.durations import seconds
from whimbrel_api.migration import CheckResult, Differences, MigrationValidationStatus
from whimbrel_api.reports import CheckReport, WorkerReport
from whimbrel_api.validation import Validation, ValidationPhase
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.domain.view import View

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
    word = view.result(task_id)
    if word is not None and word.check is not None and word.check.result is not None:
        yield from_check(word.check, word.observed_at, task_id)


def _children(view: View) -> Iterable[MigrationValidationStatus]:
    return (from_validation(each) for each in view.observed.validations if _counts(each))


def _counts(validation: Validation) -> bool:
    chosen = validation.spec.tables
    whole = not chosen.include and not chosen.exclude
    # Shares that began at different positions prove a difference, but not from where on nothing has been compared.
    tells = bool(validation.status.validated_through) or validation.status.result is not CheckResult.EQUAL
    return whole and tells and validation.status.phase is ValidationPhase.COMPLETED


def from_check(check: CheckReport, at: Moment, name: str) -> MigrationValidationStatus:
    """A finished check task as the Migration's status has it."""
    return MigrationValidationStatus(
        name=name,
        result=check.result,
        differences=check.differences,
        inconclusive=check.inconclusive,
        rows_compared=check.rows_compared,
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
        validated_through=status.validated_through,
        completed_at=status.completed_at,
    )


def check_due(view: View, last: MigrationValidationStatus) -> bool:
    """Whether a comparison shall run: none yet, half its allowed age gone, or the last not equal and 30 s ago."""
    if last.completed_at is None or last.result is None or not last.validated_through:
        return True
    age = view.now - last.completed_at
    half = timedelta(seconds=seconds(view.spec.validation.max_age) / 2)
    wait = half if last.result is CheckResult.EQUAL else min(half, REPEAT_AFTER)
    return age >= wait or age < -half


def merged(checks: Iterable[CheckReport]) -> CheckReport:
    """The shares of several workers as one: sums, largest totals, worst result.

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
        rows_total=max((part.rows_total for part in parts), default=0),
        tables_compared=sum(part.tables_compared for part in parts),
        tables_total=max((part.tables_total for part in parts), default=0),
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
