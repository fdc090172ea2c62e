"""The journal of a migration's milestones on a DynamoDB target: numbered rows, each put once."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.reports import REPEATED_STEPS, SWITCHED, TRAFFIC_STEPS, JournalEntry
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry
from whimbrel_worker.errors import Conflict

PREFIX: Final = "journal#"
_KEPT: Final = 100
_LOOKED_AT: Final = 20


def read_journal(control: ControlTable) -> list[JournalEntry]:
    """The newest entries in order; steps of which there may be many never crowd a milestone out."""
    entries = list(control.entries(PREFIX))
    ranked = sorted(entries, key=lambda entry: (entry.text("step") in REPEATED_STEPS, -entry.number("number")))
    kept = sorted(ranked[:_KEPT], key=lambda entry: entry.number("number"))
    return [_journal_entry(entry) for entry in kept]


def newest(control: ControlTable) -> Entry | None:
    """The last entry's row."""
    return next(control.entries(PREFIX, newest_first=True, most=1), None)


def write(control: ControlTable, step: str, detail: str) -> None:
    """Add a step unless it is the newest already. Raises Conflict when somebody added one at the same moment."""
    last = newest(control)
    if last is None or (last.text("step"), last.text("detail")) != (step, detail):
        _add(control, last, step, detail)


def write_of_epoch(control: ControlTable, epoch: int, step: str, detail: str, still: Callable[[], bool]) -> None:
    """Add the step by which this epoch began, once, whoever else does so and whatever was journalled since.

    `still` says, strongly, whether nobody has finished that yet; it is asked after the journal was read. So an entry of
    another caller was seen, or has taken the number, or lies so far back that it was finished.
    """
    seen = list(control.entries(PREFIX, newest_first=True, most=_LOOKED_AT))
    if any(entry.number("epoch") == epoch for entry in seen) or not still():
        return
    _add(control, seen[0] if seen else None, step, detail, epoch)


def write_unless_switched(control: ControlTable, step: str, detail: str) -> bool:
    """The same as `write` unless the newest word on the traffic is `switched`. Returns whether it is not."""
    last, traffic = newest(control), _traffic(control)
    if traffic == SWITCHED:
        return False
    if last is None or (last.text("step"), last.text("detail")) != (step, detail):
        _add(control, last, step, detail)
    return True


def _traffic(control: ControlTable) -> str:
    steps = (entry.text("step") for entry in control.entries(PREFIX, newest_first=True, page=_LOOKED_AT))
    return next((step for step in steps if step in TRAFFIC_STEPS), "")


def _add(control: ControlTable, last: Entry | None, step: str, detail: str, epoch: int = 0) -> None:
    """Add an entry behind the last one. Raises Conflict when somebody did so since that was read."""
    number = 1 if last is None else last.number("number") + 1
    added = control.update(
        f"{PREFIX}{number:06d}",
        "SET #number = :number, #step = :step, #detail = :detail, #recordedAt = :now, #epoch = :epoch",
        where="attribute_not_exists(#step)",
        values={"number": number, "step": step, "detail": detail, "now": control.clock(), "epoch": epoch},
    )
    if added is None:
        raise Conflict("a journal entry was made at the same moment", where=control.migration)


def _journal_entry(entry: Entry) -> JournalEntry:
    at = datetime.fromtimestamp(entry.seconds("recordedAt"), UTC)
    return JournalEntry(step=entry.text("step"), detail=entry.text("detail"), recorded_at=at)
