"""TransactWriteItems and TransactGetItems, each one PostgreSQL transaction."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import orjson

from whimbrel_testbed.polardb.batches import no_duplicates, projection
from whimbrel_testbed.polardb.catalogue import Body, Catalogue
from whimbrel_testbed.polardb.limits import IDEMPOTENCE_SECONDS, TRANSACTION_BYTES, TRANSACTION_ITEMS
from whimbrel_testbed.polardb.placeholders import Placeholders
from whimbrel_testbed.polardb.refusals import ConditionFailedError, InvalidError, RefusedError
from whimbrel_testbed.polardb.store import Connection, Store
from whimbrel_testbed.polardb.values import measure_item
from whimbrel_testbed.polardb.writes import (
    Change,
    as_json,
    condition_of,
    delete_change,
    put_change,
    update_change,
    wants_old,
)

_KINDS = ("ConditionCheck", "Put", "Delete", "Update")


class Transactions:
    """The calls on several items that succeed or fail as one."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store, self._catalogue, self._lock = store, catalogue, threading.Lock()
        self._done: dict[str, tuple[float, str]] = {}

    def write(self, body: Body) -> Body:
        """TransactWriteItems; a ClientRequestToken seen within ten minutes is not carried out again."""
        members = _members(body, "TransactItems")
        digest = hashlib.sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).hexdigest()
        token = body.get("ClientRequestToken")
        if token and self._seen(str(token), digest):
            return {}
        changes = [self._change(member) for member in members]
        if sum(measure_item(member["Put"]["Item"]) for member in members if "Put" in member) > TRANSACTION_BYTES:
            raise InvalidError("The items of the transaction exceed 4 MB")
        _no_item_twice(changes)
        self._store.transaction(lambda connection: _run(connection, changes))
        if token:
            with self._lock:
                self._done[str(token)] = (time.monotonic(), digest)
        return {}

    def _seen(self, token: str, digest: str) -> bool:
        with self._lock:
            since, before = self._done.get(token, (0.0, ""))
        if not before or time.monotonic() - since > IDEMPOTENCE_SECONDS:
            return False
        if before != digest:
            raise RefusedError(
                "IdempotentParameterMismatchException",
                "Request parameters do not match those of the first request with this ClientRequestToken",
            )
        return True

    def _change(self, member: Body) -> Change:
        if len(member) != 1 or next(iter(member)) not in _KINDS:
            raise InvalidError("TransactItems can only contain one of Check, Put, Update or Delete")
        ((kind, asked),) = member.items()
        table, placeholders = self._catalogue.table(asked.get("TableName")), Placeholders(asked)
        if kind == "Put":
            change = put_change(table, asked, placeholders)
        elif kind == "Delete":
            change = delete_change(table, asked, placeholders)
        elif kind == "Update":
            change, _ = update_change(table, asked, placeholders)
        else:
            key, condition = table.check_key(asked.get("Key")), condition_of(asked, placeholders)
            if condition is None:
                raise InvalidError("ConditionCheck needs ConditionExpression")
            change = Change(table, key, condition, None, wants_old(asked))
        placeholders.all_used()
        return change

    def read(self, body: Body) -> bytes:
        """TransactGetItems: all items as of one moment."""
        wanted = []
        for member in _members(body, "TransactItems"):
            asked = member.get("Get") or {}
            table = self._catalogue.table(asked.get("TableName"))
            wanted.append((table.layout.get_one, table.key_texts(table.check_key(asked.get("Key"))), projection(asked)))

        def work(connection: Connection) -> list[bytes]:
            rows = [(connection.execute(sql, key).fetchone(), show) for sql, key, show in wanted]
            return [b'{"Item":' + show(row[0]) + b"}" if row else b"{}" for row, show in rows]

        return b'{"Responses":[' + b",".join(self._store.transaction(work, snapshot=True)) + b"]}"


def _members(body: Body, title: str) -> list[Any]:
    members = body.get(title)
    if not isinstance(members, list) or not 1 <= len(members) <= TRANSACTION_ITEMS:
        raise InvalidError(
            f"1 validation error detected: Value at 'transactItems' failed to satisfy constraint: Member must have "
            f"length between 1 and {TRANSACTION_ITEMS}"
        )
    return members


def _no_item_twice(changes: list[Change]) -> None:
    for table in {change.table.name: change.table for change in changes}.values():
        try:
            no_duplicates(table, [change.key for change in changes if change.table.name == table.name])
        except InvalidError:
            raise InvalidError("Transaction request cannot include multiple operations on one item") from None


def _run(connection: Connection, changes: list[Change]) -> None:
    """Carry out all changes, always in one order of items, so that two transactions do not block each other."""
    order = sorted(range(len(changes)), key=lambda n: (changes[n].table.name, as_json([changes[n].key])))
    failures: dict[int, RefusedError] = {}
    for number in order:
        try:
            changes[number].run(connection)
        except (ConditionFailedError, InvalidError) as error:
            failures[number] = error
    if not failures:
        return
    reasons = [_reason(failures.get(number)) for number in range(len(changes))]
    codes = ", ".join(reason["Code"] for reason in reasons)
    raise RefusedError(
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        members={"CancellationReasons": reasons},
    )


def _reason(failure: RefusedError | None) -> dict[str, Any]:
    if failure is None:
        return {"Code": "None"}
    code = "ConditionalCheckFailed" if isinstance(failure, ConditionFailedError) else "ValidationError"
    return {"Code": code, "Message": failure.message, **failure.members}
