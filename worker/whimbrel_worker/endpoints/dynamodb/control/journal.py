"""The journal of a migration's milestones on a DynamoDB target: numbered rows, each put once."""

from datetime import UTC, datetime
from typing import Final

from whimbrel_api.reports import JournalEntry
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry
from whimbrel_worker.errors import Conflict

_PREFIX: Final = "journal#"
_KEPT: Final = 100
_MANY: Final = "timed-out"


def read_journal(control: ControlTable) -> list[JournalEntry]:
    """The newest entries in order; time-outs, of which there may be many, never crowd a milestone out."""
    entries = list(control.entries(_PREFIX))
    ranked = sorted(entries, key=lambda entry: (entry.text("step") == _MANY, -entry.number("number")))
    kept = sorted(ranked[:_KEPT], key=lambda entry: entry.number("number"))
    return [_journal_entry(entry) for entry in kept]


def newest(control: ControlTable) -> Entry | None:
    """The last entry's row."""
    return next(control.entries(_PREFIX, newest_first=True, most=1), None)


def write(control: ControlTable, step: str, detail: str) -> None:
    """Add a step unless it is the newest already. Raises Conflict when somebody added one at the same moment."""
    last = newest(control)
    if last is not None and (last.text("step"), last.text("detail")) == (step, detail):
        return
    number = 1 if last is None else last.number("number") + 1
    added = control.update(
        f"{_PREFIX}{number:06d}",
        "SET #number = :number, #step = :step, #detail = :detail, #recordedAt = :now",
        where="attribute_not_exists(#step)",
        values={"number": number, "step": step, "detail": detail, "now": control.clock()},
    )
    if added is None:
        raise Conflict("a journal entry was made at the same moment", where=control.migration)


def _journal_entry(entry: Entry) -> JournalEntry:
    at = datetime.fromtimestamp(entry.seconds("recordedAt"), UTC)
    return JournalEntry(step=entry.text("step"), detail=entry.text("detail"), recorded_at=at)
