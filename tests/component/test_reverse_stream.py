"""A way back over real servers: what an application changes in PolarDB stands in DynamoDB, and what orders do."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.item_faults import ended, eventually, is_stopped, worker
from support.item_moves import definition, fill
from support.reverse_moves import ITEMS, ReverseMove, reverse_move
from support.seeds import over
from whimbrel_api.layout import own_name
from whimbrel_api.reports import ErrorCategory
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_worker.endpoints.polardb.log.lsn import parse_lsn

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb.server import PolarDBServer

MEBIBYTE = 1 << 20
LOUD = "SELECT pg_logical_emit_message(true, 'noise', repeat('x', 3000000))"


@pytest.fixture
def back(polardb: PolarDBServer, dynamodb: DynamoDBServer, tmp_path: Path) -> Iterator[ReverseMove]:
    with reverse_move(tmp_path, polardb, dynamodb) as move:
        yield move


def put(move: ReverseMove, table: str, number: int = 1) -> None:
    client_of(move.origin).put_item(TableName=table, Item={"pk": {"S": "a"}, "sk": {"N": str(number)}})


def states(move: ReverseMove) -> dict[str, str]:
    report = move.reported()
    return {table.name: table.state for table in report.tables} if report is not None else {}


def message(move: ReverseMove, table: str) -> str:
    report = move.reported()
    assert report is not None
    return next(each.message for each in report.tables if each.name == table)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_both_sides_end_equal(back: ReverseMove, seed: int) -> None:
    print(f"seed {seed}")
    table, left_out, rng = back.table(), back.table("not-this"), random.Random(seed)
    back.tables["exclude"] = ["*not-this"]
    with back.following():
        put(back, left_out)
        fill(back.origin, table, range(ITEMS), seed)
        back.application(table, rng).change(200)
        back.equal(table)
        result = back.until(lambda seen: seen.lag_seconds is not None and seen.slot.active)
    assert result.changes_applied >= ITEMS
    assert (result.slot.name, result.slot.wal_status) == (back.slot, "reserved")
    assert ["max_slot_wal_keep_size" in warning for warning in result.warnings] == [True]
    kept = back.kept()
    assert kept is not None
    assert (kept.owner, kept.behind) == (back.owner, {})
    assert back.differences(left_out) != []


def test_a_table_that_was_renamed_goes_back_under_its_own_name(back: ReverseMove) -> None:
    old, new = back.prefix + "old", back.prefix + "new"
    client_of(back.origin).create_table(**definition(new))
    client_of(back.goal).create_table(**definition(old))
    back.tables["overrides"] = [{"name": old, "renameTo": new}]
    with back.following():
        fill(back.origin, new, range(30))
        back.equal((new, old))


def test_orders_hold_drain_retire_disarm(back: ReverseMove) -> None:
    table = back.table()
    with back.following() as process:
        back.held()
        put(back, table)
        before = back.result()
        back.until(lambda seen: parse_lsn(seen.end_of_log) > parse_lsn(before.end_of_log))
        assert back.result().position == before.position
        assert back.differences(table) != []
        wanted = back.end_of_log()
        back.order(drainTo=wanted)
        assert parse_lsn(back.until(lambda seen: seen.drained_to == wanted).position) >= parse_lsn(wanted)
        assert back.differences(table) == []
        back.order(drainTo=wanted, retire=True, disarm=True)
        assert back.ended(process) == ExitCode.DONE
    result = back.result()
    assert (result.armed, result.left_behind, result.drained_to) == (False, [], wanted)
    assert (back.slots(), back.publications(), back.kept()) == ([], [], None)


def test_a_table_that_dynamodb_does_not_have_is_stopped_alone_and_catches_up(back: ReverseMove) -> None:
    table, late = back.table(), back.prefix + "late"
    back.tables = {"exclude": ["not-this"]}
    with back.following():
        client_of(back.origin).create_table(**definition(late))
        put(back, late, 1)
        eventually(lambda: states(back).get(late) == "Stopped")
        assert "no counterpart in DynamoDB" in message(back, late)
        put(back, table)
        put(back, late, 2)
        back.becomes_equal(table)
        kept = back.kept()
        assert kept is not None
        assert list(kept.behind) == [late]
        assert any(late in warning for warning in back.result().warnings)
    with back.following():
        client_of(back.goal).create_table(**definition(late))
        put(back, late, 3)
        back.held()
        back.order(hold=False)
        back.equal(table, late)
        eventually(lambda: states(back).get(late) == "Following")
    kept = back.kept()
    assert kept is not None
    assert kept.behind == {}


def test_a_truncate_stops_its_table_or_is_passed_over(back: ReverseMove) -> None:
    table, other = back.table(), back.table("other")
    with back.following():
        put(back, table)
        back.equal(table)
        back.sql(f'TRUNCATE "{table}"')
        put(back, other)
        eventually(lambda: states(back).get(table) == "Stopped")
        assert "TRUNCATE" in message(back, table)
        back.becomes_equal(other)
    with back.following(reverse={"onTruncate": "Skip"}):
        put(back, table, 2)
        back.until(lambda seen: any("1 TRUNCATE" in warning for warning in seen.warnings))
        scan = client_of(back.goal).scan
        eventually(lambda: {item["sk"]["N"] for item in scan(TableName=table)["Items"]} == {"1", "2"})
        assert states(back)[table] == "Following"


def test_the_guard_warns_and_then_drops_the_slot(back: ReverseMove) -> None:
    back.table()
    limits = {"warnBytes": MEBIBYTE, "limitBytes": 2 * MEBIBYTE}
    back.reverse = {"guard": {**limits, "onLimit": "Report"}}
    with back.following():
        back.held()
        back.sql(LOUD)
        found = back.until(lambda seen: any("over guard.limitBytes" in warning for warning in seen.warnings))
        assert (found.slot.retained_bytes or 0) > 2 * MEBIBYTE
    assert back.slots() == [back.slot]
    back.reverse = {"guard": limits}
    back.order(hold=True)
    code, report = back.run()
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.SOURCE_LOG_LOST
    assert "dropped before the source's disk was full" in report.last_error.what
    assert back.slots() == []
    again, told = back.run()
    assert (again, told.last_error) == (ExitCode.SOURCE_LOG_LOST, report.last_error)


def test_a_slot_that_was_dropped_for_a_predecessor_is_no_reason_later(back: ReverseMove) -> None:
    back.table()
    back.reverse = {"guard": {"warnBytes": MEBIBYTE, "limitBytes": 2 * MEBIBYTE}}
    back.order(drainTo="0/1", retire=True)
    assert back.run()[0] == ExitCode.DONE
    back.sql(LOUD)
    back.order(hold=True)
    assert "disk was full" in str(back.run()[1].last_error)
    assert back.run("disarm")[0] == ExitCode.DONE
    back.reverse = {"owner": "another"}
    back.order(drainTo="0/1", retire=True)
    assert back.run()[0] == ExitCode.DONE
    back.sql("SELECT pg_drop_replication_slot(%s)", own_name("another"))
    assert "is not there any more" in str(back.run()[1].last_error)
    assert back.run("disarm")[0] == ExitCode.DONE


def test_a_worker_that_stood_still_does_not_drop_its_successors_slot(back: ReverseMove) -> None:
    """Meanwhile the limit was raised, and the successor holds the slot beyond the old one."""
    back.table()
    back.reverse = {"guard": {"warnBytes": MEBIBYTE, "limitBytes": 2 * MEBIBYTE}}
    back.order(hold=True)
    with worker(back, "reverse") as zombie:  # type: ignore[arg-type]
        back.until(lambda seen: seen.armed)
        os.kill(zombie.pid, signal.SIGSTOP)
        eventually(lambda: is_stopped(zombie.pid))
        back.sql(LOUD)
        back.reverse = {"guard": {"warnBytes": MEBIBYTE, "limitBytes": 64 * MEBIBYTE}}
        back.forget_report()
        with worker(back, "reverse"):  # type: ignore[arg-type]
            back.until(lambda seen: (seen.slot.retained_bytes or 0) > 2 * MEBIBYTE)
            os.kill(zombie.pid, signal.SIGCONT)
            assert ended(zombie, back, "reverse") == ExitCode.FENCED_OUT, back.log("reverse")[-3000:]  # type: ignore[arg-type]
            assert back.slots() == [back.slot]


def test_what_is_written_while_it_is_held_for_a_rollback_is_found_and_nothing_is_taken(back: ReverseMove) -> None:
    table, other = back.table(), back.table("other")
    with back.following() as process:
        put(back, table)
        wanted = back.end_of_log()
        back.order(drainTo=wanted)
        back.until(lambda seen: seen.drained_to == wanted)
        back.order(hold=True, drainTo=wanted)
        seen = back.until(lambda seen: seen.held)
        assert (seen.unread, parse_lsn(seen.last_change_position) < parse_lsn(wanted)) == (None, True)
        back.sql("CREATE TABLE IF NOT EXISTS unpublished (id integer)")
        back.sql("INSERT INTO unpublished VALUES (1)")
        put(back, other, 2)
        put(back, table, 2)
        found = back.until(lambda seen: seen.unread is not None and seen.unread.changes == 2)
        assert found.unread is not None
        assert (found.held, found.unread.tables, found.unread.more) == (True, [other, table], False)
        assert parse_lsn(wanted) < parse_lsn(found.unread.first) < parse_lsn(found.unread.last)
        assert found.last_change_position == found.unread.last
        back.order()
        back.until(lambda seen: seen.slot.active and seen.unread is None)
        back.equal(table, other)
        back.sql("DROP TABLE unpublished")
        back.order(hold=True, drainTo=back.end_of_log())
        back.until(lambda seen: seen.held)
        put(back, table, 3)
        back.order(hold=True, retire=True, disarm=True)
        assert back.ended(process) == ExitCode.DONE
    last = back.result()
    assert last.unread is not None
    assert (last.unread.changes, last.unread.tables) == (1, [table])
    assert (back.slots(), back.publications(), back.kept()) == ([], [], None)


def test_what_stands_in_the_slot_after_a_rollback_is_told_before_it_is_dropped(back: ReverseMove) -> None:
    table = back.table()
    with back.following():
        put(back, table)
        back.equal(table)
    put(back, table, 2)
    code, report = back.run("disarm", reverse={"lastLook": True})
    assert code == ExitCode.DONE, report.last_error
    assert report.reverse is not None
    assert report.reverse.unread is not None
    assert (report.reverse.unread.changes, report.reverse.unread.tables) == (1, [table])
    assert back.slots() == []
    again = back.run("disarm", reverse={"lastLook": True})[1].reverse
    assert again is not None
    assert again.unread is not None, "whoever goes on after a stop finds it, without the slot"
    assert again.unread.first == report.reverse.unread.first


def test_a_slot_that_was_gone_before_the_last_look_is_no_proof_that_nothing_was_written(back: ReverseMove) -> None:
    back.table()
    with back.following():
        pass
    back.sql("SELECT pg_drop_replication_slot(%s)", back.slot)
    result = back.run("disarm", reverse={"lastLook": True})[1].reverse
    assert result is not None
    assert result.unread is not None
    assert "before it was looked at" in result.unread.unknown


def test_a_last_look_that_finds_nothing_says_nothing_even_when_it_is_repeated(back: ReverseMove) -> None:
    table = back.table()
    with back.following():
        put(back, table)
        back.equal(table)
    for _ in range(2):
        code, report = back.run("disarm", reverse={"lastLook": True})
        assert (code, report.reverse and report.reverse.unread) == (ExitCode.DONE, None)
