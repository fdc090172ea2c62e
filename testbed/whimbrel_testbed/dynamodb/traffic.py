"""Traffic against DynamoDB tables until stopped: the article's one table and one update a second, or a heavy mix.

What the heavy one chooses stands in the plan beside this.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from whimbrel_testbed.background import Background
from whimbrel_testbed.dynamodb.client import create_table, delete_table, dynamodb_client, table_names
from whimbrel_testbed.dynamodb.flights import TABLES, Table
from whimbrel_testbed.dynamodb.traffic_plan import Change, HeavyPlan, Key

ARTICLE_TABLE: Final = "src1"
ARTICLE_KEYS: Final = 100
_KEYS_KNOWN: Final = 2000
_FIRST_PAUSE, _LONGEST_PAUSE, _REPORT_SECONDS = 0.1, 5.0, 1.0
_AWAY: Final = (ConnectionError, HTTPClientError)
_PASSING: Final = frozenset((
    "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "InternalServerError",
    "ServiceUnavailable", "TransactionConflictException",
))  # fmt: skip
_CANCELLED_FOR_NOW: Final = frozenset(
    ("None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded")
)


@dataclass(frozen=True)
class TrafficCounts:
    """What was done so far: calls, and items by what became of them; `retried` calls failed for a time and went on.

    `removes` took attributes away. A lost answer may stand for a change that was made and is made again.
    `first_write` and `last_write`: when the first and the last call were answered, in seconds of time.monotonic().
    """

    calls: int = 0
    puts: int = 0
    updates: int = 0
    removes: int = 0
    deletes: int = 0
    retried: int = 0
    first_write: float | None = field(default=None, compare=False)
    last_write: float | None = field(default=None, compare=False)

    @property
    def changes(self) -> int:
        """Items changed in all."""
        return self.puts + self.updates + self.removes + self.deletes


Report = Callable[[TrafficCounts], None]


def make_article_table(facts: Mapping[str, str], table: str = ARTICLE_TABLE, *, anew: bool = False) -> bool:
    """Make the article's table with its 100 items where it is missing; return whether it was made.

    `anew` deletes it first. The key is `pk` (`src1_user_000` to `src1_user_099`), `val` a number.
    """
    client = dynamodb_client(facts)
    if table in set(table_names(client)):
        if not anew:
            return False
        delete_table(client, table)
    request = {
        "TableName": table, "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 100, "WriteCapacityUnits": 100},
    }  # fmt: skip
    create_table(client, request)
    for number in range(ARTICLE_KEYS):
        item = {"pk": {"S": article_key(number, table)}, "val": {"N": str(number)}}
        client.put_item(TableName=table, Item=item)
    return True


def article_key(number: int, table: str = ARTICLE_TABLE) -> str:
    """Return the key of the article's n-th update; they come in turn.

    >>> article_key(7), article_key(107)
    ('src1_user_007', 'src1_user_007')
    """
    return f"{table}_user_{number % ARTICLE_KEYS:03}"


def run_article(
    facts: Mapping[str, str], *, table: str = ARTICLE_TABLE, rate: float = 1, seed: int, stop: threading.Event,
    report: Report | None = None,
) -> TrafficCounts:  # fmt: skip
    """Set `val` of one item after the other to a number below 1,000, `rate` times a second, until `stop` is set.

    `report` is called every second and at the end. Throttling and an endpoint that is away are waited out; botocore's
    error for anything else, such as a table that is missing.
    """

    def changes() -> Iterator[Change]:
        rng = random.Random(seed)  # noqa: S311
        number = 0
        while True:
            parameters = {
                "TableName": table, "Key": {"pk": {"S": article_key(number, table)}},
                "UpdateExpression": "SET val = :newval",
                "ExpressionAttributeValues": {":newval": {"N": str(rng.randrange(1000))}},
            }  # fmt: skip
            yield Change("update_item", parameters, {"updates": 1})
            number += 1

    return _Run(_client(facts), rate, stop, report).work(changes())


def run_heavy(
    facts: Mapping[str, str], *, prefix: str = "", rate: float = 200, seed: int, stop: threading.Event,
    report: Report | None = None,
) -> TrafficCounts:  # fmt: skip
    """Change items of the flights tables until `stop` is set, about `rate` items a second: all kinds, hot keys too.

    As `run_article` otherwise.
    """
    keys = read_keys(dynamodb_client(facts), prefix)
    plan = HeavyPlan(random.Random(seed), keys, prefix)  # noqa: S311
    changes = (plan.next_change() for _ in itertools.count())
    return _Run(_client(facts), rate, stop, report).work(changes)


def _client(facts: Mapping[str, str]) -> Any:
    # What fails for a time is sent again here, where it is counted and the end of the traffic is seen.
    return dynamodb_client(facts, attempts=1)


def read_keys(client: Any, prefix: str = "") -> dict[str, list[Key]]:
    """Read which keys there are, a bounded part of each flights table, in an order that does not vary."""
    return {table.name: sorted(_keys(client, prefix, table)) for table in TABLES}


def _keys(client: Any, prefix: str, table: Table) -> Iterator[Key]:
    places = {f"#k{number}": name for number, name in enumerate(table.keys)}
    found = client.scan(
        TableName=prefix + table.name, Limit=_KEYS_KNOWN, ProjectionExpression=", ".join(places),
        ExpressionAttributeNames=places,
    )  # fmt: skip
    for item in found["Items"]:
        yield tuple(item[name][kind] for name, kind in table.keys.items())


@dataclass
class _Run:
    client: Any
    rate: float
    stop: threading.Event
    report: Report | None
    counts: TrafficCounts = TrafficCounts()
    _reported: float = field(default_factory=time.monotonic)

    def work(self, changes: Iterator[Change]) -> TrafficCounts:
        started = time.monotonic()
        while not self.stop.is_set():
            self._make(next(changes))
            self._tell()
            self.stop.wait(max(0.0, started + self.counts.changes / self.rate - time.monotonic()))
        if self.report is not None:
            self.report(self.counts)
        return self.counts

    def _tell(self) -> None:
        now = time.monotonic()
        if self.report is not None and now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self.report(self.counts)

    def _make(self, change: Change) -> None:
        """Make a change and count it; one that fails for a time is made again until it is done or all is to stop."""
        pause, parameters = _FIRST_PAUSE, change.parameters
        while not self.stop.is_set():
            try:
                answer = getattr(self.client, change.operation)(**parameters)
            except ClientError as error:
                if not _passes(error):
                    raise
            except _AWAY:
                pass
            else:
                rest = answer.get("UnprocessedItems")
                if not rest:
                    self._count(change)
                    return
                parameters = {"RequestItems": rest}
            self.counts = replace(self.counts, retried=self.counts.retried + 1)
            self._tell()
            self.stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _count(self, change: Change) -> None:
        now, before = time.monotonic(), self.counts
        totals = {kind: getattr(before, kind) + number for kind, number in change.counts.items()}
        first = before.first_write if before.first_write is not None else now
        self.counts = replace(before, calls=before.calls + 1, first_write=first, last_write=now, **totals)


def _passes(error: ClientError) -> bool:
    """Whether the same call may succeed later: throttling, a fault of the endpoint, another transaction's item."""
    code = error.response["Error"]["Code"]
    if code != "TransactionCanceledException":
        return code in _PASSING
    reasons = error.response.get("CancellationReasons", [])
    return {reason.get("Code", "None") for reason in reasons} <= _CANCELLED_FOR_NOW


@dataclass
class Traffic(Background[TrafficCounts]):
    """Changes of items on the flights tables; `heavy` is the mix, else the article's."""

    unit = "items"
    fails_by = (ClientError, *_AWAY)
    facts: Mapping[str, str] = field(repr=False)
    heavy: bool = True
    prefix: str = ""
    seed: int = 1
    rate: float = 200

    def none(self) -> TrafficCounts:
        """Nothing done yet."""
        return TrafficCounts()

    def work(self, stop: threading.Event, note: Callable[[TrafficCounts], None]) -> None:
        """Go on until stopped."""
        options: dict[str, Any] = {"rate": self.rate, "seed": self.seed, "stop": stop, "report": note}
        if self.heavy:
            run_heavy(self.facts, prefix=self.prefix, **options)
        else:
            run_article(self.facts, table=self.prefix + ARTICLE_TABLE, **options)
