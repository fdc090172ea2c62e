"""The proven steps of a cutover on a DynamoDB target: a row for each step, attempt and position. Milestones: journal.

A row's key is made of what it says, so that the condition alone keeps it from being written twice.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.acknowledgements import KEPT, Acknowledgement
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry, Value
from whimbrel_worker.errors import Conflict

PREFIX: Final = "acknowledged#"
_READ: Final = 2 * KEPT
_SET: Final = (
    "SET #step = :step, #plan = :plan, #attempt = :attempt, #position = :position, #by = :by, #detail = :detail,"
    " #recordedAt = :now, #number = :number"
)


def acknowledge(control: ControlTable, told: Acknowledgement) -> Acknowledgement:
    """Write it unless the table holds the same; the one that it holds."""
    values: dict[str, Value] = {"step": told.step, "plan": told.plan, "attempt": told.attempt}
    values |= {"position": told.position, "by": told.by, "detail": told.detail, "now": control.clock()}
    values["number"] = 1 + max((entry.number("number") for entry in _newest(control)), default=0)
    key = _key(told)
    row = control.update(key, _SET, where="attribute_not_exists(#step)", values=values) or control.get(key)
    if row is None:
        raise Conflict("an acknowledgement was taken away at the same moment", where=control.migration)
    return _acknowledgement(row)


def acknowledged(control: ControlTable) -> list[Acknowledgement]:
    """The newest of them, the oldest first, by their numbers: the endpoint's clock tells whole seconds."""
    found = sorted(_newest(control), key=lambda entry: (entry.number("attempt"), entry.number("number")))
    return [_acknowledgement(entry) for entry in found[-KEPT:]]


def _newest(control: ControlTable) -> list[Entry]:
    """Those of the last attempts, in no order: the keys are in the order of attempts."""
    return list(control.entries(PREFIX, newest_first=True, most=_READ))


def _key(told: Acknowledgement) -> str:
    digest = hashlib.sha256(told.position.encode()).hexdigest()[:16]
    return f"{PREFIX}{told.attempt:06d}#{told.step}#{digest}"


def _acknowledgement(entry: Entry) -> Acknowledgement:
    return Acknowledgement(
        step=entry.text("step"),
        plan=entry.text("plan"),
        attempt=entry.number("attempt"),
        position=entry.text("position"),
        by=entry.text("by"),
        detail=entry.text("detail"),
        at=datetime.fromtimestamp(entry.seconds("recordedAt"), UTC),
    )
