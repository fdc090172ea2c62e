"""The check task over items, DynamoDB against the PolarDB stand-in: damage is found, and nothing else."""

import copy
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.item_moves import Item, ItemMove, an_item, definition, fill, item_move
from support.moves import order
from whimbrel_api.migration import CheckResult
from whimbrel_api.reports import CheckReport, WorkerReport
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.faults import Call, Cut, Fault, LoseReply, Refuse, Throttle, Unprocessed
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer

ONCE = {"attempts": 0}


@dataclass
class Bench:
    """Tables of both sides with equal items, and checks of them."""

    move: ItemMove
    directory: Path
    runs: int = 0
    at_source: Any = field(init=False)
    at_target: Any = field(init=False)

    def __post_init__(self) -> None:
        self.at_source, self.at_target = client_of(self.move.origin), client_of(self.move.goal)

    def load(self, name: str, count: int) -> str:
        whole = self.move.table(name)
        made = definition(whole)
        del made["BillingMode"]
        self.at_target.create_table(**made)
        for end in (self.move.origin, self.move.goal):
            fill(end, whole, range(count))
        return whole

    def check(self, index: int = 0, workers: int = 1, **options: Any) -> CheckReport:
        self.runs += 1
        given = {"recheck": ONCE, "reportFile": str(self.directory / f"found{self.runs}.jsonl")}
        code, report = self.move.run("check", index=index, workers=workers, check=given | options)
        assert code == 0, report.last_error
        self.last: WorkerReport = report
        assert report.check is not None
        return report.check

    def found(self, table: str) -> list[dict[str, Any]]:
        path = self.directory / f"found{self.runs}-{table}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def bench(dynamodb: DynamoDBServer, polardb: PolarDBServer, dynamodb_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(item_move(tmp_path, dynamodb, polardb, dynamodb_prefix), tmp_path)
    yield made
    names = [name for name in made.at_target.list_tables(Limit=100)["TableNames"] if name.startswith(dynamodb_prefix)]
    for name in names:
        made.at_target.delete_table(TableName=name)


def test_equal_tables_are_equal(bench: Bench) -> None:
    tables = [bench.load(name, count) for name, count in (("a.b-c_d", 300), ("empty", 0), ("one", 1))]
    report = bench.check()
    assert (report.result, report.examples) == (CheckResult.EQUAL, [])
    assert (report.rows_compared, report.tables_compared, report.tables_total) == (301, 3, 3)
    assert report.report_file == str(bench.directory / "found1-*.jsonl")
    assert [bench.found(table) for table in tables] == [[], [], []]
    assert {table.name: table.differences for table in bench.last.tables} == dict.fromkeys(tables, 0)


KEY: Item = {"pk": {"S": "k007"}, "sk": {"N": "7"}}
DAMAGE: dict[str, tuple[Callable[[Item], object], str]] = {
    "one value deep in a map": (lambda item: item["deep"]["M"]["list"]["L"][0].update(N="7.5"), "deep"),
    "the order of a list": (lambda item: item["deep"]["M"]["list"]["L"].reverse(), "deep"),
    "an attribute removed": (lambda item: item.pop("flag"), "flag"),
    "an attribute added": (lambda item: item.update(more={"NULL": True}), "more"),
    "a byte of a binary": (lambda item: item.update(raw={"B": item["raw"]["B"][:-1] + b"\xff"}), "raw"),
    "the last of 38 digits": (lambda item: item.update(exact={"N": last_digit(item["exact"]["N"])}), "exact"),
    "NULL for an empty string": (lambda item: item.update(nothing={"S": ""}), "nothing"),
    "a member of a set": (lambda item: item.update(tags={"SS": [*item["tags"]["SS"], "more"]}), "tags"),
}


def last_digit(number: str) -> str:
    return number[:-1] + ("1" if number[-1] != "1" else "2")


def test_each_damage_is_found_and_nothing_else(bench: Bench) -> None:
    table = bench.load("items", 120)
    whole: Item = bench.at_target.get_item(TableName=table, Key=KEY)["Item"]
    for what, (damage, attribute) in DAMAGE.items():
        changed = copy.deepcopy(whole)
        damage(changed)
        bench.at_target.put_item(TableName=table, Item=changed)
        report = bench.check()
        assert (report.result, report.differences.total) == (CheckResult.DIFFERENT, 1), what
        (entry,) = bench.found(table)
        assert (entry["kind"], entry["key"], list(entry["attributes"])) == ("changed", KEY, [attribute]), what
        assert report.examples == [f"{table}: changed, key {entry['digest']} in {attribute}"]
    bench.at_target.put_item(TableName=table, Item=whole)
    assert bench.check().result is CheckResult.EQUAL


def test_other_forms_of_the_same_values_are_equal(bench: Bench) -> None:
    table = bench.load("items", 30)
    item: Item = bench.at_target.get_item(TableName=table, Key=KEY)["Item"]
    item["tags"]["SS"].reverse()
    item["sizes"]["NS"] = [f"{number}.0" for number in reversed(item["sizes"]["NS"])]
    item["deep"]["M"]["list"]["L"][0]["N"] = "7.00"
    bench.at_target.put_item(TableName=table, Item=item | {"sk": {"N": "7.0"}})
    assert bench.check().result is CheckResult.EQUAL


def test_several_workers_find_all_damage_once(bench: Bench) -> None:
    table = bench.load("items", 400)
    bench.at_target.delete_item(TableName=table, Key=KEY)
    bench.at_target.put_item(TableName=table, Item={"pk": {"S": "extra"}, "sk": {"N": "-1"}})
    bench.at_target.put_item(TableName=table, Item={"pk": {"S": "k008"}, "sk": {"N": "8"}})
    reports = [bench.check(index, 3) for index in range(3)]
    kinds = [sum(getattr(each.differences, kind) for each in reports) for kind in ("missing", "extra", "changed")]
    assert (kinds, sum(each.rows_compared for each in reports)) == ([1, 1, 1], 400)
    assert sum(each.tables_compared for each in reports) == 1
    assert all(each.rows_compared for each in reports)


def test_a_table_that_the_target_lacks_is_told_and_the_others_compared(bench: Bench) -> None:
    bench.load("items", 10)
    lacking = bench.move.table("lacking")
    fill(bench.move.origin, lacking, range(3))
    report = bench.check()
    assert (report.result, report.inconclusive) == (CheckResult.INCONCLUSIVE, 1)
    assert report.rows_compared >= 10
    assert [table.state for table in bench.last.tables if table.name == lacking] == ["Stopped"]


def test_a_sample_says_that_it_is_one(bench: Bench) -> None:
    table = bench.load("items", 600)
    report = bench.check(mode="Sample", sampleRows=100)
    assert (report.result, report.sampled, report.rows_compared) == (CheckResult.EQUAL, True, 100)
    for item in bench.move.target_items(table):
        bench.at_target.put_item(TableName=table, Item={"pk": item["pk"], "sk": item["sk"]})
    assert bench.check(mode="Sample", sampleRows=100).differences.changed == 100


def test_a_rate_limit_is_kept(bench: Bench) -> None:
    bench.load("items", 60)
    began = time.monotonic()
    bench.check(rowsPerSecond=50)
    assert time.monotonic() - began >= 2 * 60 / 50 - 1.5  # both directions; unused time of a second may be made up for


def test_items_in_flight_are_never_called_different(bench: Bench) -> None:
    """Without a stream to go by, a row that moves ends equal or inconclusive."""
    table = bench.load("items", 200)
    done, rng = threading.Event(), random.Random(11)
    written = 0

    def write() -> None:
        nonlocal written
        while not done.wait(0.005):
            item = an_item(rng.randrange(200), rng)
            bench.at_source.put_item(TableName=table, Item=item)
            bench.at_target.put_item(TableName=table, Item=item)
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    reports: list[CheckReport] = []
    while written < 60 or len(reports) < 2:
        reports.append(bench.check(recheck={"attempts": 5, "backoff": "100ms"}))
    done.set()
    writer.join()
    assert not [report for report in reports if report.differences.total]
    assert bench.check().result is CheckResult.EQUAL


def test_nothing_of_an_item_is_in_the_report(bench: Bench) -> None:
    table = bench.load("items", 20)
    bench.at_target.put_item(TableName=table, Item={**KEY, "name": {"S": "a-secret-value"}})
    bench.check()
    text = bench.last.model_dump_json()
    assert "a-secret-value" not in text
    assert "k007" not in text


FAULTS: tuple[Fault, ...] = (
    Throttle(), Throttle("ThrottlingException"), Unprocessed(0.6), Cut(), LoseReply(),
    Refuse(500, "InternalServerError", "The request processing has failed because of an internal error."),
)  # fmt: skip


def trouble(rng: random.Random) -> Callable[[Call], Fault | None]:
    """A third of the reads goes wrong in one way or another."""

    def rule(call: Call) -> Fault | None:
        if call.operation not in ("Scan", "BatchGetItem") or rng.random() > 1 / 3:
            return None
        fault = rng.choice(FAULTS)
        return None if isinstance(fault, Unprocessed) and call.operation == "Scan" else fault

    return rule


@pytest.mark.parametrize("seed", [1, 2])
def test_throttled_and_broken_reads_change_no_result(bench: Bench, seed: int) -> None:
    print(f"seed {seed}")
    table = bench.load("items", 500)
    bench.at_target.delete_item(TableName=table, Key=KEY)
    origin, goal, rng = bench.move.origin, bench.move.goal, random.Random(seed)
    with DynamoDBProxy(facts(origin), trouble(rng)) as near, DynamoDBProxy(facts(goal), trouble(rng)) as far:
        bench.move.through = near.endpoint
        bench.move.target["dynamodb"]["endpoint"] = far.endpoint
        report = bench.check()
        assert len(near.log) > 10
    assert (report.result, report.differences.missing, report.differences.total) == (CheckResult.DIFFERENT, 1, 1)
    assert report.rows_compared == 500


def facts(end: Any) -> dict[str, str]:
    return {
        "endpoint": end.endpoint, "region": end.region, "accessKeyId": end.access_key_id,
        "secretAccessKey": end.secret_access_key,
    }  # fmt: skip


def test_items_on_their_way_through_a_stream_are_waited_for(moving: ItemMove) -> None:
    """Writes go on all the while, hot keys among them; the copy then loses one item, and that alone is different."""
    table = moving.table("orders")
    fill(moving.origin, table, range(150))
    moving.prepare()
    assert moving.run("snapshot")[0] == ExitCode.DONE
    stream, orders = moving.start("stream"), moving.task("stream")
    source, target = client_of(moving.origin), client_of(moving.goal)
    done, rng = threading.Event(), random.Random(5)

    def write() -> None:
        while not done.wait(0.02):
            number = rng.choice([rng.randrange(1, 150), 3])
            if rng.random() < 0.2:
                source.delete_item(TableName=table, Key={"pk": {"S": f"k{number % 97:03d}"}, "sk": {"N": str(number)}})
            else:
                source.put_item(TableName=table, Item=an_item(number, rng))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for missing in (0, 1):
            code, report = moving.run("check", check={"recheck": {"attempts": 4, "backoff": "200ms"}})
            assert code == ExitCode.DONE, report.last_error
            assert report.check is not None
            found = report.check.differences
            assert (found.missing, found.total) == (missing, missing), report.check.examples
            assert report.check.result is not CheckResult.EQUAL or not missing
            target.delete_item(TableName=table, Key={"pk": {"S": "k000"}, "sk": {"N": "0"}})
    finally:
        done.set()
        writer.join()
        order(orders, retire=True)
        stream.wait(30)
        order(orders)
        stream.kill()
        stream.wait()
