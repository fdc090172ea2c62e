"""PutItem, UpdateItem and DeleteItem: one item read under a lock, judged, and changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from whimbrel_testbed.polardb.catalogue import Body, Catalogue
from whimbrel_testbed.polardb.conditions import holds, project
from whimbrel_testbed.polardb.limits import ITEM_BYTES
from whimbrel_testbed.polardb.parser import parse_condition, parse_update
from whimbrel_testbed.polardb.placeholders import Placeholders, no_legacy_parameters
from whimbrel_testbed.polardb.refusals import ConditionFailedError, InvalidError, invalid_parameter
from whimbrel_testbed.polardb.store import Connection, RacedError, Store
from whimbrel_testbed.polardb.syntax import Action, Condition
from whimbrel_testbed.polardb.tables import Table
from whimbrel_testbed.polardb.updates import updated
from whimbrel_testbed.polardb.values import Item, measure_item

_PUT_RETURNS = ("NONE", "ALL_OLD")
_UPDATE_RETURNS = ("NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW")


@dataclass
class Change:
    """A write of one item: where, under which condition, and what becomes of it (`None`: it goes).

    `apply` is None for a ConditionCheck, which changes nothing.
    """

    table: Table
    key: Item
    condition: Condition | None
    apply: Callable[[Item], Item | None] | None
    return_on_failure: bool = False

    def run(self, connection: Connection) -> tuple[Item | None, Item | None]:
        """Carry it out in the connection's transaction; returns the item before and after (None: absent)."""
        layout = self.table.layout
        lock = " FOR UPDATE" if self.apply else " FOR SHARE"
        row = connection.execute(layout.get_one + lock, self.table.key_texts(self.key)).fetchone()
        old: Item | None = orjson.loads(row[0]) if row else None
        if self.condition is not None and not holds(self.condition, old or {}):
            raise ConditionFailedError(old if self.return_on_failure else None)
        if self.apply is None:
            return old, old
        new = self.apply(old or {})
        self._write(connection, old, new)
        return old, new

    def _write(self, connection: Connection, old: Item | None, new: Item | None) -> None:
        layout = self.table.layout
        if new is None:
            if old is not None:
                connection.execute(layout.delete, [as_json([self.key])])
        elif old is not None:
            connection.execute(layout.put, [as_json([new])])
        elif connection.execute(layout.insert, [as_json([new])]).rowcount == 0:
            raise RacedError


def as_json(items: list[Item]) -> str:
    """Return items or keys as a statement takes them."""
    return orjson.dumps(items).decode()


def checked_item(table: Table, item: Any) -> Item:
    """Return an item that may be put into the table, its numbers canonical."""
    if not item:
        raise invalid_parameter(f"Missing the key {table.key_names[0]} in the item")
    size = measure_item(item)
    table.check_item(item)
    if size > ITEM_BYTES:
        raise InvalidError("Item size has exceeded the maximum allowed size")
    return dict(item)


def put_change(table: Table, body: Body, placeholders: Placeholders) -> Change:
    """Return the change that Put means."""
    item = checked_item(table, body.get("Item"))
    return Change(table, table.key_of(item), condition_of(body, placeholders), lambda _: item, wants_old(body))


def delete_change(table: Table, body: Body, placeholders: Placeholders) -> Change:
    """Return the change that Delete means."""
    key = table.check_key(body.get("Key"))
    return Change(table, key, condition_of(body, placeholders), lambda _: None, wants_old(body))


def update_change(table: Table, body: Body, placeholders: Placeholders) -> tuple[Change, list[Action]]:
    """Return the change that Update means, and its actions."""
    key = table.check_key(body.get("Key"))
    text = body.get("UpdateExpression")
    actions = parse_update(text, placeholders) if text is not None else []
    for action in actions:
        if action.path[0] in table.key_names:
            raise invalid_parameter(f"Cannot update attribute {action.path[0]}. This attribute is part of the key")

    def apply(old: Item) -> Item:
        new = updated(old or key, actions)
        if measure_item(new) > ITEM_BYTES:
            raise InvalidError("Item size to update has exceeded the maximum allowed size")
        table.check_item(new)
        return new

    return Change(table, key, condition_of(body, placeholders), apply, wants_old(body)), actions


def condition_of(body: Body, placeholders: Placeholders) -> Condition | None:
    """Return the call's condition, if it has one."""
    text = body.get("ConditionExpression")
    return None if text is None else parse_condition(text, "ConditionExpression", placeholders)


def wants_old(body: Body) -> bool:
    """Say whether the item shall be in the answer where the condition does not hold."""
    return bool(body.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD")


class Writes:
    """The calls that write one item."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store, self._catalogue = store, catalogue

    def put(self, body: Body) -> Body:
        """PutItem."""
        table, returns, placeholders = self._opened(body, _PUT_RETURNS)
        change = put_change(table, body, placeholders)
        placeholders.all_used()
        if change.condition is None and returns == "NONE":
            document = as_json([body["Item"]])
            self._store.run(lambda connection: connection.execute(table.layout.put, [document]))
            return {}
        return self._changed(change, returns)

    def delete(self, body: Body) -> Body:
        """DeleteItem."""
        table, returns, placeholders = self._opened(body, _PUT_RETURNS)
        change = delete_change(table, body, placeholders)
        placeholders.all_used()
        return self._changed(change, returns)

    def update(self, body: Body) -> Body:
        """UpdateItem."""
        table, returns, placeholders = self._opened(body, _UPDATE_RETURNS)
        change, actions = update_change(table, body, placeholders)
        placeholders.all_used()
        old, new = self._store.transaction(change.run)
        shown = old if returns.endswith("OLD") else new
        if returns == "NONE" or shown is None:
            return {}
        if returns.startswith("UPDATED"):
            shown = project(shown, [action.path for action in actions])
        return {"Attributes": shown} if shown else {}

    def _opened(self, body: Body, allowed: tuple[str, ...]) -> tuple[Table, str, Placeholders]:
        no_legacy_parameters(body)
        returns = str(body.get("ReturnValues") or "NONE")
        if returns not in allowed:
            raise InvalidError("Return values set to invalid value" if returns in _UPDATE_RETURNS else
                               f"1 validation error detected: Value '{returns}' at 'returnValues' failed to satisfy "
                               "constraint: Member must satisfy enum value set")  # fmt: skip
        return self._catalogue.table(body.get("TableName")), returns, Placeholders(body)

    def _changed(self, change: Change, returns: str) -> Body:
        old, _ = self._store.transaction(change.run)
        return {"Attributes": old} if returns == "ALL_OLD" and old else {}
