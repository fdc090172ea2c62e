"""DynamoDB Local on loopback, the fault proxy, the flights items and the traffic, with real clients."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from support.dynamodb_tables import STREAM, make_table, stream_records
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.dynamodb import database, jars, java
from whimbrel_testbed.dynamodb.client import dynamodb_client, table_names
from whimbrel_testbed.dynamodb.faults import (
    Call,
    Cut,
    Delay,
    Fault,
    LoseReply,
    Refuse,
    Throttle,
    ThrottleKind,
    Unprocessed,
    give_back,
    split_batch,
)
from whimbrel_testbed.dynamodb.flights import load_flights
from whimbrel_testbed.dynamodb.loader import write_items
from whimbrel_testbed.dynamodb.local import DynamoDBServer, dynamodb_server
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.dynamodb.traffic import Traffic, TrafficCounts, make_article_table, read_keys, run_article
from whimbrel_testbed.dynamodb.traffic_plan import HeavyPlan

if TYPE_CHECKING:
    from whimbrel_testbed.polardb.server import PolarDBServer


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; an assertion fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not within 10 s"
        time.sleep(0.01)


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process listens for TCP, out of /proc; those of IPv6 as the kernel writes them."""
    sockets, found = set(), set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the server closes some while we look
            sockets.add(str(path.readlink()))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address = fields[1].split(":")[0]
                found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address)
    return found


def test_it_listens_on_loopback_alone(dynamodb: DynamoDBServer) -> None:
    assert listening_addresses(dynamodb.pid) == {"127.0.0.1"}
    assert dynamodb.endpoint.startswith("http://127.0.0.1:")
    assert dynamodb.secret_access_key not in repr(dynamodb)


def test_items_streams_and_conditions_are_dynamodbs(dynamodb: DynamoDBServer, dynamodb_prefix: str) -> None:
    client = dynamodb_client(dynamodb.facts())
    name = make_table(client, f"{dynamodb_prefix}a", StreamSpecification=STREAM)
    item = {"pk": {"S": "1"}, "n": {"N": "12345678901234567890123456789012345678"}, "gone": {"NULL": True}}
    client.put_item(TableName=name, Item=item)
    assert client.get_item(TableName=name, Key={"pk": {"S": "1"}}, ConsistentRead=True)["Item"] == item
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.put_item(TableName=name, Item=item, ConditionExpression="attribute_not_exists(pk)")
    assert name in set(table_names(client))
    (record,) = stream_records(dynamodb, client.describe_table(TableName=name)["Table"]["LatestStreamArn"])
    assert record["dynamodb"]["NewImage"] == item


def test_every_jar_is_held_by_version_and_checksum() -> None:
    locked = jars.locked_jars(jars.LOCK.read_text())
    assert len({jar.file for jar in locked}) == len(locked) > 40
    assert {len(jar.sha256) for jar in locked} == {64}
    fetched = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in jars.jars_directory().iterdir()}
    assert fetched == {jar.file: jar.sha256 for jar in locked}


def test_a_jar_with_other_content_is_refused(tmp_path: Path) -> None:
    served = tmp_path / "a" / "b" / "1" / "b-1.jar"
    served.parent.mkdir(parents=True)
    served.write_bytes(b"other")
    right = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(TestbedError, match=rf"a:b:1 is not the jar that jars\.lock names: .* not {right}"):
        jars.fetch_jar(jars.Jar("a", "b", "1", right), tmp_path)


def test_a_jar_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = tmp_path / "jgo.conf"
    configured.write_text("[repositories]\ncentral = http://127.0.0.1:1/maven\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(configured))
    with pytest.raises(TestbedError, match=r"Fetching a:b:1 failed: .*Check the network"):
        jars.fetch_jar(jars.Jar("a", "b", "1", ""), tmp_path)


def test_a_java_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("WHIMBREL_JAVA", str(old))
    with pytest.raises(TestbedError, match=r"is Java 11; DynamoDB Local needs 17 or later"):
        java.java_program.__wrapped__()


@dataclass(frozen=True)
class Proxied:
    proxy: DynamoDBProxy
    client: Any
    direct: Any
    direct_facts: dict[str, str]
    table: str

    def put(self, key: str) -> Any:
        return self.client.put_item(TableName=self.table, Item={"pk": {"S": key}})

    def has(self, key: str) -> bool:
        found = self.direct.get_item(TableName=self.table, Key={"pk": {"S": key}}, ConsistentRead=True)
        return "Item" in found

    def batch(self, count: int) -> dict[str, Any]:
        return {self.table: [{"PutRequest": {"Item": {"pk": {"S": f"{number:02}"}}}} for number in range(count)]}


@pytest.fixture
def proxied(dynamodb: DynamoDBServer, dynamodb_prefix: str) -> Iterator[Proxied]:
    """A proxy before `dynamodb`, a client that comes through it and sends each call once, and a table."""
    direct = dynamodb_client(dynamodb.facts())
    name = make_table(direct, f"{dynamodb_prefix}p")
    with DynamoDBProxy(dynamodb.facts()) as proxy:
        yield Proxied(proxy, dynamodb_client(proxy.facts(), attempts=1), direct, dynamodb.facts(), name)


def test_a_proxy_without_a_rule_changes_nothing(proxied: Proxied) -> None:
    proxied.put("1")
    assert proxied.has("1")
    call = proxied.proxy.log[-1]
    assert (call.operation, call.service, call.body["TableName"]) == ("PutItem", "DynamoDB_20120810", proxied.table)
    for _ in range(3):
        proxied.client.list_tables()
    assert [call.number for call in proxied.proxy.calls("ListTables")] == [2, 3, 4]


@pytest.mark.parametrize("kind", get_args(ThrottleKind))
def test_a_throttled_call_is_an_error_of_that_name_and_goes_no_further(proxied: Proxied, kind: ThrottleKind) -> None:
    proxied.proxy.rule = lambda call: Throttle(kind)
    with pytest.raises(ClientError) as refused:
        proxied.put("1")
    assert refused.value.response["Error"]["Code"] == kind
    assert not proxied.has("1")


def test_the_client_retries_what_is_throttled_once(proxied: Proxied, dynamodb: DynamoDBServer) -> None:
    proxied.proxy.rule = lambda call: Throttle() if call.number < 3 else None
    dynamodb_client(proxied.proxy.facts(), attempts=5).put_item(TableName=proxied.table, Item={"pk": {"S": "1"}})
    assert [call.operation for call in proxied.proxy.log] == ["PutItem"] * 3


def test_a_refusal_is_the_error_that_the_rule_names(proxied: Proxied) -> None:
    proxied.proxy.rule = lambda call: Refuse(400, "AccessDeniedException", "not for you")
    with pytest.raises(ClientError, match=r"\(AccessDeniedException\).*not for you"):
        proxied.put("1")


def test_a_batch_is_written_in_part_and_the_rest_given_back(proxied: Proxied) -> None:
    proxied.proxy.rule = lambda call: Unprocessed(0.3) if call.number == 1 else None
    asked = proxied.batch(10)
    rest = proxied.client.batch_write_item(RequestItems=asked)["UnprocessedItems"]
    assert rest == {proxied.table: asked[proxied.table][7:]}
    assert [proxied.has(f"{number:02}") for number in range(10)] == [True] * 7 + [False] * 3
    assert proxied.client.batch_write_item(RequestItems=rest)["UnprocessedItems"] == {}
    assert proxied.has("09")


def test_a_batch_is_read_in_part_and_the_rest_given_back(proxied: Proxied) -> None:
    proxied.client.batch_write_item(RequestItems=proxied.batch(4))
    proxied.proxy.rule = lambda call: Unprocessed(0.5)
    keys = [{"pk": {"S": f"{number:02}"}} for number in range(4)]
    asked = {proxied.table: {"Keys": keys, "ConsistentRead": True}}
    got = proxied.client.batch_get_item(RequestItems=asked)
    assert sorted(item["pk"]["S"] for item in got["Responses"][proxied.table]) == ["00", "01"]
    assert got["UnprocessedKeys"] == {proxied.table: {"Keys": keys[2:], "ConsistentRead": True}}


@pytest.mark.parametrize("share", [0, 0.01, 0.34, 0.5, 0.99, 1])
def test_a_split_batch_loses_and_doubles_nothing(share: float) -> None:
    writes = {"a": [{"PutRequest": {"Item": {"pk": {"S": str(number)}}}} for number in range(4)], "b": [{"x": 1}]}
    done, rest = split_batch(Call("BatchWriteItem", {"RequestItems": writes, "More": 1}, 1), share)
    sent = done["RequestItems"] if done else {}
    assert {name: [*sent.get(name, []), *rest.get(name, [])] for name in writes} == writes
    assert sum(map(len, rest.values())) == math.ceil(5 * share)
    assert done is None or done["More"] == 1
    answer = {"UnprocessedItems": {"a": [{"y": 1}]}}
    given = give_back(Call("BatchWriteItem", {}, 1), answer, rest)["UnprocessedItems"]
    assert given["a"] == [{"y": 1}, *rest.get("a", [])]


def test_nothing_of_a_batch_may_be_done(proxied: Proxied) -> None:
    proxied.proxy.rule = lambda call: Unprocessed(1)
    asked = proxied.batch(2)
    assert proxied.client.batch_write_item(RequestItems=asked)["UnprocessedItems"] == asked
    assert not proxied.has("00")


@pytest.mark.parametrize(("fault", "done"), [(LoseReply(), True), (Cut(), False)])
def test_a_connection_breaks_after_or_before_the_call_is_done(proxied: Proxied, fault: Fault, done: bool) -> None:
    proxied.proxy.rule = lambda call: fault
    with pytest.raises(HTTPClientError):
        proxied.put("1")
    assert proxied.has("1") is done


def test_a_delayed_call_takes_its_time(proxied: Proxied) -> None:
    proxied.proxy.rule = lambda call: Delay(0.3)
    started = time.monotonic()
    proxied.put("1")
    assert time.monotonic() - started >= 0.3


def test_a_partition_holds_calls_back_until_it_ends(proxied: Proxied) -> None:
    proxied.put("1")
    proxied.proxy.pause()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxied.put, "2")
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        assert not proxied.has("2")
        proxied.proxy.resume()
        waiting.result(10)
    assert proxied.has("2")


def test_all_connections_are_cut_with_what_is_under_way(proxied: Proxied) -> None:
    proxied.proxy.pause()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(proxied.put, key) for key in "12"]
        wait_for(lambda: proxied.proxy.held == 2)
        proxied.proxy.cut_all()
        for call in waiting:
            with pytest.raises(HTTPClientError):
                call.result(10)
    proxied.proxy.resume()
    proxied.put("3")
    assert [proxied.has(key) for key in "123"] == [False, False, True]


def items_of(client: Any, table: str) -> dict[str, Any]:
    """All items of a table, by its first key attribute's value."""
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return {next(iter(item["pk"].values())): item for page in pages for item in page["Items"]}


def test_flights_are_loaded_as_items_with_keys_and_indexes(dynamodb: DynamoDBServer, dynamodb_prefix: str) -> None:
    counts = load_flights(dynamodb.facts(), prefix=dynamodb_prefix, rows=300)
    assert counts == {"airlines": 16, "airports": 300, "planes": 300, "weather": 300, "flights": 300}
    client = dynamodb_client(dynamodb.facts())
    for table, count in counts.items():
        found = client.scan(TableName=dynamodb_prefix + table, Select="COUNT", ConsistentRead=True)
        assert found["Count"] == count, table
    key = {"flight": {"S": "UA#1545"}, "leaves": {"S": "2013-01-01T10:15 EWR"}}
    item = client.get_item(TableName=f"{dynamodb_prefix}flights", Key=key)["Item"]
    assert item["delays"] == {"M": {"dep": {"N": "2"}, "arr": {"N": "11"}}}
    assert sorted(item["route"]["SS"]) == ["EWR", "IAH"]
    planes = client.describe_table(TableName=f"{dynamodb_prefix}planes")["Table"]
    assert [index["IndexName"] for index in planes["GlobalSecondaryIndexes"]] == ["by-manufacturer"]
    boeing = client.query(
        TableName=f"{dynamodb_prefix}planes",
        IndexName="by-manufacturer",
        KeyConditionExpression="manufacturer = :m",
        ExpressionAttributeValues={":m": {"S": "BOEING"}},
    )
    assert boeing["Count"] > 10


def test_loading_again_starts_anew_and_outlasts_throttling(proxied: Proxied, dynamodb_prefix: str) -> None:
    assert load_flights(proxied.proxy.facts(), prefix=dynamodb_prefix, rows=40)["flights"] == 40
    batches: list[Fault] = [Throttle(), LoseReply(), Unprocessed(0.4)]
    proxied.proxy.rule = lambda call: batches.pop() if call.operation == "BatchWriteItem" and batches else None
    assert load_flights(proxied.proxy.facts(), prefix=dynamodb_prefix, rows=60)["flights"] == 60
    assert batches == []
    found = proxied.direct.scan(TableName=f"{dynamodb_prefix}flights", Select="COUNT", ConsistentRead=True)
    assert found["Count"] == 60


def test_loading_says_why_an_item_is_refused(proxied: Proxied) -> None:
    with pytest.raises(TestbedError, match=r"Loading .* failed: .* 400 ValidationException: "):
        write_items(proxied.proxy.facts(), proxied.table, [b'{"other": {"S": "1"}}'] * 200)


def test_the_articles_traffic_updates_one_item_after_the_other(proxied: Proxied, dynamodb_prefix: str) -> None:
    table = f"{dynamodb_prefix}src1"
    assert make_article_table(proxied.direct_facts, table)
    assert not make_article_table(proxied.direct_facts, table)
    before = items_of(proxied.direct, table)
    assert [key.removeprefix(dynamodb_prefix) for key in sorted(before)][::99] == ["src1_user_000", "src1_user_099"]
    stop = threading.Event()

    def report(counts: TrafficCounts) -> None:
        if counts.updates >= 150:
            stop.set()

    proxied.proxy.rule = lambda call: Throttle() if call.number % 20 == 0 else None
    counts = run_article(proxied.proxy.facts(), table=table, rate=1000, seed=3, stop=stop, report=report)
    updates = proxied.proxy.calls("UpdateItem")
    assert counts == TrafficCounts(calls=counts.updates, updates=counts.updates, retried=counts.retried)
    keys = [call.body["Key"]["pk"]["S"] for call in updates if call.number % 20]
    assert keys[:101] == [f"{table}_user_{number % 100:03}" for number in range(101)]
    after = items_of(proxied.direct, table)
    assert after.keys() == before.keys()
    assert after != before


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_planned_change_is_taken(dynamodb: DynamoDBServer, dynamodb_prefix: str, seed: int) -> None:
    print(f"seed {seed}")
    load_flights(dynamodb.facts(), prefix=dynamodb_prefix, rows=20)
    client = dynamodb_client(dynamodb.facts())
    plan = HeavyPlan(random.Random(seed), read_keys(client, dynamodb_prefix), dynamodb_prefix)
    for _ in range(300):
        change = plan.next_change()
        answer = getattr(client, change.operation)(**change.parameters)
        assert not answer.get("UnprocessedItems"), change
    left = read_keys(client, dynamodb_prefix)
    for table, keys in left.items():
        # An update makes an item where there is none, so there may be more than the plan knows, never fewer.
        assert set(keys) >= set(plan.keys[table]), table


def test_the_heavy_traffic_does_everything_and_outlives_an_outage(proxied: Proxied, dynamodb_prefix: str) -> None:
    load_flights(proxied.direct_facts, prefix=dynamodb_prefix, rows=50)
    with Traffic(proxied.proxy.facts(), prefix=dynamodb_prefix, seed=5, rate=2000) as traffic:
        wait_for(lambda: traffic.counts.changes > 100)
        proxied.proxy.rule = lambda call: Cut()
        wait_for(lambda: traffic.counts.retried > 0)
        proxied.proxy.rule = lambda call: None
        before = traffic.counts.calls
        wait_for(lambda: traffic.counts.calls > before + 100)
        every = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}
        wait_for(lambda: {call.operation for call in list(proxied.proxy.log)} >= every)
    counts = traffic.stop()
    assert min(counts.puts, counts.updates, counts.removes, counts.deletes) > 0


def test_traffic_that_is_refused_says_so(dynamodb: DynamoDBServer) -> None:
    traffic = Traffic(dynamodb.facts(), prefix="nowhere-").start()
    wait_for(lambda: traffic._error is not None)
    with pytest.raises(TestbedError, match=r"the traffic ended early: .*ResourceNotFoundException"):
        traffic.stop()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`whimbrel traffic dynamodb` with these arguments, and no keys but those of `environment`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    line = [sys.executable, "-m", "whimbrel_cli", "traffic", "dynamodb", *arguments]
    return subprocess.run(line, env=clean | environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_runs_the_articles_traffic(tmp_path: Path) -> None:
    with dynamodb_server() as server:
        line = tmp_path / "dynamodb.json"
        line.write_text(json.dumps(server.facts()))
        done = command("--server", str(line), "--rate", "50", "--for", "1s")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Made the table src1 with 100 items.\n0 puts, ")
        assert len(items_of(dynamodb_client(server.facts()), "src1")) == 100
        again = command("--server", str(line), "--load", "--for", "1s")
        assert re.match(r"Made the table src1 with 100 items\.\n0 puts, [012] updates, ", again.stdout), again
        keys = {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": server.secret_access_key}
        heavy = command("--endpoint", server.endpoint, "--heavy", "--for", "1s", **keys)
        assert heavy.returncode == 1
        assert "refused (ResourceNotFoundException at Scan" in heavy.stderr
        assert "--load makes them" in heavy.stderr
        assert server.secret_access_key not in heavy.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "No DynamoDB endpoint is named."),
        (
            ("--endpoint", "http://127.0.0.1:1"),
            "The environment has no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY.",
        ),
        (("--host", "db"), "--host is an option of `traffic mysql`"),
    ],
)
def test_the_command_says_what_is_missing(arguments: tuple[str, ...], said: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_command_says_that_nobody_is_there() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = command("--endpoint", "http://127.0.0.1:1", "--for", "1s", **keys)
    assert done.returncode == 1
    assert "DynamoDB at http://127.0.0.1:1 cannot be reached (EndpointConnectionError)" in done.stderr


def test_signatures_hold_through_the_proxy_where_they_are_checked(polardb: PolarDBServer, polardb_prefix: str) -> None:
    with DynamoDBProxy(polardb.facts()) as proxy:
        client = dynamodb_client(proxy.facts(), attempts=1)
        name = make_table(client, f"{polardb_prefix}p")
        proxy.rule = lambda call: Unprocessed(0.5) if call.operation == "BatchWriteItem" else None
        asked = {name: [{"PutRequest": {"Item": {"pk": {"S": key}}}} for key in "abcd"]}
        rest = client.batch_write_item(RequestItems=asked)["UnprocessedItems"]
        assert rest == {name: asked[name][2:]}
        wrong = dynamodb_client({**proxy.facts(), "secretAccessKey": "wrong"}, attempts=1)
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            wrong.list_tables()


@pytest.mark.parametrize("kind", ["dynamodb", "polardb", "streams"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_serves_one_line_and_leaves_nothing_behind(
    kind: str, number: signal.Signals, scratch: Path
) -> None:
    line = [sys.executable, "-m", "whimbrel_testbed", kind]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            assert facts["kind"] == kind
            assert list(table_names(dynamodb_client(facts))) == []
            in_memory = [database.SHARED_MEMORY / path.name for path in scratch.glob("whimbrel-dynamodb-*")]
            assert len(in_memory) == (kind != "polardb")
            process.send_signal(number)
            assert process.wait(30) == (-number if number == signal.SIGKILL else 0)
            wait_for(lambda: not any(path.exists() for path in [*scratch.iterdir(), *in_memory]))
            with pytest.raises(EndpointConnectionError):
                dynamodb_client(facts, attempts=1).list_tables()
        finally:
            process.kill()
