"""Raises a migration's epoch on a DynamoDB target: in its own row first, then in every worker's and shard's row.

There is no transaction over all these rows. The first update, which raises the epoch and names all workers' rows,
also leaves a mark (`raising`) that goes only when everything is done; the next call finds it and goes on. From the
first update on no worker of the old epoch can take a row; those that hold one lose it when their own row is raised.
"""

import json
from typing import Final

from whimbrel_worker.endpoints.dynamodb.control import journal
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry
from whimbrel_worker.endpoints.dynamodb.control.shard_store import raise_shards
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import MIGRATION, raise_row
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
        return row.number("epoch")
    epoch = row.number("epoch")
    raised = control.update(
        MIGRATION,
        f"SET #epoch = :next, #{_MARK} = :mark",
        where=f"#epoch = :epoch AND attribute_not_exists(#{_MARK})",
        values={"epoch": epoch, "next": epoch + 1, "mark": json.dumps([step, detail])},
    )
    if raised is None:
        raise Conflict("somebody else raised the epoch at the same moment", where=control.migration)
    reach("fence.raised")
    _finish(control, raised)
    return epoch + 1


def _finish(control: ControlTable, row: Entry) -> str:
    """Do what is left of a raise. Returns its step."""
    mark, epoch = row.text(_MARK), row.number("epoch")
    for entry in row.texts("workers"):
        raise_row(control, entry, epoch)
    raise_shards(control, epoch)
    step, detail = json.loads(mark)
    journal.write(control, step, detail)
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
