"""The fence of a rollback on real servers: from where the forward stream begins anew, and which orders are too old."""

import pytest

from support.item_moves import ItemMove, fill
from support.reverse_moves import reverse_move
from whimbrel_api.reports import ROLLED_BACK, Record
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = pytest.mark.timeout(120)
BACK = {"step": ROLLED_BACK, "detail": "0/1", "planAttempt": 2}


def switched(move: ItemMove) -> str:
    """Copied and cut over; the table's stream, which was enabled for it, is off again."""
    table = move.table("orders")
    fill(move.origin, table, range(30))
    for kind in ("schema", "snapshot"):
        assert move.run(kind)[0] == 0
    for step in ("sealed", "switched"):
        code, report = move.run("fence", epoch=0, fence={"step": step, "detail": "here", "planAttempt": 1})
        assert code == 0, report.last_error
    return table


def shards(move: ItemMove) -> list[tuple[str, str]]:
    """The shards in the control table, and what they hold."""
    found = client_of(move.goal).query(
        TableName="whimbrel-control",
        KeyConditionExpression="migration = :m AND begins_with(entry, :s)",
        ExpressionAttributeValues={":m": {"S": move.migration}, ":s": {"S": "shard#"}},
    )["Items"]
    return sorted((each["stream"]["S"], each["epoch"]["N"]) for each in found)


def record(move: ItemMove) -> Record:
    found = move.run("inspect", epoch=0)[1].record
    assert found is not None
    return found


def rolled_back(move: ItemMove, **options: object) -> int:
    return move.run("fence", epoch=0, fence={**BACK, **options})[0]


def test_the_stream_begins_anew_where_the_source_stands(moving: ItemMove) -> None:
    switched(moving)
    before, old = record(moving), shards(moving)
    assert before.plan_attempt == 1
    assert rolled_back(moving) == ExitCode.DONE
    after, new = record(moving), shards(moving)
    assert (after.epoch, after.plan_attempt) == (before.epoch + 1, 2)
    assert after.traffic is not None
    assert (after.traffic.step, after.traffic.detail) == (ROLLED_BACK, "0/1")
    assert after.start_position > before.start_position
    assert new
    assert {stream for stream, _ in new}.isdisjoint(stream for stream, _ in old), "the stream was enabled anew"
    assert {epoch for _, epoch in new} == {str(after.epoch)}
    assert rolled_back(moving) == ExitCode.DONE
    assert (record(moving).epoch, record(moving).start_position, shards(moving)) == (
        after.epoch,
        after.start_position,
        new,
    )


def test_one_that_died_in_the_middle_is_done_again(moving: ItemMove) -> None:
    switched(moving)
    old, process = shards(moving), moving.start("fence", "reopen.captured", epoch=0, fence=BACK)
    assert process.wait(60) != 0
    assert record(moving).last(ROLLED_BACK) is None
    assert rolled_back(moving) == ExitCode.DONE
    assert {stream for stream, _ in shards(moving)}.isdisjoint(stream for stream, _ in old)


def test_an_order_of_another_attempt_is_not_carried_out(moving: ItemMove) -> None:
    switched(moving)
    before = shards(moving)
    assert rolled_back(moving, planAttempt=3) == ExitCode.FENCED_OUT
    assert (record(moving).last(ROLLED_BACK), shards(moving)) == (None, before)
    assert rolled_back(moving) == ExitCode.DONE
    again = {"step": "switched", "detail": "there", "planAttempt": 2}
    assert moving.run("fence", epoch=0, fence=again)[0] == ExitCode.DONE
    before = shards(moving)
    assert rolled_back(moving) == ExitCode.FENCED_OUT, "an order from before the second switch"
    assert shards(moving) == before


def test_what_is_not_switched_is_not_rolled_back_and_an_old_seal_is_not_made(moving: ItemMove) -> None:
    switched(moving)
    assert rolled_back(moving) == ExitCode.DONE
    assert rolled_back(moving, detail="0/2", planAttempt=3) == ExitCode.FENCED_OUT
    epoch = record(moving).epoch
    old = {"step": "sealed", "detail": "late", "planAttempt": 1}
    assert moving.run("fence", epoch=0, fence=old)[0] == ExitCode.FENCED_OUT
    assert record(moving).epoch == epoch


def test_a_look_at_the_way_back_makes_nothing_and_says_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, polardb: PolarDBServer, dynamodb: DynamoDBServer
) -> None:
    with reverse_move(tmp_path_factory.mktemp("look"), polardb, dynamodb) as move:
        move.table()
        before, tables = move.publications(), client_of(move.goal).list_tables()["TableNames"]
        code, report = move.run(lookOnly=True)
        assert (code, report.reverse and report.reverse.problems) == (0, []), report.last_error
        assert (move.slots(), move.publications()) == ([], before)
        assert client_of(move.goal).list_tables()["TableNames"] == tables
        code, report = move.run(lookOnly=True, tables={"include": ["there-is-none-*"]})
        assert code == 0
        assert report.reverse is not None
        assert report.reverse.problems
