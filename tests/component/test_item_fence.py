"""What the fence does for the item pair beside raising the epoch: streams put back, time to live switched on."""

from typing import Any

from support.item_moves import ItemMove, fill
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.streams.server import StreamServer

ON = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def copied(move: ItemMove) -> tuple[str, str]:
    """A table whose stream is enabled by the migration, and one that had a stream; both with a time to live."""
    tables = move.table("orders"), move.table("stock", StreamSpecification=ON)
    for table in tables:
        fill(move.origin, table, range(10))
        specification = {"AttributeName": "until", "Enabled": True}
        client_of(move.origin).update_time_to_live(TableName=table, TimeToLiveSpecification=specification)
    move.prepare()
    code, report = move.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    return tables


def streaming(move: ItemMove, table: str) -> bool:
    described = client_of(move.origin).describe_table(TableName=table)["Table"]
    return bool(described.get("StreamSpecification", {}).get("StreamEnabled", False))


def time_to_live(move: ItemMove, table: str) -> str:
    found: dict[str, Any] = client_of(move.goal).describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return str(found["TimeToLiveStatus"])


def fenced(move: ItemMove, step: str, attempt: int = 0) -> int:
    code, report = move.run("fence", fence={"step": step, "detail": "here", "planAttempt": attempt})
    assert code == ExitCode.DONE, report.last_error
    return report.epoch


def test_after_the_switch_streams_are_as_they_were_and_time_to_live_is_on(moving: ItemMove) -> None:
    mine, theirs = copied(moving)
    assert [streaming(moving, table) for table in (mine, theirs)] == [True, True]
    assert [time_to_live(moving, table) for table in (mine, theirs)] == ["DISABLED", "DISABLED"]
    assert fenced(moving, "switched") == 2
    assert [streaming(moving, table) for table in (mine, theirs)] == [False, True]
    assert [time_to_live(moving, table) for table in (mine, theirs)] == ["ENABLED", "ENABLED"]
    assert fenced(moving, "switched") == 2, "the same order again raises nothing"


def test_a_cancelled_migration_puts_its_streams_back_and_leaves_the_target(moving: ItemMove) -> None:
    mine, theirs = copied(moving)
    assert fenced(moving, "cancelled") == 2
    assert [streaming(moving, table) for table in (mine, theirs)] == [False, True]
    assert [time_to_live(moving, table) for table in (mine, theirs)] == ["DISABLED", "DISABLED"]


def test_what_cannot_be_put_back_does_not_undo_the_switch(moving: ItemMove, stream_bed: StreamServer) -> None:
    mine, _ = copied(moving)
    stream_bed.control.refuse("UpdateTable")
    try:
        assert fenced(moving, "switched") == 2
    finally:
        stream_bed.control.refuse("UpdateTable", on=False)
    assert streaming(moving, mine)
    code, report = moving.run("inspect")
    assert (code, report.record and report.record.journal[-1].step) == (ExitCode.DONE, "left-undone")


def test_what_was_left_undone_hides_neither_a_repeated_order_nor_a_new_one(
    moving: ItemMove, stream_bed: StreamServer
) -> None:
    copied(moving)
    stream_bed.control.refuse("UpdateTable")
    try:
        assert fenced(moving, "switched", 1) == 2
        assert fenced(moving, "switched", 1) == 2, "the same order again raises nothing"
        given_up = {"step": "timed-out", "planAttempt": 2}
        assert moving.run("fence", epoch=2, fence=given_up)[0] == ExitCode.FENCED_OUT, "it is switched"
        assert fenced(moving, "cancelled") == 3
    finally:
        stream_bed.control.refuse("UpdateTable", on=False)
    record = moving.run("inspect")[1].record
    assert record is not None
    told = [entry.step for entry in record.journal if entry.step in ("switched", "timed-out", "cancelled")]
    assert told == ["switched", "cancelled"]
