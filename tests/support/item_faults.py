"""Faults for moves of item tables: rules drawn from a seed, an application that changes items, workers that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from support import patience
from support.item_moves import Item, ItemMove, an_item
from support.moves import order
from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_testbed.dynamodb.compare import Endpoint, client_of
from whimbrel_testbed.dynamodb.faults import Call, Cut, Fault, LoseReply, Rule, Throttle, Unprocessed, no_fault
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy

PATIENCE = 90.0
CONTROL = "whimbrel-control"
HOT = tuple(f"hot{number}" for number in range(4))
"""Partition keys of items that are only ever updated, so that their counter `turn` never goes back."""
MOST_UNDER_WAY = 16 * 25
"""Items in the requests that a worker sends at once."""
STALE_SECONDS = 11.0
"""A worker that stood still for so long has no proof any more that it may write."""
eventually = partial(patience.eventually, seconds=PATIENCE, often=0.05)
_WRITES = frozenset({"BatchWriteItem", "TransactWriteItems"})
_THROTTLES = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
_READS = frozenset({"Scan", "GetRecords", "GetShardIterator", "DescribeStream", "DescribeTable", "ListTables"})
_ANSWERED = _WRITES | _READS | {"CreateTable", "PutItem", "Query", "UpdateTable"}


def facts_of(end: Endpoint) -> dict[str, str]:
    """What a proxy before this endpoint needs."""
    return {
        "endpoint": end.endpoint, "region": end.region, "accessKeyId": end.access_key_id,
        "secretAccessKey": end.secret_access_key,
    }  # fmt: skip


@contextmanager
def proxied(
    move: ItemMove, source: Rule = no_fault, target: Rule = no_fault
) -> Iterator[tuple[DynamoDBProxy, DynamoDBProxy]]:
    """The move goes through a proxy at both ends; the application and the comparison do not."""
    straight = move.target["dynamodb"]["endpoint"], move.through
    with DynamoDBProxy(facts_of(move.origin), source) as near, DynamoDBProxy(facts_of(move.goal), target) as far:
        move.through, move.target["dynamodb"]["endpoint"] = near.endpoint, far.endpoint
        try:
            yield near, far
        finally:
            move.target["dynamodb"]["endpoint"], move.through = straight


def lost_replies(rng: random.Random, share: float) -> Rule:
    """Of some calls the endpoint does what is asked, and the answer does not come back: each operation's first, then
    a share.
    """
    known: set[str] = set()

    def rule(call: Call) -> Fault | None:
        if call.operation not in _ANSWERED and not on_control(call, "UpdateItem"):
            return None
        first = call.operation not in known
        known.add(call.operation)
        return LoseReply() if first or rng.random() < share else None

    return rule


def throttling(rng: random.Random, share: float) -> Rule:
    """A share of all calls is refused above a limit, and of another share of the batches a part is given back."""

    def rule(call: Call) -> Fault | None:
        if rng.random() < share:
            return Throttle(rng.choice(_THROTTLES))  # type: ignore[arg-type]
        if call.operation in ("BatchWriteItem", "BatchGetItem") and rng.random() < 2 * share:
            return Unprocessed(rng.choice([0.1, 0.5, 1.0]))
        return None

    return rule


def on_control(call: Call, operation: str) -> bool:
    """Whether it is such a call on the control table."""
    return call.operation == operation and call.body.get("TableName") == CONTROL


def freezing_write(number: int, pid: Callable[[], int]) -> Rule:
    """The process is stopped at its n-th request that writes items, which has not reached the endpoint."""
    seen = [0]

    def rule(call: Call) -> Fault | None:
        if call.operation not in _WRITES or not writes_items(call):
            return None
        seen[0] += 1
        return Cut(lambda: os.kill(pid(), signal.SIGSTOP)) if seen[0] == number else None

    return rule


def writes_items(call: Call) -> bool:
    """Whether it is a request that writes items, and not one that probes or keeps rows."""
    if call.operation == "BatchWriteItem":
        return True
    return any("Put" in part or "Delete" in part for part in call.body.get("TransactItems", ()))


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process stands still after SIGSTOP."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state == "T" for state in states)


@contextmanager
def worker(move: ItemMove, kind: str, failpoint: str = "", **fields: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as a process; whatever it does, it is gone at the end."""
    process = move.start(kind, failpoint, **fields)
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes], move: ItemMove, kind: str, index: int = 0) -> int:
    """The exit code of a process that ends by itself."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end\n{move.log(kind, index)[-4000:]}") from None


def retired(move: ItemMove, files: Sequence[TaskFile], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stream workers are told to retire, and do."""
    for file in files:
        order(file, retire=True)
    for file, process in zip(files, processes, strict=True):
        assert ended(process, move, "stream", file.index) == ExitCode.DONE, move.log("stream", file.index)[-4000:]
    for file in files:
        order(file)


@contextmanager
def streams(move: ItemMove, workers: int = 1, failpoint: str = "", **fields: Any) -> Iterator[list[Any]]:
    """Stream workers until the block is left, then retired, which they must do with exit code 0."""
    files = [move.task("stream", index=index, workers=workers, **fields) for index in range(workers)]
    for file in files:
        order(file)
    processes = [move.start("stream", failpoint, index=index, workers=workers, **fields) for index in range(workers)]
    try:
        yield processes
        retired(move, files, processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def equal(move: ItemMove, *tables: str, workers: int = 1) -> None:
    """Source and target become equal; the application is at rest."""

    def told() -> object:
        logs = [move.log("stream", index)[-3000:] for index in range(workers)]
        return "\n".join([*move.differences(*tables), *logs])

    eventually(lambda: move.differences(*tables) == [], told)


def reported(move: ItemMove, file: TaskFile) -> WorkerReport | None:
    """What a worker last reported, if it has."""
    return move.report(file) if Path(file.report_file).exists() else None


@dataclass
class Application:
    """Changes items of a table as its seed says: puts, updates, deletes, items that come back or move to another key.

    Items have the keys of `fill`'s; the hot ones are beside them.
    """

    end: Endpoint
    table: str
    rng: random.Random
    numbers: int
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = client_of(self.end)

    def change(self, times: int = 1, stop: threading.Event | None = None) -> None:
        """That many changes, fewer where the event is set."""
        kinds = {
            "put": self._put, "update": self._update, "delete": self._delete, "again": self._again,
            "move": self._move, "heat": self.heat, "batch": self._batch,
        }  # fmt: skip
        for _ in range(times):
            if stop is not None and stop.is_set():
                return
            name = self.rng.choice(["put", "update", "update", "delete", "again", "move", "heat", "heat", "batch"])
            kinds[name]()
            self.counts[name] = self.counts.get(name, 0) + 1

    def heat(self) -> None:
        """Count up a hot item."""
        self._client.update_item(
            TableName=self.table, Key={"pk": {"S": self.rng.choice(HOT)}, "sk": {"N": "0"}},
            UpdateExpression="ADD turn :one", ExpressionAttributeValues={":one": {"N": "1"}},
        )  # fmt: skip

    def _item(self) -> Item:
        return an_item(self.rng.randrange(self.numbers), self.rng)

    def _put(self) -> None:
        self._client.put_item(TableName=self.table, Item=self._item())

    def _delete(self) -> None:
        self._client.delete_item(TableName=self.table, Key=key_of(self._item()))

    def _update(self) -> None:
        self._client.update_item(
            TableName=self.table, Key=key_of(self._item()), UpdateExpression="SET exact = :n REMOVE deep",
            ExpressionAttributeValues={":n": {"N": str(self.rng.randrange(10**30))}},
        )  # fmt: skip

    def _again(self) -> None:
        """The item goes and comes back, another one."""
        item = self._item()
        self._client.delete_item(TableName=self.table, Key=key_of(item))
        self._client.put_item(TableName=self.table, Item=item)

    def _move(self) -> None:
        """The item takes another's key, and so, mostly, another segment."""
        item = self._item()
        self._client.put_item(TableName=self.table, Item=item | key_of(self._item()))
        self._client.delete_item(TableName=self.table, Key=key_of(item))

    def _batch(self) -> None:
        items = {str(item["sk"]): item for item in (self._item() for _ in range(10))}
        requests = [{"PutRequest": {"Item": item}} for item in items.values()]
        self._client.batch_write_item(RequestItems={self.table: requests})


def key_of(item: Item) -> Item:
    """The key of an item."""
    return {name: item[name] for name in ("pk", "sk")}


@contextmanager
def working(move: ItemMove, table: str, seed: int, numbers: int, pause: float = 0.02) -> Iterator[threading.Event]:
    """An application in a thread of its own, until the event is set or the block is left."""
    application = Application(move.origin, table, random.Random(seed), numbers)
    try:
        with patience.beside(lambda stop: application.change(3, stop), pause) as stop:
            yield stop
    finally:
        print(f"the application, seed {seed}: {application.counts}")


@contextmanager
def watched(move: ItemMove, table: str) -> Iterator[list[str]]:
    """The target's hot items while the block runs: each time that a counter went back is a line. No line may be."""
    lines, seen = list[str](), dict[str, int]()
    client = client_of(move.goal)

    def look(_: threading.Event) -> None:
        for hot in HOT:
            key = {"pk": {"S": hot}, "sk": {"N": "0"}}
            item = client.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
            turn = int(item.get("turn", {}).get("N", 0))
            if turn < seen.get(hot, 0):
                lines.append(f"{hot} went back from {seen[hot]} to {turn}")
            seen[hot] = turn

    try:
        with patience.beside(look, 0.03):
            yield lines
    finally:
        print(f"the target's counters in the end: {seen}")
