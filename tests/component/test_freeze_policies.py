"""The writers of DynamoDB tables stopped and let go on by Whimbrel, through the test bed's stand-in for policies."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fix_dynamodb import fresh_prefix
from support.freezing import record_of, steps, what_failed
from support.item_moves import ItemMove, an_item, fill, item_move
from support.patience import eventually
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.client import delete_tables, dynamodb_client
from whimbrel_testbed.dynamodb.faults import Call, Cut, Fault, LoseReply
from whimbrel_testbed.dynamodb.policies import ACCOUNT, PolicyStandIn
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_testbed.streams.server import StreamServer

pytestmark = pytest.mark.timeout(120)
APPLICATION = "AKIAAPPLICATION"
PARTNER = f"arn:aws:iam::{ACCOUNT}:role/partner"
DENY = {"method": "DenyPolicy"}


@dataclass
class Bed:
    """A move whose source lies behind the stand-in; others come by the same way with keys of their own."""

    move: ItemMove
    proxy: DynamoDBProxy
    policies: PolicyStandIn
    tables: list[str]

    def client(self, access_key: str = APPLICATION) -> Any:
        return dynamodb_client({**self.proxy.facts(), "accessKeyId": access_key}, attempts=1)

    def can_write(self, table: str, access_key: str = APPLICATION) -> bool:
        try:
            self.client(access_key).delete_item(TableName=table, Key={"pk": {"S": "nobody"}, "sk": {"N": "0"}})
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            return False
        return True

    def writable(self) -> list[bool]:
        return [self.can_write(table) for table in self.tables]

    def documents(self) -> list[Any]:
        found = [self.policies.policy(table) for table in self.tables]
        return [None if policy is None else json.loads(policy) for policy in found]


@contextmanager
def copied_bed(stream_bed: StreamServer, polardb: PolarDBServer, directory: Path) -> Iterator[Bed]:
    """Three tables that are copied."""
    policies = PolicyStandIn()
    with (
        DynamoDBProxy(stream_bed.facts(), policies=policies) as proxy,
        fresh_prefix(stream_bed.facts()) as prefix,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setenv("AWS_ENDPOINT_URL_STS", proxy.endpoint)
        move = item_move(directory, stream_bed, polardb, prefix, through=proxy.endpoint, migration=f"default/{prefix}")
        bed = Bed(move, proxy, policies, [move.table(name) for name in ("orders", "stock", "users")])
        for table in bed.tables:
            fill(move.origin, table, range(5))
        move.prepare()
        assert move.run("snapshot")[0] == 0
        yield bed
        delete_tables(dynamodb_client(polardb.facts()), prefix)


@pytest.fixture(scope="module")
def shared(stream_bed: StreamServer, polardb: PolarDBServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with copied_bed(stream_bed, polardb, tmp_path_factory.mktemp("shared")) as bed:
        yield bed


@pytest.fixture
def copied(shared: Bed) -> Iterator[Bed]:
    """The first table has a policy, the two others have none; nothing is frozen."""
    yield begun(shared)
    released(shared)
    assert shared.move.run("unfreeze")[0] == 0


@pytest.fixture
def own(stream_bed: StreamServer, polardb: PolarDBServer, tmp_path: Path) -> Iterator[Bed]:
    """The same, for a test that does not leave it as it was."""
    with copied_bed(stream_bed, polardb, tmp_path) as bed:
        yield begun(bed)


def released(bed: Bed) -> None:
    """Nothing lags, nothing is forbidden, and no call goes wrong."""
    policies = bed.policies
    bed.proxy.rule = lambda _: None
    policies.effect_lag = policies.read_lag = policies.blocked = 0.0
    policies.forbidden.clear()
    policies.settle()


def begun(bed: Bed) -> Bed:
    for table in bed.tables:
        bed.policies.attach(table, somebodys(table) if table == bed.tables[0] else None)
    released(bed)
    return bed


def somebodys(table: str, sid: str = "Readers") -> dict[str, Any]:
    """A policy of somebody else, with a condition."""
    arn = f"arn:aws:dynamodb:ddblocal:{ACCOUNT}:table/{table}"
    outsiders = {"ArnNotLike": {"aws:PrincipalArn": [f"arn:aws:iam::{ACCOUNT}:*"]}}
    statement = {"Sid": sid, "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "dynamodb:Scan"}
    return {"Version": "2012-10-17", "Statement": [{**statement, "Resource": arn, "Condition": outsiders}]}


def freeze(policy: Mapping[str, Any] = DENY, **options: Any) -> dict[str, Any]:
    return {"freeze": {"quietSeconds": 1.0, "stopWrites": policy, **options}}


def freezings(bed: Bed) -> int:
    """How many freezes the journal holds."""
    return steps(bed.move).count("freezing")


def frozen(bed: Bed, policy: Mapping[str, Any] = DENY, *, epoch: int = 1, **options: Any) -> str:
    code, report = bed.move.run("freeze", epoch=epoch, **freeze(policy, **options))
    assert code == 0, report.last_error
    assert report.freeze is not None
    return report.freeze.position


def unfreeze(bed: Bed) -> None:
    code, report = bed.move.run("unfreeze")
    assert code == 0, report.last_error
    assert report.record is not None
    assert report.record.standing_freeze is None


def test_nobody_writes_while_frozen_but_who_is_excepted_and_every_policy_is_put_back(copied: Bed) -> None:
    copied.policies.principals["AKIAPARTNER"] = PARTNER
    before, journalled = copied.documents(), freezings(copied)
    position = frozen(copied, {**DENY, "exceptPrincipals": [PARTNER]})
    table = copied.tables[0]
    assert copied.writable() == [False, False, False]
    assert copied.can_write(table, "AKIAPARTNER")
    assert copied.can_write(table, copied.move.origin.access_key_id), "the migration's own keys"
    application = copied.client()
    put = {"TableName": table, "Item": {"pk": {"S": "x"}, "sk": {"N": "1"}}}
    writes: tuple[Callable[[], Any], ...] = (
        lambda: application.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": put["Item"]}}]}),
        lambda: application.transact_write_items(TransactItems=[{"Put": put}]),
        lambda: application.execute_statement(Statement=f"DELETE FROM \"{table}\" WHERE pk='x' AND sk=1"),
    )
    for write in writes:
        with pytest.raises(ClientError, match="AccessDenied"):
            write()
    assert application.scan(TableName=table)["Count"] == 5
    assert copied.documents()[0]["Statement"][0] == before[0]["Statement"][0]
    assert frozen(copied, {**DENY, "exceptPrincipals": [PARTNER]}, since=position) == position
    assert freezings(copied) == journalled + 1
    unfreeze(copied)
    assert copied.documents() == before
    assert copied.writable() == [True, True, True]
    assert steps(copied.move)[-3:] == ["freezing", "unfreezing", "unfrozen"]


def test_what_was_before_is_journalled_first(copied: Bed) -> None:
    frozen(copied)
    entry = record_of(copied.move).last("freezing")
    assert entry is not None
    told = json.loads(entry.detail)
    assert (told["method"], sorted(told["policiesBefore"])) == ("DenyPolicy", sorted(copied.tables))
    assert [bool(told["policiesBefore"][table]) for table in copied.tables] == [True, False, False]


def test_what_somebody_else_changes_meanwhile_stays(copied: Bed) -> None:
    before = copied.documents()
    frozen(copied)
    first, second, third = copied.tables
    grown = copied.documents()[0]
    grown["Statement"].append(somebodys(first, "Later")["Statement"][0])
    copied.policies.attach(first, grown)
    copied.policies.attach(second, somebodys(second))
    copied.policies.attach(third, None)
    unfreeze(copied)
    left = copied.documents()
    assert [each["Sid"] for each in left[0]["Statement"]] == ["Readers", "Later"]
    assert left[1:] == [somebodys(second), None]
    assert left[0]["Statement"][:1] == before[0]["Statement"]


def test_a_statement_that_somebody_takes_away_is_put_back_by_the_last_look(copied: Bed) -> None:
    position = frozen(copied)
    copied.policies.attach(copied.tables[1], None)
    assert copied.can_write(copied.tables[1])
    frozen(copied, since=position)
    assert copied.writable() == [False, False, False]


def test_reads_and_effect_that_lag_behind_and_changes_that_are_blocked(copied: Bed) -> None:
    """A writer gets through until the policy counts; the quiet is waited for after that, and nothing stays behind."""
    copied.policies.settle()
    before = copied.documents()
    copied.policies.read_lag, copied.policies.effect_lag, copied.policies.blocked = 1.5, 2.0, 3.0
    frozen(copied)
    assert copied.move.run("unfreeze")[0] == 0
    assert copied.documents() == before
    assert any("ExpectedRevisionId" in call.body for call in copied.proxy.calls("DeleteResourcePolicy"))


def test_undone_while_reads_still_show_what_was_before_the_freeze(copied: Bed) -> None:
    """Neither an old policy nor none at all is believed."""
    before = copied.documents()
    copied.policies.read_lag = 8.0
    worker = copied.move.start("freeze", failpoint="freeze.stopped", **freeze())
    assert worker.wait(60) != 0
    assert copied.writable() == [False, False, False]
    unfreeze(copied)
    assert copied.documents() == before
    assert copied.writable() == [True, True, True]


def once(operation: str, fault: Fault) -> Any:
    left = [fault]

    def rule(call: Call) -> Fault | None:
        tried = call.body.get("ExpectedRevisionId") == "whimbrel-permission-probe"
        return left.pop() if call.operation == operation and not tried and left else None

    return rule


@pytest.mark.parametrize("fault", [LoseReply(), Cut()])
def test_a_lost_call_changes_nothing(copied: Bed, fault: Fault) -> None:
    before = copied.documents()
    copied.proxy.rule = once("PutResourcePolicy", fault)
    frozen(copied)
    assert copied.writable() == [False, False, False]
    copied.proxy.rule = once("DeleteResourcePolicy", fault)
    unfreeze(copied)
    assert copied.documents() == before


def test_killed_between_the_journal_and_the_first_policy(copied: Bed) -> None:
    before = copied.documents()
    worker = copied.move.start("freeze", failpoint="freeze.journalled", **freeze())
    assert worker.wait(60) != 0
    assert steps(copied.move)[-1] == "freezing"
    assert copied.documents() == before
    unfreeze(copied)
    assert copied.documents() == before
    assert copied.writable() == [True, True, True]


def test_killed_half_way_through_three_tables(copied: Bed) -> None:
    before = copied.documents()
    last = copied.tables[2]

    def rule(call: Call) -> Fault | None:
        tried = call.body.get("ExpectedRevisionId") == "whimbrel-permission-probe"
        stuck = call.operation == "PutResourcePolicy" and call.body["ResourceArn"].endswith(last) and not tried
        return Cut(lambda: time.sleep(0.1)) if stuck else None

    copied.proxy.rule = rule
    worker = copied.move.start("freeze", **freeze())
    eventually(lambda: copied.writable() == [False, False, True], lambda: copied.move.log("freeze"))
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)
    copied.proxy.rule = lambda _: None
    unfreeze(copied)
    assert copied.documents() == before
    assert copied.writable() == [True, True, True]


def test_a_freeze_that_was_killed_goes_on(copied: Bed) -> None:
    journalled = freezings(copied)
    worker = copied.move.start("freeze", failpoint="freeze.journalled", **freeze())
    assert worker.wait(60) != 0
    frozen(copied)
    assert copied.writable() == [False, False, False]
    assert freezings(copied) == journalled + 1


def test_after_the_switch_it_stays_frozen_and_after_a_rollback_it_is_opened(own: Bed) -> None:
    before, move = own.documents(), own.move
    frozen(own, planAttempt=1)
    code, report = move.run("fence", fence={"step": "switched", "detail": "here", "planAttempt": 1})
    assert code == 0, report.last_error
    assert move.run("unfreeze", freeze={"planAttempt": 2})[0] == 0
    assert own.writable() == [False, False, False]
    code, report = move.run("fence", epoch=2, fence={"step": "rolled-back", "detail": "there", "planAttempt": 3})
    assert code == 0, report.last_error
    code, report = move.run("unfreeze", epoch=3, freeze={"planAttempt": 4})
    assert code == 0, report.last_error
    assert own.documents() == before
    assert own.writable() == [True, True, True]
    own.move.run("unfreeze", epoch=3)
    own.client(move.origin.access_key_id).delete_table(TableName=own.tables[1])
    frozen(own, epoch=3)
    own.client(move.origin.access_key_id).delete_table(TableName=own.tables[2])
    unfreeze(own)
    assert own.can_write(own.tables[0]), "tables that are dropped keep nothing from being undone"


@pytest.mark.parametrize("action", ["GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy"])
def test_a_right_that_is_missing_is_named_before_anything_is_done(copied: Bed, action: str) -> None:
    own = copied.policies.principal(copied.move.origin.access_key_id)
    copied.policies.forbidden.add((own, action))
    journalled = freezings(copied)
    for task in ("preflight", "freeze"):
        code, said = what_failed(copied.move, task, **freeze())
        assert code == ExitCode.CONFIGURATION
        assert f"dynamodb:{action}" in said
        assert "set spec.cutover.sourceFreeze to User" in said
    assert freezings(copied) == journalled
    assert copied.writable() == [True, True, True]
    assert copied.move.run("preflight")[0] == 0, "who freezes himself needs no such right"


def test_a_right_that_is_taken_away_while_frozen_says_what_to_do_by_hand(copied: Bed) -> None:
    frozen(copied)
    own = copied.policies.principal(copied.move.origin.access_key_id)
    copied.policies.forbidden.add((own, "DeleteResourcePolicy"))
    code, said = what_failed(copied.move, "unfreeze")
    assert code == ExitCode.CONFIGURATION
    assert "dynamodb:DeleteResourcePolicy" in said
    assert "take the statement WhimbrelFreeze" in said
    copied.policies.forbidden.clear()
    unfreeze(copied)
    assert copied.writable() == [True, True, True]


def test_a_full_policy_is_refused_before_anything_is_done(copied: Bed) -> None:
    full = somebodys(copied.tables[1])
    full["Statement"][0]["Resource"] = ["x" * 100] * 195
    copied.policies.attach(copied.tables[1], full)
    code, said = what_failed(copied.move, "preflight", **freeze())
    assert code == ExitCode.CONFIGURATION
    assert copied.tables[1] in said
    assert "no room for a statement" in said


def test_an_endpoint_without_policies_is_refused(copied: Bed) -> None:
    copied.move.through = copied.move.origin.endpoint
    try:
        code, said = what_failed(copied.move, "preflight", **freeze())
    finally:
        copied.move.through = copied.proxy.endpoint
    assert code == ExitCode.CONFIGURATION
    assert "resource-based policies cannot be read at this endpoint" in said


def test_a_writer_that_is_under_way_is_stopped_and_nothing_comes_after_the_position(copied: Bed) -> None:
    table, stop = copied.tables[0], threading.Event()
    copied.policies.settle()
    copied.policies.effect_lag = 1.0
    rng = random.Random(5)
    written: list[float] = []

    def write() -> None:
        application = copied.client()
        while not stop.is_set():
            try:
                application.put_item(TableName=table, Item=an_item(1000 + len(written), rng))
                written.append(time.monotonic())
            except ClientError:
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(written) > 5, lambda: written)
        position = frozen(copied)
        count = len(written)
        assert frozen(copied, since=position) == position
        assert len(written) == count
    finally:
        stop.set()
        writer.join()
