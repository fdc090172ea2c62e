"""Looks at a source before anything is done: permissions, tried one by one without harm, and the streams' state.

What is wrong with single tables' descriptions stands in discover, how long the copy takes in estimate.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_api.migration import Mode
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused, RightMissing
from whimbrel_worker.endpoints.dynamodb.items.scan import filter_members
from whimbrel_worker.endpoints.dynamodb.streams.shards import TRIMMED
from whimbrel_worker.endpoints.dynamodb.streams.switch import VIEW, wrong_view
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, Refusals, each
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.endpoints.dynamodb.tables.discover import IMAGES, some
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.selection import override_of

_TRIED: Final = 100
"""Tables on which permissions are tried: DescribeStream answers ten times a second only."""
_DISPENSABLE: Final = {
    "dynamodb:DescribeTimeToLive": "the target's tables are made without a time to live",
    "dynamodb:ListTagsOfResource": "the target's tables are made without tags",
}
_PASSING: Final = (NOT_FOUND, TRIMMED)
"""A table, a shard or a record went while it was looked at."""
_NOBODY: Final = {"S": "whimbrel-permission-probe-{}", "N": "-1.{}e-120", "B": "d2hpbWJyZWwtcGVybWlzc2lvbi1wcm9iZQ=="}
"""Keys that no item has, by the key attribute's type; {} is filled with a random number."""


@dataclass(slots=True)
class Trials:
    """Calls made on one source to see whether they are allowed. What else they find are problems of their own.

    `elsewhere`: whether a table is not followed by DynamoDB Streams.
    """

    client: Client
    streams: Client
    behaviour: Behaviour
    file: TaskFile
    elsewhere: Callable[[str], bool] = lambda _: False
    refusals: Refusals = field(default_factory=Refusals)
    problems: list[Problem] = field(default_factory=list)

    def table(self, described: Described) -> None:
        """Try on one table all that a migration will do with it."""
        name = described.name
        self.attempt(name, lambda: self._scan(described))
        self.attempt(name, lambda: self._get(described))
        if self.file.mode is Mode.SNAPSHOT_ONLY or self.elsewhere(name):
            return
        if described.stream:
            self.attempt(name, lambda: self._stream(described))
        elif self.behaviour.streams:
            self.attempt(name, lambda: self._update(described))

    def attempt(self, name: str, call: Callable[[], None]) -> None:
        """Make a call for a table and note what it says of rights; a refusal for the lack of one is no failure."""
        try:
            call()
        except RightMissing as failure:
            self.refusals.add(failure, name)
        except Refused as refusal:
            if refusal.code not in _PASSING:
                self.problems.append(_surprise(name, refusal))

    def _scan(self, described: Described) -> None:
        override = override_of(described.name, self.file.tables)
        request: dict[str, Any] = {"TableName": described.name, "Limit": 1, "Select": "COUNT"}
        self.client.ask("Scan", request | self._consistent() | filter_members(override))

    def _get(self, described: Described) -> None:
        number = uuid.uuid4().int % 10**18
        key = {name: {kind: _NOBODY[kind].format(number)} for name, kind in described.key}
        self.client.ask("BatchGetItem", {"RequestItems": {described.name: {"Keys": [key]} | self._consistent()}})

    def _stream(self, described: Described) -> None:
        """The three calls of a reader; with a stream that has no shard yet there is nothing to try the other two on."""
        said = self.streams.ask("DescribeStream", {"StreamArn": described.stream})["StreamDescription"]
        for shard in (said.get("Shards") or ())[:1]:
            where = {"StreamArn": described.stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = self.streams.ask("GetShardIterator", where)["ShardIterator"]
            self.streams.ask("GetRecords", {"ShardIterator": iterator, "Limit": 1})

    def _update(self, described: Described) -> None:
        """UpdateTable without anything to update: DynamoDB refuses it as invalid, or for the lack of the right."""
        try:
            self.client.ask("UpdateTable", {"TableName": described.name})
        except Refused:
            return

    def _consistent(self) -> dict[str, Any]:
        return {"ConsistentRead": True} if self.behaviour.consistent_reads else {}


def check(trials: Trials, tables: Sequence[Described]) -> list[Problem]:
    """All that keeps the tables from moving, apart from their descriptions and their size."""
    readable = [table for table in tables if table.status in ("ACTIVE", "UPDATING")]
    largest = sorted(readable, key=lambda table: -table.size)[:_TRIED]
    each(trials.table, largest)
    problems = [*refused(trials.refusals), *trials.problems]
    if trials.file.mode is Mode.SNAPSHOT_AND_STREAM:
        problems += _stream_problems([t for t in readable if not trials.elsewhere(t.name)], trials.behaviour)
    if len(readable) > _TRIED:
        problems.append(
            Problem(f"permissions were tried on the {_TRIED} largest of {len(readable)} tables only", fatal=False)
        )
    return problems


def refused(refusals: Refusals) -> Iterator[Problem]:
    """One problem for each action that is not allowed, with the tables that it was tried on."""
    for action, (failure, names) in sorted(refusals.found.items()):
        without = _DISPENSABLE.get(action)
        yield Problem(
            failure.what,
            where=f"{len(names)} of the tables: {some(sorted(names))}",
            why="; ".join(part for part in (without, failure.why) if part),
            todo=failure.todo,
            fatal=without is None,
        )


def _stream_problems(tables: Sequence[Described], behaviour: Behaviour) -> Iterator[Problem]:
    if not behaviour.streams:
        yield Problem(
            "this endpoint has no DynamoDB Streams",
            why="spec.mode is SnapshotAndStream",
            todo="set spec.mode to SnapshotOnly and stop the writes to the source while it is copied",
        )
        return
    for table in tables:
        if table.stream and table.view not in IMAGES:
            error = wrong_view(table)
            yield Problem(error.what, error.where, error.why, error.todo)
    silent = [table.name for table in tables if not table.stream]
    if silent:
        yield Problem(
            f"streams are disabled ({len(silent)} of the tables): {some(silent)}",
            why=f"Whimbrel enables them with {VIEW} before the copy and disables them again at the end; whether "
            "dynamodb:UpdateTable is allowed cannot be tried for sure without changing a table",
            todo="nothing, if that is meant; else enable them yourself, and they stay as they are",
            fatal=False,
        )


def _surprise(name: str, refusal: Refused) -> Problem:
    return Problem(
        refusal.what,
        where=name,
        why=refusal.why,
        todo="correct the table's filter under tables.overrides[] if it has one; else see the service's documentation",
    )
