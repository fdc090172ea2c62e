"""Takes a finished migration's rows out of the control table, but for a tombstone.

What stays is the migration's own row, its journalled end, and `retired`. By it a later Whimbrel knows that the target
is live and copies nothing over it. So the table itself stays as well.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from whimbrel_worker.endpoints.dynamodb.control.control_rows import CONTROL_TABLE, ControlTable, Entry
from whimbrel_worker.endpoints.dynamodb.control.journal import PREFIX, write
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import MIGRATION
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import each

RETIRED: Final = "retired"
_AT_ONCE: Final = 1000
_FORGOTTEN: Final = "REMOVE #workers, #startPosition, #validatedThrough"


def retire(control: ControlTable, steps: Sequence[str]) -> None:
    """Delete all rows but the tombstone's and journal `retired`. Safe to repeat; raises Transient or Refused.

    Of the journal the newest entry of each of the steps stays.
    """
    newest = {entry.text("step"): entry.key for entry in control.entries(PREFIX) if entry.text("step") in steps}
    kept = {MIGRATION, *newest.values()}
    going = (entry for entry in control.everything() if not _stays(entry, kept))
    while some := list(islice(going, _AT_ONCE)):
        each(lambda entry: _delete(control, entry), some)
    control.update(MIGRATION, _FORGOTTEN, where="attribute_exists(#epoch)")
    write(control, RETIRED, "")


def _stays(entry: Entry, kept: set[str]) -> bool:
    return entry.key in kept or (entry.key.startswith(PREFIX) and entry.text("step") == RETIRED)


def _delete(control: ControlTable, entry: Entry) -> None:
    control.client.ask("DeleteItem", {"TableName": CONTROL_TABLE, "Key": control.key(entry.key)})
