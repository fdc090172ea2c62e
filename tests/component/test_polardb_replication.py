"""The change log of a real PostgreSQL, as PolarDB has it: what comes, what is acknowledged, and what comes again."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import orjson
import pytest

from support.polardb_log import LOG_SETTINGS, PolarDBLog, commits, eventually, polardb_log, read_to_marker, read_until
from whimbrel_api.layout import KeyColumn, Layout
from whimbrel_testbed.postgres import postgres_server
from whimbrel_worker.endpoints.polardb.log import replication
from whimbrel_worker.endpoints.polardb.log.changes import Committed, Event, Marker, RowChange, Truncated
from whimbrel_worker.endpoints.polardb.log.messages import UNCHANGED
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream
from whimbrel_worker.endpoints.polardb.rows.items import ItemWrite, KeyAttribute
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.errors import Transient

LAYOUT = ItemLayout(Layout(), {"items": [KeyAttribute("s", "S"), KeyAttribute("n", "N")]})


def writes(events: list[Event]) -> list[ItemWrite]:
    return [write for event in events if isinstance(event, RowChange) for write in LAYOUT.writes(event)]


def told(write: ItemWrite) -> tuple[str, str, str | None]:
    """A write's key, and its value where it puts."""
    name, number = (orjson.loads(cell) for cell in write.key)
    return name["S"], number["N"], None if write.item is None else orjson.loads(write.item)["v"]["S"]


def test_each_kind_of_change_becomes_a_write(log: PolarDBLog) -> None:
    log.prepare()
    log.put("ä", 1, "one")
    log.put("ä", 1, "two")
    log.sql("UPDATE items SET n = 1.5, polardb_document = jsonb_set(polardb_document, '{n,N}', '\"1.50\"')")
    log.sql("DELETE FROM items")
    log.beat()
    with log.stream() as stream:
        events = read_to_marker(stream)
    assert [told(write) for write in writes(events)] == [
        ("ä", "1", "one"),
        ("ä", "1", "two"),
        ("ä", "1", None),
        ("ä", "1.5", "two"),
        ("ä", "1.5", None),
    ]
    assert len(commits(events)) == 4
    assert commits(events) == sorted(set(commits(events)))


def test_a_commit_tells_its_time(log: PolarDBLog) -> None:
    log.prepare()
    before = time.time()
    log.put("a", 1)
    after = time.time()
    with log.stream() as stream:
        events = read_until(stream, lambda seen: bool(commits(seen)))
    assert isinstance(events[-1], Committed)
    assert before - 1 <= events[-1].at / 1e6 <= after + 1


def test_a_rolled_back_transaction_never_comes(log: PolarDBLog) -> None:
    log.prepare()
    with log.server.connect(log.slot, autocommit=False) as connection:
        connection.execute("INSERT INTO items VALUES ('a', 1, '{}')")
        connection.rollback()
    log.beat()
    with log.stream() as stream:
        assert read_to_marker(stream) == []


def test_an_untouched_large_document_is_a_placeholder(log: PolarDBLog) -> None:
    log.prepare()
    log.sql("ALTER TABLE items ADD COLUMN touched integer")
    log.sql("ALTER TABLE items ALTER COLUMN polardb_document SET STORAGE EXTERNAL")
    log.put("a", 1, "x" * 9000)
    log.sql("UPDATE items SET touched = 1")
    log.sql("ALTER TABLE items REPLICA IDENTITY FULL")
    log.sql("UPDATE items SET touched = 2")
    log.beat()
    with log.stream() as stream:
        events = [event for event in read_to_marker(stream) if isinstance(event, RowChange)]
    first, untouched, whole = events
    assert untouched.new is not None
    assert whole.new is not None
    assert untouched.new[2] is whole.new[2] is UNCHANGED
    assert LAYOUT.writes(untouched) == []
    assert LAYOUT.writes(whole) == LAYOUT.writes(first)


def test_a_changed_table_is_described_anew(log: PolarDBLog) -> None:
    log.prepare()
    log.put("a", 1)
    log.sql("ALTER TABLE items DROP COLUMN n CASCADE")
    log.sql("ALTER TABLE items ADD COLUMN n numeric NOT NULL DEFAULT 1, ADD PRIMARY KEY (n, s)")
    log.sql("UPDATE items SET polardb_document = jsonb_set(polardb_document, '{v,S}', '\"again\"')")
    log.beat()
    with log.stream() as stream:
        found = [told(write) for write in writes(read_to_marker(stream))]
    assert found == [("a", "1", "0"), ("a", "1", "again")]


def test_truncate_names_its_tables(log: PolarDBLog) -> None:
    log.prepare()
    log.sql("TRUNCATE items")
    log.beat()
    with log.stream() as stream:
        events = read_to_marker(stream)
    assert [[relation.name for relation in event.relations] for event in events if isinstance(event, Truncated)] == [
        ["items"]
    ]


def test_commit_ends_alone_are_acknowledged(log: PolarDBLog) -> None:
    log.prepare()
    for number in range(4):
        log.put("a", number)
    log.beat()
    with log.stream() as stream:
        ends = commits(read_to_marker(stream))
        assert log.health().confirmed_lsn == log.position
        for wrong in (ends[0] - 1, ends[3] + 1, 0):
            with pytest.raises(ValueError, match="not the end of a commit"):
                stream.acknowledge(wrong)
        stream.acknowledge(ends[2])
        stream.acknowledge(ends[2])
        for earlier in ends[:2]:
            with pytest.raises(ValueError, match="not the end of a commit"):
                stream.acknowledge(earlier)
        stream.poll(0.2)
        assert log.health().confirmed_lsn == ends[2] == stream.acknowledged
    assert log.health().confirmed_lsn == ends[2]


def test_what_was_not_acknowledged_comes_again_and_what_was_kept_does_not(log: PolarDBLog) -> None:
    log.prepare()
    for number in range(5):
        log.put("a", number)
    log.beat()
    with log.stream() as stream:
        ends = commits(read_to_marker(stream))
        stream.acknowledge(ends[0])
        stream.poll(0.2)
    with log.stream(ends[0]) as stream:
        assert commits(read_to_marker(stream)) == ends[1:]
    with log.stream(ends[2]) as stream:
        events = read_to_marker(stream)
    assert commits(events) == ends[3:]
    assert [told(write)[1] for write in writes(events)] == ["3", "4"]


def test_a_transaction_comes_before_its_end_in_pieces(log: PolarDBLog) -> None:
    log.prepare()
    log.sql(
        "INSERT INTO items SELECT 'a', i, jsonb_build_object('s', jsonb_build_object('S', 'a'), "
        "'n', jsonb_build_object('N', i::text), 'v', jsonb_build_object('S', repeat('x', 200))) "
        "FROM generate_series(1, 8000) AS i"
    )
    log.beat()
    with log.stream() as stream:
        pieces = [piece := stream.poll(5.0)]
        while not commits(piece):
            assert stream.acknowledged == log.position
            pieces.append(piece := stream.poll(5.0))
    rows = [event for piece in pieces for event in piece if isinstance(event, RowChange)]
    assert len(pieces) > 5
    assert [told(write)[1] for event in rows for write in LAYOUT.writes(event)] == [str(i) for i in range(1, 8001)]


def test_a_stream_closed_inside_a_transaction_frees_the_slot(log: PolarDBLog) -> None:
    log.prepare()
    log.sql("INSERT INTO items SELECT 'a', i, '{}' FROM generate_series(1, 20000) AS i")
    stream = log.stream()
    stream.poll(5.0)
    stream.close()
    stream.close()
    eventually(lambda: log.stream().close())
    assert log.health().confirmed_lsn == log.position


def test_a_heartbeat_moves_an_idle_slot(log: PolarDBLog) -> None:
    log.prepare()
    with log.stream() as stream:
        log.beat("one")
        events = read_until(stream, lambda seen: bool(commits(seen)))
        assert events[0] == Marker(slots.HEARTBEAT, b"one", events[0].lsn, events[0].at)  # type: ignore[union-attr]
        stream.acknowledge(commits(events)[-1])
        stream.poll(0.2)
    assert log.health().confirmed_lsn == commits(events)[-1] > log.position


def test_an_idle_reader_is_not_thrown_out(log: PolarDBLog) -> None:
    log.prepare()
    log.sql(f"ALTER DATABASE {log.slot} SET wal_sender_timeout = '600ms'")
    with log.stream() as stream:
        pid = log.health().active_pid
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            assert stream.poll(0.3) == []
        assert log.health().active_pid == pid


def test_a_reader_that_writes_for_long_keeps_its_place(log: PolarDBLog) -> None:
    """As a writer does that calls keep_alive between its requests."""
    log.prepare()
    log.sql(f"ALTER DATABASE {log.slot} SET wal_sender_timeout = '600ms'")
    with log.stream() as stream:
        log.put("a", 1)
        ends = commits(read_until(stream, lambda seen: bool(commits(seen))))
        ended = threading.Event()
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            stream.keep_alive()
            ended.wait(0.05)
        stream.acknowledge(ends[0])
        stream.poll(0.2)
        assert log.health().confirmed_lsn == ends[0]


def test_the_end_of_the_log_is_proven_without_traffic(log: PolarDBLog) -> None:
    log.prepare()
    log.sql(f"ALTER DATABASE {log.slot} SET wal_sender_timeout = '600ms'")
    with log.stream() as stream:
        log.sql("CREATE TABLE elsewhere (id integer PRIMARY KEY)")
        end = log.health().end
        deadline = time.monotonic() + 10.0
        while stream.sent_to < end:
            assert time.monotonic() < deadline
            stream.poll(0.2)
        assert stream.acknowledged == log.position


def test_a_server_that_stands_still_is_left(log: PolarDBLog) -> None:
    """Its kernel still answers for it, so no time-out of TCP comes."""
    log.prepare()
    with ReplicationStream(log.connector, log.wanted(), silent_seconds=0.6) as stream:
        pid = log.health().active_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Transient, match="fallen silent"):
                read_until(stream, lambda _: False)
            begun = time.monotonic()
            stream.close()
            assert time.monotonic() - begun < 1.0
            with pytest.raises(Transient, match=f"pid {pid}"):
                ReplicationStream(log.connector, log.wanted())
        finally:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: log.stream().close())


def test_the_server_says_who_it_is(log: PolarDBLog) -> None:
    system = replication.identify(log.connector)
    assert system.database == log.slot
    assert system.identifier == str(log.sql("SELECT system_identifier FROM pg_control_system()")[0][0])
    assert system.timeline == 1
    assert system.end > 0


def test_a_crash_of_the_server_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """The slot's own position is written at a checkpoint only, so after a crash it is an older one."""
    durable = {**LOG_SETTINGS, "fsync": "on", "full_page_writes": "on"}
    with postgres_server(major=16, settings=durable) as own:
        log = polardb_log(own, tmp_path / "secret", "crashing").prepare()
        for number in range(6):
            log.put("a", number)
        log.beat("first")
        with log.stream() as stream:
            ends = commits(read_to_marker(stream, "first"))
            stream.acknowledge(ends[3])
            stream.poll(0.2)
            own.kill()
            with pytest.raises(Transient):
                read_until(stream, lambda _: False)
            with pytest.raises(Transient):
                stream.poll(0.1)
        own.start()
        log.put("b", 1)
        log.beat("second")
        assert log.health().confirmed_lsn <= ends[3]
        with log.stream(ends[3]) as stream:
            events = read_to_marker(stream, "second")
        assert [told(write)[:2] for write in writes(events)] == [("a", "4"), ("a", "5"), ("b", "1")]


def test_a_reader_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with postgres_server(major=16, settings=LOG_SETTINGS) as own:
        log = polardb_log(own, tmp_path / "secret", "ending").prepare()
        log.put("a", 1)
        stream = log.stream()
        told_of: list[Transient] = []

        def read() -> None:
            try:
                read_until(stream, lambda _: False)
            except Transient as error:
                told_of.append(error)
                stream.close()

        reader = threading.Thread(target=read)
        reader.start()
        begun = time.monotonic()
        own.stop()
        took = time.monotonic() - begun
        reader.join()
        assert took < 5.0, f"it took {took:.1f} s"
        assert len(told_of) == 1


def test_the_publication_of_all_tables_takes_in_later_ones(log: PolarDBLog) -> None:
    log.prepare()
    log.sql('CREATE TABLE "later" (id integer PRIMARY KEY)')
    log.sql("INSERT INTO later VALUES (1)")
    log.beat()
    with log.stream() as stream:
        events = read_to_marker(stream)
    assert [event.relation.name for event in events if isinstance(event, RowChange)] == ["later"]


def test_a_publication_of_some_tables_leaves_the_others_out(log: PolarDBLog) -> None:
    log.sql("CREATE TABLE mine (id integer PRIMARY KEY)")
    log.sql('CREATE TABLE "whimbrel-control" (id integer PRIMARY KEY)')
    mark = publication.Mark(log.owner, log.slot)
    with log.connector.connect() as connection:
        only = [publication.Qualified("public", "mine")]
        publication.create(connection, log.published, mark, only, log.connector.where)
        log.position = slots.create(connection, log.slot, log.connector.where)
    log.sql('INSERT INTO "whimbrel-control" VALUES (1)')
    log.sql("INSERT INTO mine VALUES (1)")
    log.beat()
    with ReplicationStream(log.connector, log.wanted()) as stream:
        events = read_to_marker(stream)
    assert [event.relation.name for event in events if isinstance(event, RowChange)] == ["mine"]


def test_another_public_layout_is_followed_by_configuration_alone(log: PolarDBLog) -> None:
    columns = [("pk", "String"), ("sk_s", "String"), ("sk_n", "Number"), ("sk_b", "Binary")]
    spec = Layout.model_validate(
        {
            "documentColumn": "item_data",
            "keyColumns": [KeyColumn.model_validate({"name": name, "type": kind}) for name, kind in columns],
            "tableRule": "app.ddb_{table}",
        }
    )
    sorts = {"plain": None, "by_text": "S", "by_number": "N", "by_bytes": "B"}
    keys = {
        name: [KeyAttribute("p", "S"), *([KeyAttribute("q", kind)] if kind else [])] for name, kind in sorts.items()
    }
    log.prepare()
    log.sql("CREATE SCHEMA app")
    for name in sorts:
        log.sql(
            f"CREATE TABLE app.ddb_{name} (pk TEXT NOT NULL, sk_s TEXT, sk_n NUMERIC, sk_b BYTEA, "
            "item_data JSONB NOT NULL, UNIQUE NULLS NOT DISTINCT (pk, sk_s, sk_n, sk_b))"
        )
        log.sql(f"ALTER TABLE app.ddb_{name} REPLICA IDENTITY FULL")
    log.sql("""INSERT INTO app.ddb_plain VALUES ('a', NULL, NULL, NULL, '{"p": {"S": "a"}}')""")
    log.sql("""INSERT INTO app.ddb_by_text VALUES ('a', 'ü', NULL, NULL, '{"p": {"S": "a"}, "q": {"S": "ü"}}')""")
    log.sql("""INSERT INTO app.ddb_by_number VALUES ('a', NULL, 1.50, NULL, '{"p": {"S": "a"}, "q": {"N": "1.5"}}')""")
    log.sql(
        r"""INSERT INTO app.ddb_by_bytes VALUES ('a', NULL, NULL, '\x00ff', '{"p": {"S": "a"}, "q": {"B": "AP8="}}')"""
    )
    for name in sorts:
        log.sql(f'UPDATE app.ddb_{name} SET item_data = item_data || \'{{"v": {{"N": "1"}}}}\'')
        log.sql(f"DELETE FROM app.ddb_{name}")
    log.beat()
    layout = ItemLayout(spec, keys)
    with log.stream() as stream:
        events = read_to_marker(stream)
    made = [write for event in events if isinstance(event, RowChange) for write in layout.writes(event)]
    assert len(made) == 12
    for name, attribute in (
        ("plain", None),
        ("by_text", {"S": "ü"}),
        ("by_number", {"N": "1.5"}),
        ("by_bytes", {"B": "AP8="}),
    ):
        key = (b'{"S":"a"}', *([orjson.dumps(attribute)] if attribute else []))
        mine = [write for write in made if write.table == name]
        assert [write.key for write in mine] == [key] * 3
        assert [write.item is None for write in mine] == [False, False, True]
