"""`spec.retire` over real servers: what goes, what stays, and that nothing is ever copied over a live target again."""

from typing import Any

import pytest

from support.item_moves import ItemMove, fill
from support.live_run import LiveRun, Run
from support.moves import Move
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.streams.server import StreamServer

pytestmark = pytest.mark.timeout(180)
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def said(status: MigrationStatus, kind: str) -> tuple[str, str]:
    return next((each.status, each.reason) for each in status.conditions if each.type == kind)


def finish(live: Run) -> MigrationStatus:
    """The same manifest, until the run ends by itself."""
    with live.started() as run:
        assert live.ended(run) == 0, live.log()
    return live.status()


def control_rows(move: Move) -> dict[str, int]:
    """The control tables that are there, with the number of this migration's rows."""
    names = [name for (name,) in move.look("SELECT tablename FROM pg_tables WHERE schemaname = 'whimbrel'")]
    count = "SELECT count(*) FROM whimbrel.{} WHERE migration = 'default/shop'"
    return {name: move.look(count.format(name))[0][0] for name in names}


def test_a_switched_migration_leaves_a_tombstone_and_never_begins_again(
    dsql_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    live = LiveRun(dsql_move, mysql, mysql_database, mode="SnapshotOnly")
    live.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    assert finish(live).phase is Phase.COMPLETED
    assert control_rows(dsql_move)["workers"] > 0

    live.store.patch_spec(live.key, {"retire": True})
    status = finish(live)
    assert (status.phase, said(status, "Retired")) == (Phase.COMPLETED, ("True", "Retired"))
    assert control_rows(dsql_move) == {"migrations": 1, "journal": 2}
    assert dsql_move.look("SELECT step FROM whimbrel.journal ORDER BY number") == [("switched",), ("retired",)]
    live.execute("UPDATE t SET v = 99")
    target = f'SELECT id, v FROM "{mysql_database}".t ORDER BY id'
    assert finish(live).phase is Phase.COMPLETED
    live.rewrite({})
    again = finish(live)
    assert (again.phase, said(again, "Retired")) == (Phase.COMPLETED, ("True", "Retired"))
    assert dsql_move.look(target) == [(1, 1), (2, 2)], "the target is live: nothing was copied over it"
    assert "Retired" in [event.reason for event in live.events()]


def test_another_migrations_rows_and_tables_stay(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    postgres_move.prepare()
    postgres_move.migration, first = "default/other", postgres_move.migration
    code, report = postgres_move.run("schema")
    assert code == ExitCode.DONE, report.last_error
    postgres_move.migration = first
    assert postgres_move.run("retire")[0] == ExitCode.CONFIGURATION, "it is not over"
    assert postgres_move.run("fence", fence={"step": "cancelled"})[0] == ExitCode.DONE
    for _ in range(2):
        code, report = postgres_move.run("retire")
        assert code == ExitCode.DONE, report.last_error
        assert report.record is not None
        assert [entry.step for entry in report.record.journal] == ["cancelled", "retired"]
    left = "SELECT migration, count(*) FROM whimbrel.{} GROUP BY migration ORDER BY migration"
    assert postgres_move.look(left.format("tables")) == [("default/other", 1)]
    assert postgres_move.look(left.format("journal")) == [("default/move", 2), ("default/other", 2)]

    postgres_move.migration = "default/other"
    assert postgres_move.run("fence", fence={"step": "cancelled"})[0] == ExitCode.DONE
    assert postgres_move.run("retire")[0] == ExitCode.DONE
    tables = postgres_move.look("SELECT tablename FROM pg_tables WHERE schemaname = 'whimbrel' ORDER BY 1")
    assert tables == [("journal",), ("migrations",)]
    assert postgres_move.run("inspect")[0] == ExitCode.DONE
    assert postgres_move.run("check")[0] == ExitCode.DONE, "it can be compared all the same"
    postgres_move.migration = "default/third"
    postgres_move.prepare()


@pytest.mark.parametrize("end", ["switched", "cancelled"])
def test_how_a_frozen_source_was_before_is_not_forgotten(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str, end: str
) -> None:
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    postgres_move.prepare()
    freezing = "INSERT INTO whimbrel.journal VALUES ('default/move', 50, 'freezing', 'as it was', now())"
    if end == "switched":
        postgres_move.look(freezing)
    assert postgres_move.run("fence", fence={"step": end})[0] == ExitCode.DONE
    if end == "cancelled":
        postgres_move.look(freezing)
        assert postgres_move.run("retire")[0] == ExitCode.CONFIGURATION, "it is opened first"
        return
    assert postgres_move.run("retire")[0] == ExitCode.DONE
    steps = postgres_move.look("SELECT step, detail FROM whimbrel.journal ORDER BY number")
    assert steps == [("freezing", "as it was"), ("switched", ""), ("retired", "")]


def entries(move: ItemMove) -> list[str]:
    found = client_of(move.goal).scan(TableName="whimbrel-control")["Items"]
    return sorted(str(item["entry"]["S"]) for item in found)


def streaming(move: ItemMove, table: str) -> bool:
    described: dict[str, Any] = client_of(move.origin).describe_table(TableName=table)["Table"]
    return bool(described.get("StreamSpecification", {}).get("StreamEnabled", False))


def test_a_retired_item_migration_puts_its_streams_back_and_leaves_a_tombstone(
    moving: ItemMove, stream_bed: StreamServer
) -> None:
    mine, theirs = moving.table("orders"), moving.table("stock", StreamSpecification=STREAM)
    fill(moving.origin, mine, range(300))
    moving.prepare()
    assert moving.run("snapshot", snapshot={"chunkRows": 100})[0] == ExitCode.DONE
    stream_bed.control.refuse("UpdateTable")
    try:
        assert moving.run("fence", fence={"step": "switched", "detail": "here"})[0] == ExitCode.DONE
        assert streaming(moving, mine), "what the switch left undone"
        code, report = moving.run("retire")
        assert code == ExitCode.CONFIGURATION, "nothing is forgotten before its stream is put back"
        assert report.last_error is not None
    finally:
        stream_bed.control.refuse("UpdateTable", on=False)
    assert len(entries(moving)) > 8
    for _ in range(2):
        code, report = moving.run("retire")
        assert code == ExitCode.DONE, report.last_error
        assert [streaming(moving, table) for table in (mine, theirs)] == [False, True]
        assert entries(moving)[-1] == "migration"
        assert report.record is not None
        assert [entry.step for entry in report.record.journal] == ["switched", "retired"]
    assert moving.run("inspect")[0] == ExitCode.DONE
    code, report = moving.run("stream")
    assert code == ExitCode.CONFIGURATION, "a stream that is started late finds nothing to go on from"


def test_a_stream_that_somebody_enabled_since_is_left_on(moving: ItemMove) -> None:
    mine = moving.table("orders")
    moving.prepare()
    assert moving.run("snapshot")[0] == ExitCode.DONE
    assert moving.run("fence", fence={"step": "switched"})[0] == ExitCode.DONE
    assert not streaming(moving, mine)
    client_of(moving.origin).update_table(TableName=mine, StreamSpecification=STREAM)
    assert moving.run("retire")[0] == ExitCode.DONE
    assert streaming(moving, mine)


def test_a_deleted_migration_leaves_no_stream_that_it_enabled(moving: ItemMove) -> None:
    mine, theirs = moving.table("orders"), moving.table("stock", StreamSpecification=STREAM)
    moving.prepare()
    assert moving.run("snapshot")[0] == ExitCode.DONE
    for _ in range(2):
        code, report = moving.run("retire", fence={"step": "abandon"})
        assert code == ExitCode.DONE, report.last_error
        assert [streaming(moving, table) for table in (mine, theirs)] == [False, True]
        assert report.record is not None
        assert [entry.step for entry in report.record.journal].count("cancelled") == 1
    assert report.epoch == 2, "no worker that wakes up late can write"


def test_a_deleted_migration_that_found_its_streams_goes_on_under_the_same_name(moving: ItemMove) -> None:
    moving.table("stock", StreamSpecification=STREAM)
    moving.prepare()
    assert moving.run("snapshot")[0] == ExitCode.DONE
    code, report = moving.run("retire", fence={"step": "abandon"})
    assert (code, report.epoch) == (ExitCode.DONE, 1)
    assert report.record is not None
    assert report.record.last("cancelled") is None
