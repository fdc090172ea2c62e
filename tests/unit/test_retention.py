"""Until when a log keeps what comes next: bounds that are sound, and that only grow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from whimbrel_worker.endpoints.mysql.source import expiry
from whimbrel_worker.engine.retention import Kept, log_needed_since, shards_needed_since
from whimbrel_worker.engine.shard_ports import ShardRef, ShardRow, ShardState

DAY = 86400.0
ROW = ShardRow(ShardRef("t", "arn", "s1"), state=ShardState.READING)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({"binlog_expire_logs_seconds": "2592000", "expire_logs_days": "0"}, 30 * DAY),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "3"}, 3 * DAY),
        ({"binlog_expire_logs_seconds": "3600", "expire_logs_days": "3"}, 3600),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "0"}, None),
        ({"binlog_expire_logs_seconds": "0"}, None),
        ({"binlog_expire_logs_seconds": "3600", "binlog_expire_logs_auto_purge": "OFF"}, None),
        ({"binlog_expire_logs_seconds": "3600", "binlog_expire_logs_auto_purge": "ON"}, 3600),
    ],
)
def test_how_long_mysql_keeps_its_log(settings: dict[str, str], seconds: float | None) -> None:
    assert expiry(settings) == seconds


def test_a_log_in_order_is_needed_from_the_oldest_commit_that_is_missing() -> None:
    assert log_needed_since(None, None, None, 6) is None
    assert log_needed_since(100.0, 400.0, 300.0, 6) == 94, "what was read later does not matter"
    assert log_needed_since(None, 400.0, 300.0, 6) == 394, "all that was read is in the target"
    assert log_needed_since(None, None, 300.0, 6) == 294, "an idle source proves its end"


@given(some.lists(some.one_of(some.none(), some.floats(0, 1e10))))
def test_what_was_once_certain_stays_so(moments: list[float | None]) -> None:
    kept, told = Kept(DAY), list[float]()
    for moment in moments:
        until = kept.until(moment)
        if until is None:
            assert told == []
            continue
        assert not told or until >= told[-1]
        assert moment is None or until >= moment + DAY
        told.append(until)


def test_a_log_that_forgets_nothing_by_time_has_no_end() -> None:
    kept = Kept(None)
    assert kept.until(100.0) is None
    kept.seconds = 50.0
    assert kept.until(None) == 150.0, "a period that is set later counts from what is known"


def test_the_least_of_all_open_shards_counts() -> None:
    rows = [
        replace(ROW, read_to=500.0),
        replace(ROW, ref=replace(ROW.ref, shard="s2"), read_to=300.0),
        replace(ROW, ref=replace(ROW.ref, shard="s3"), read_to=100.0, state=ShardState.DONE),
    ]
    assert shards_needed_since(rows, base=50.0) == 300.0
    assert shards_needed_since(rows[2:], base=50.0) is None
    assert shards_needed_since([ROW], base=50.0) == 50.0, "nothing read yet: since the copy began"


def test_a_quiet_shard_counts_as_read_up_to_its_newest_empty_page() -> None:
    quiet = replace(ROW, read_to=100.0, quiet_since=800.0, asked_at=900.0)
    assert shards_needed_since([quiet], base=50.0) == 900.0
    begun = replace(quiet, quiet_since=899.0)
    assert shards_needed_since([begun], base=50.0) == 100.0, "too short to count"
    behind = replace(ROW, ref=replace(ROW.ref, shard="s2"), read_to=300.0, asked_at=900.0)
    assert shards_needed_since([quiet, behind], base=50.0) == 300.0


def test_a_child_is_needed_from_what_its_parent_proved() -> None:
    parent = replace(ROW, read_to=400.0, state=ShardState.DONE)
    child = replace(ROW, ref=replace(ROW.ref, shard="s2"), parent="s1", state=ShardState.PENDING)
    assert shards_needed_since([parent, child], base=50.0) == 400.0
