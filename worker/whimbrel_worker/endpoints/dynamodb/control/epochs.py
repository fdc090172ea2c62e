"""Raises a migration's epoch on a DynamoDB target: in its own row first, then in every worker's and shard's row.

There is no transaction over all these rows. The first update, which raises the epoch and names all workers' rows,
also leaves a mark (`raising`) that goes only when everything is done; the next call finds it and goes on. From the
first update on no worker of the old epoch can take a row; those that hold one lose it when their own row is raised.
"""

import json
from typing import Final

from whimbrel_api.reports import TIMED_OUT
from whimbrel_worker.endpoints.dynamodb.control import journal
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry, Value
from whimbrel_worker.endpoints.dynamodb.control.shard_store import raise_shards
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import MIGRATION, raise_row
from whimbrel_worker.engine.fenced import switched_before
from whimbrel_worker.errors import ConfigurationError, Conflict
from whimbrel_worker.failpoints import reach

_MARK: Final = "raising"


def raise_epoch(control: ControlTable, step: str, detail: str) -> int:
    """Raise the epoch in all rows and journal why. Repeating the newest step raises nothing. Safe to repeat."""
    row = _now(control)
    if row.has(_MARK):
        finished = _finish(control, row)
        if finished == step:
            return row.number("epoch")
    last = journal.newest(control)
    if last is not None and last.text("step") == step:
        # The raise that this entry tells of may have come after the row was read.
        return _now(control).number("epoch")
    epoch = row.number("epoch")
    raised = _raise(control, epoch, step, detail)
    if raised is None:
        raise Conflict("somebody else raised the epoch at the same moment", where=control.migration)
    reach("fence.raised")
    _finish(control, raised)
    return epoch + 1


def conclude(control: ControlTable, step: str, detail: str, epoch: int, attempt: int) -> None:
    """Raise the epoch from this one, unless it or the plan's attempt was raised before; 0 is of any attempt.

    Whoever raised it before, the journal tells of it afterwards. Safe to repeat: the epoch is another one then.
    """
    raised = _raise(control, epoch, step, detail, attempt)
    if raised is None:
        _finish_what_is_left(control)
        return
    reach("fence.raised")
    _finish(control, raised)


def _raise(control: ControlTable, epoch: int, step: str, detail: str, attempt: int = 0) -> Entry | None:
    """The update that decides it. None where epoch or plan's attempt is another one, or a raise is unfinished."""
    values: dict[str, Value] = {"epoch": epoch, "next": epoch + 1, "mark": json.dumps([step, detail])}
    return control.update(
        MIGRATION,
        f"SET #epoch = :next, #{_MARK} = :mark",
        where=f"#epoch = :epoch AND attribute_not_exists(#{_MARK}){' AND #planAttempt <= :attempt' * bool(attempt)}",
        values=values | ({"attempt": attempt} if attempt else {}),
    )


def set_plan_attempt(control: ControlTable, attempt: int) -> None:
    """Raise the plan's attempt; never lowers it. A raise that is under way is finished before that."""
    _finish_what_is_left(control)
    done = control.update(
        MIGRATION,
        "SET #planAttempt = :attempt",
        where=f"#planAttempt < :attempt AND attribute_not_exists(#{_MARK})",
        values={"attempt": attempt},
    )
    if done is None and _now(control).has(_MARK):
        raise Conflict("somebody raises the epoch at this moment", where=control.migration)


def give_up(control: ControlTable, attempt: int, detail: str) -> None:
    """Raise the plan's attempt and journal `timed-out`. Raises FencedOut where the traffic has moved."""
    set_plan_attempt(control, attempt)
    if not journal.write_unless_switched(control, TIMED_OUT, detail):
        raise switched_before(control.migration)


def _finish_what_is_left(control: ControlTable) -> None:
    row = _now(control)
    if row.has(_MARK):
        _finish(control, row)


def _finish(control: ControlTable, row: Entry) -> str:
    """Do what is left of a raise. Returns its step."""
    mark, epoch = row.text(_MARK), row.number("epoch")
    for entry in row.texts("workers"):
        raise_row(control, entry, epoch)
    raise_shards(control, epoch)
    step, detail = json.loads(mark)
    reach("fence.lifted")
    journal.write_of_epoch(control, epoch, step, detail, lambda: _now(control).text(_MARK) == mark)
    control.update(MIGRATION, f"REMOVE #{_MARK}", where=f"#{_MARK} = :mark", values={"mark": mark})
    return str(step)


def _now(control: ControlTable) -> Entry:
    """The migration's row by a conditional update, which no lagging replica answers."""
    row = control.update(
        MIGRATION, "SET #touched = :now", where="attribute_exists(#epoch)", values={"now": control.clock()}
    )
    if row is None:
        raise ConfigurationError("the target holds no migration of that name", where=control.migration)
    return row
