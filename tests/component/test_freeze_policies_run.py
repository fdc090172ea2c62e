"""`whimbrel run` with a cutover that freezes DynamoDB's tables itself: there, with changes that flow back, and back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from fix_dynamodb import CONTROL
from support.both_ways_run import BothWays
from support.item_faults import Application
from support.item_moves import fill, item_move
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_testbed.dynamodb.client import delete_tables, dynamodb_client
from whimbrel_testbed.dynamodb.policies import PolicyStandIn
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_testbed.streams.server import StreamServer

pytestmark = pytest.mark.timeout(280)
ITEMS = 60


@pytest.fixture
def policies() -> PolicyStandIn:
    return PolicyStandIn(effect_lag=0.5, read_lag=0.5)


@pytest.fixture
def proxy(
    stream_bed: StreamServer, policies: PolicyStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DynamoDBProxy]:
    with DynamoDBProxy(stream_bed.facts(), policies=policies) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.endpoint)
        yield server


@pytest.fixture
def both(
    proxy: DynamoDBProxy, stream_bed: StreamServer, polardb: PolarDBServer, stream_prefix: str, tmp_path: Path
) -> Iterator[BothWays]:
    move = item_move(tmp_path, stream_bed, polardb, stream_prefix, through=proxy.endpoint)
    yield BothWays(move, polardb, sourceFreeze="Operator", freeze={"method": "DenyPolicy"})
    client = dynamodb_client(polardb.facts())
    delete_tables(client, stream_prefix)
    delete_tables(client, CONTROL)


def can_write(proxy: DynamoDBProxy, table: str) -> bool:
    application = dynamodb_client({**proxy.facts(), "accessKeyId": "AKIAAPPLICATION"}, attempts=1)
    try:
        application.delete_item(TableName=table, Key={"pk": {"S": "nobody"}, "sk": {"N": "0"}})
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return False
    return True


def test_the_source_is_frozen_until_it_is_rolled_back_and_takes_what_flows_back_meanwhile(
    both: BothWays, proxy: DynamoDBProxy, policies: PolicyStandIn
) -> None:
    move, rng = both.move, random.Random(17)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))
    theirs = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "dynamodb:DeleteTable", "Resource": "*"}
    before = {"Version": "2012-10-17", "Statement": [theirs]}
    policies.attach(table, before)
    assert can_write(proxy, table)
    with both.cut_over(table):
        assert both.status().cutover.source_frozen
        assert not can_write(proxy, table)
        Application(move.goal, table, rng, ITEMS).change(60)
        both.equal(table)
        assert both.say("rollback", "shop", "-n", both.key.namespace, "--yes")[0] == 0
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        eventually(lambda: can_write(proxy, table), both.told)
        assert json.loads(policies.policy(table) or "{}") == before
        both.until(lambda status: status.phase is Phase.FOLLOWING and not status.cutover.source_frozen)
        Application(move.origin, table, rng, ITEMS).change(60)
        both.equal(table)
