"""The target's DynamoDB tables: what is there, what is made, dropped and waited for. Which are wanted is decided
elsewhere, how requests look in creation."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.control import journal
from whimbrel_worker.endpoints.dynamodb.control.control_rows import NO_TABLE, TABLE_EXISTS, ControlTable
from whimbrel_worker.endpoints.dynamodb.tables import creation
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import describe
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Table

_ACTIVE: Final = "ACTIVE"
_TABLE_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = (0.1, 5.0)
_LIMITS: Final = frozenset({"LimitExceededException", TABLE_EXISTS})
_MADE, _DROPPING = "made", "dropping"


class DynamoDBSchema:
    """Implements ports.TargetSchema. `recreate`: names of target tables that are dropped and made anew, once each.

    Once the journal says that the schema is ready nothing is dropped any more: the copy may have begun to fill it.
    """

    def __init__(self, client: Client, behaviour: Behaviour, control: ControlTable, recreate: frozenset[str]) -> None:
        self._client, self._behaviour = client, behaviour
        self._control, self._recreate = control, recreate

    def mismatches(self, table: Table) -> list[Problem] | None:
        """What keeps the target's table from taking the items; None without one, or where it is still to be dropped."""
        found = describe(self._client, table.target_name)
        if found is None or self._is_to_be_dropped(table.target_name):
            return None
        return list(creation.mismatches(table, found))

    def has_rows(self, table: Table) -> bool:
        """Whether the target's table holds an item."""
        request = {"TableName": table.target_name, "Limit": 1, "Select": "COUNT"}
        return bool(self._client.ask("Scan", request)["Count"])

    def create(self, table: Table) -> None:
        """Make the table with all its indexes if it is missing, after dropping it where that is asked for."""
        if table.target_name in self._recreate and not self._is_ready():
            self._make_anew(table)
        elif describe(self._client, table.target_name) is None:
            self._make(table)
        self._wait_for_table(table)

    def create_indexes(self, table: Table) -> None:
        """Add the global secondary indexes that the table has not got, one after the other, and wait for them."""
        for index in creation.missing_indexes(table, self._wait_for_table(table)):
            request = creation.add_index_request(table, index, billing=self._behaviour.billing)
            retrying(partial(self._add_index, request))
            self._wait_for_index(table, str(index["IndexName"]))

    def enable_time_to_live(self, table: Table) -> None:
        """Switch it on as on the source. Not before the switch: both sides delete at times of their own choice."""
        attribute = creation.definition_of(table).get("TimeToLive")
        if not attribute:
            return
        name = {"TableName": table.target_name}
        there = self._client.ask("DescribeTimeToLive", name).get("TimeToLiveDescription") or {}
        if there.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            return
        specification = {"AttributeName": attribute, "Enabled": True}
        self._client.ask("UpdateTimeToLive", {**name, "TimeToLiveSpecification": specification})

    def close(self) -> None:
        """Nothing is held open."""

    # --- making and dropping ---

    def _make(self, table: Table) -> None:
        try:
            retrying(lambda: self._create(table))
        except Refused as refusal:
            raise ConfigurationError(
                f"the target refused to make the table {table.target_name}: {refusal.code}",
                where=table.name,
                why=refusal.why,
                todo="make the table by hand as it should be; it is then left as it is",
            ) from None

    def _create(self, table: Table) -> None:
        try:
            self._client.ask("CreateTable", creation.create_request(table, billing=self._behaviour.billing))
        except Refused as refusal:
            if refusal.code == TABLE_EXISTS:
                return
            raise _busy(refusal, table.name) or refusal from None

    def _make_anew(self, table: Table) -> None:
        """Drop and make the table unless that was done; died in between, both are done again before the copy begins."""
        mark = f"recreated#{table.target_name}"
        begun = self._control.update(
            mark,
            "SET #state = :dropping",
            where="attribute_not_exists(#state) OR #state = :dropping",
            values={"dropping": _DROPPING},
        )
        if begun is None:
            return
        retrying(lambda: self._drop(table))
        self._wait_until_gone(table)
        self._make(table)
        self._wait_for_table(table)
        self._control.update(mark, "SET #state = :made", values={"made": _MADE})

    def _drop(self, table: Table) -> None:
        try:
            self._client.ask("DeleteTable", {"TableName": table.target_name})
        except Refused as refusal:
            if refusal.code != NO_TABLE:
                raise _busy(refusal, table.name) or refusal from None

    def _add_index(self, request: Mapping[str, object]) -> None:
        try:
            self._client.ask("UpdateTable", request)
        except Refused as refusal:
            raise _busy(refusal, str(request["TableName"])) or refusal from None

    # --- what was dropped ---

    def _is_ready(self) -> bool:
        return any(entry.step == "schema-ready" for entry in journal.read_journal(self._control))

    def _is_to_be_dropped(self, name: str) -> bool:
        if name not in self._recreate:
            return False
        try:
            mark = self._control.get(f"recreated#{name}")
            return (mark is None or mark.text("state") != _MADE) and not self._is_ready()
        except Refused as refusal:
            if refusal.code != NO_TABLE:
                raise
            return True

    # --- waiting ---

    def _wait_for_table(self, table: Table) -> Described:
        looks = _looks(table.target_name)
        while True:
            next(looks)
            found = describe(self._client, table.target_name)
            if found is not None and found.status in (_ACTIVE, "UPDATING"):
                return found

    def _wait_until_gone(self, table: Table) -> None:
        for _ in _looks(table.target_name):
            if describe(self._client, table.target_name) is None:
                return

    def _wait_for_index(self, table: Table, name: str) -> None:
        """As long as it takes: a large table's index is filled for hours."""
        delay = _LOOK_SECONDS[0]
        while not self._is_built(table, name):
            time.sleep(delay)
            delay = min(2 * delay, _LOOK_SECONDS[1])

    def _is_built(self, table: Table, name: str) -> bool:
        found = describe(self._client, table.target_name)
        statuses = _index_statuses(found)
        if found is None or name not in statuses:
            raise ConfigurationError(
                f"the index {name} was removed while it was being made",
                where=table.name,
                todo="see who changes the target's tables; the indexes are made again when the worker starts again",
            )
        return found.status == _ACTIVE and statuses[name] == _ACTIVE


def _looks(name: str) -> Iterator[None]:
    """Yields after growing waits; raises Transient when a table takes too long."""
    ends, delay = time.monotonic() + _TABLE_SECONDS, _LOOK_SECONDS[0]
    while time.monotonic() < ends:
        yield None
        time.sleep(delay)
        delay = min(2 * delay, _LOOK_SECONDS[1])
    raise Transient("the target's table does not get ready", where=name, todo="look at its status; it is tried again")


def _index_statuses(found: Described | None) -> dict[str, str]:
    """By name; an endpoint that tells none is taken to be ready."""
    indexes = found.indexes(creation.GLOBAL) if found else ()
    return {str(index["IndexName"]): str(index.get("IndexStatus", _ACTIVE)) for index in indexes}


def _busy(refusal: Refused, where: str) -> Transient | None:
    """The service makes or changes too many tables at the moment."""
    if refusal.code not in _LIMITS:
        return None
    return Transient(
        "the target changes too many tables at once", where=where, why=refusal.why, todo="it is tried again"
    )
