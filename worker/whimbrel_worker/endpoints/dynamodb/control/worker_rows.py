"""The control rows of workers on a DynamoDB target: taken and advanced by conditional updates. The fence itself.

The migration's row keeps the names of all workers' rows that were ever taken, so that whoever raises the epoch gets a
complete list with the very update that raises it, and no query that may lag behind decides. Rows are never deleted: a
dropped one stays as a mark that fences its last holder out.
"""

from dataclasses import dataclass, replace
from typing import Final

from whimbrel_worker.endpoints.dynamodb.control.control_rows import (
    CONTROL_TABLE,
    ControlTable,
    Entry,
    Value,
    expressions,
)
from whimbrel_worker.engine.fenced import epoch_over, succeeded
from whimbrel_worker.engine.ports import Identity
from whimbrel_worker.errors import FencedOut

MIGRATION: Final = "migration"
WORKERS: Final = "worker#"
_HELD: Final = "#epoch = :epoch AND #attempt = :attempt"


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A control row as its holder knows it."""

    epoch: int
    attempt: int
    sequence: int
    position: str


def worker_entry(task: str, index: int) -> str:
    """The row's key in the control table."""
    return f"{WORKERS}{task}#{index:05d}"


def index_of(entry: str) -> int:
    """The worker's index in its task, from the row's key."""
    return int(entry.rpartition("#")[2])


def hold_epoch(control: ControlTable, epoch: int, who: str) -> None:
    """See that the epoch is still this one, strongly. Raises FencedOut otherwise."""
    values: dict[str, Value] = {"epoch": epoch}
    if control.update(MIGRATION, "SET #epoch = :epoch", where="#epoch = :epoch", values=values) is None:
        raise over(control, epoch, who)


def take_row(control: ControlTable, identity: Identity, epoch: int) -> WorkerRow:
    """Take the row as (epoch, attempt + 1), made if missing. Raises FencedOut when the epoch has moved on.

    Repeated after a lost reply it takes one more attempt, which harms nobody.
    """
    entry, who = worker_entry(identity.task, identity.index), f"{identity.task} {identity.index}"
    values: dict[str, Value] = {"epoch": epoch, "name": frozenset({entry})}
    if control.update(MIGRATION, "ADD #workers :name", where="#epoch = :epoch", values=values) is None:
        raise over(control, epoch, who)
    taken = control.update(
        entry,
        "SET #epoch = :epoch, #attempt = if_not_exists(#attempt, :zero) + :one, #heartbeat = :now,"
        " #sequence = if_not_exists(#sequence, :zero), #position = if_not_exists(#position, :empty) REMOVE #dropped",
        where="attribute_not_exists(#epoch) OR #epoch <= :epoch",
        values={"epoch": epoch, "zero": 0, "one": 1, "empty": "", "now": control.clock()},
    )
    if taken is None:
        raise over(control, epoch, who)
    return row_of(taken)


def retake_row(control: ControlTable, identity: Identity, held: WorkerRow, step: int) -> WorkerRow:
    """Take a new attempt of the caller's own row, `step` higher. Raises FencedOut when it is a successor's by now.

    Who asks what became of an update must not take the row away from a successor. The reply to this can get lost too:
    repeated with the same step, which no other worker takes, it knows its own attempt again.
    """
    retaken = control.update(
        worker_entry(identity.task, identity.index),
        "SET #attempt = :next, #heartbeat = :now",
        where="#epoch = :epoch AND (#attempt = :attempt OR #attempt = :next)",
        values={"epoch": held.epoch, "attempt": held.attempt, "next": held.attempt + step, "now": control.clock()},
    )
    if retaken is None:
        raise replaced(control, identity, held)
    return row_of(retaken)


def advance(control: ControlTable, identity: Identity, row: WorkerRow, position: str) -> WorkerRow | None:
    """Move the row on by one. None where it is not as the caller knows it: succeeded, or done by a lost call."""
    moved = control.update(
        worker_entry(identity.task, identity.index),
        "SET #sequence = :next, #position = :position, #heartbeat = :now",
        where=f"{_HELD} AND #sequence = :sequence",
        values={**_held(row), "next": row.sequence + 1, "position": position, "now": control.clock(),
                "sequence": row.sequence},
    )  # fmt: skip
    return None if moved is None else replace(row, sequence=row.sequence + 1, position=position)


def beat(control: ControlTable, identity: Identity, row: WorkerRow) -> None:
    """Show that the holder lives, and see that it still holds the row. Raises FencedOut otherwise. Safe to repeat."""
    entry, values = worker_entry(identity.task, identity.index), {**_held(row), "now": control.clock()}
    if control.update(entry, "SET #heartbeat = :now", where=_HELD, values=values) is None:
        raise replaced(control, identity, row)


def held_check(control: ControlTable, identity: Identity, row: WorkerRow) -> dict[str, object]:
    """A transaction's ConditionCheck that the row is still the holder's."""
    key = control.key(worker_entry(identity.task, identity.index))
    return {"ConditionCheck": {"TableName": CONTROL_TABLE, "Key": key, **expressions(_HELD, "", _held(row))}}


def raise_row(control: ControlTable, entry: str, epoch: int) -> None:
    """Lift a worker's row into the epoch and out of its holder's hands; made if its worker is only making it."""
    control.update(
        entry,
        "SET #epoch = :epoch, #attempt = if_not_exists(#attempt, :zero) + :one,"
        " #sequence = if_not_exists(#sequence, :zero), #position = if_not_exists(#position, :empty)",
        where="attribute_not_exists(#epoch) OR #epoch < :epoch",
        values={"epoch": epoch, "zero": 0, "one": 1, "empty": ""},
    )


def drop_row(control: ControlTable, entry: str) -> None:
    """Take a row out of use: who holds it is fenced out."""
    control.update(
        entry,
        "SET #dropped = :yes, #position = :empty, #attempt = #attempt + :one",
        where="attribute_exists(#attempt)",
        values={"yes": True, "empty": "", "one": 1},
    )


def fence_lost(control: ControlTable, row: Entry) -> bool:
    """Take a silent worker's row from it; false when it has moved since it was read."""
    raised = control.update(
        row.key,
        "SET #attempt = :next",
        where="#attempt = :attempt AND #heartbeat = :seen",
        values={"next": row.number("attempt") + 1, "attempt": row.number("attempt"), "seen": row.seconds("heartbeat")},
    )
    return raised is not None


def row_of(entry: Entry) -> WorkerRow:
    """A worker's row from the table's."""
    return WorkerRow(entry.number("epoch"), entry.number("attempt"), entry.number("sequence"), entry.text("position"))


def _held(row: WorkerRow) -> dict[str, Value]:
    return {"epoch": row.epoch, "attempt": row.attempt}


def over(control: ControlTable, epoch: int, who: str) -> FencedOut:
    """The error for a worker of an epoch that is over."""
    found = control.get(MIGRATION)
    return epoch_over(epoch, found.number("epoch") if found else None, f"{control.migration}, {who}")


def replaced(control: ControlTable, identity: Identity, row: WorkerRow) -> FencedOut:
    """The error for a worker whose row is another's now."""
    held = f"epoch {row.epoch}, attempt {row.attempt}, sequence {row.sequence}"
    return succeeded(f"{control.migration}, {identity.task} {identity.index}", f"no row with {held}")
