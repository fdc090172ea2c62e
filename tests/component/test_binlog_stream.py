"""The stream's conduct on a real server: what it reports, what it refuses, how it ends and goes on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from support.binlog import changes, executed, open_stream, query, read_to, replay, rows_of
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer, mysql_server
from whimbrel_testbed.provision import mysqlbinlog_command
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.binlog.model import (
    Event,
    Heartbeat,
    Statement,
    TableIncompatible,
    TransactionBegin,
)
from whimbrel_worker.endpoints.mysql.binlog.stream import BinlogStream
from whimbrel_worker.errors import ConfigurationError, Incompatible, SourceLogLost, Transient, WorkerError


@pytest.fixture
def table(mysql: MySQLServer, mysql_database: str) -> str:
    query(mysql, f"CREATE TABLE `{mysql_database}`.t (id int PRIMARY KEY, v varchar(20), j json) COMMENT 'no rows yet'")
    query(mysql, f"ALTER TABLE `{mysql_database}`.t DROP COLUMN j")
    return f"`{mysql_database}`.t"


@contextmanager
def session(mysql: MySQLServer, *statements: str) -> Iterator[None]:
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield


def drain(stream: BinlogStream, events: list[Event]) -> None:
    """Read until an error ends it."""
    while True:
        events += stream.poll(0.1)


def failure(mysql: MySQLServer, start: GtidSet) -> WorkerError:
    """The error that reading from ``start`` ends with."""
    with pytest.raises(WorkerError) as caught:
        changes(mysql, start)
    return caught.value


def test_a_heartbeat_proves_the_end(mysql: MySQLServer, table: str) -> None:
    query(mysql, f"INSERT INTO {table} VALUES (1, 'a')")
    with open_stream(mysql, executed(mysql)) as stream:
        events = stream.poll(5)
        while not events:
            events = stream.poll(5)
    status = query(mysql, "SHOW BINARY LOG STATUS")[0]
    assert events == [Heartbeat(status[0], status[1])]
    assert (stream.file, stream.position) == tuple(status[:2])


def test_no_heartbeat_is_reported_before_the_end(mysql: MySQLServer, table: str) -> None:
    """The server also sends heartbeats while it passes over transactions that the reader has."""
    start = executed(mysql)
    for key in range(300):
        query(mysql, f"INSERT INTO {table} VALUES ({key}, 'a')")
    end = executed(mysql)
    last = end.difference(start)
    source = query(mysql, "SELECT @@server_uuid")[0][0]
    number = max(n for n in range(1, 10**6) if last.contains(f"{source}:{n}"))
    without = GtidSet.parse(f"{source}:{number}")
    known = end.difference(without)
    with open_stream(mysql, known, heartbeat=0.001) as stream:
        events = stream.poll(5)
        while not any(isinstance(event, TransactionBegin) for event in events):
            events += stream.poll(5)
    assert isinstance(events[0], TransactionBegin), "a heartbeat came first"


def test_a_transaction_is_framed_and_timed(mysql: MySQLServer, table: str) -> None:
    start, before = executed(mysql), time.time()
    with session(
        mysql,
        "BEGIN",
        f"INSERT INTO {table} VALUES (1, 'a')",
        "SAVEPOINT s",
        f"UPDATE {table} SET v='b'",
        "ROLLBACK TO s",
        f"UPDATE {table} SET id = 5",
        "COMMIT",
    ):
        events = changes(mysql, start)
    assert [type(event).__name__ for event in events] == [
        "TransactionBegin",
        "RowsEvent",
        "RowsEvent",
        "TransactionEnd",
    ]
    begin, end = events[0], events[-1]
    assert isinstance(begin, TransactionBegin)
    assert before - 1 < begin.commit_timestamp_us / 1e6 < time.time() + 1
    assert begin.original_commit_timestamp_us == begin.commit_timestamp_us
    assert executed(mysql).difference(start) == GtidSet.parse(begin.gtid)
    assert begin.gtid == end.gtid  # type: ignore[union-attr]
    assert rows_of(events, "t")[0].table.primary_key == (0,)
    assert replay(events, "t") == {(5,): (5, b"a")}


def test_tables_that_are_not_wanted_are_passed_over(mysql: MySQLServer, table: str) -> None:
    database = table.split(".", maxsplit=1)[0].strip("`")
    start = executed(mysql)
    query(mysql, f"CREATE TABLE `{database}`.other (id int PRIMARY KEY, e enum('a'))")
    with session(
        mysql,
        "BEGIN",
        f"INSERT INTO `{database}`.other VALUES (1, 'a')",
        f"INSERT INTO {table} VALUES (1, 'x')",
        "COMMIT",
    ):
        events = changes(mysql, start, lambda schema, name: (schema, name) == (database, "t"))
    assert [event.table.table for event in rows_of(events, "t")] == ["t"]
    assert not any(isinstance(event, TableIncompatible) for event in events)


def test_a_table_that_cannot_be_decoded_is_named_and_others_go_on(mysql: MySQLServer, table: str) -> None:
    database = table.split(".", maxsplit=1)[0].strip("`")
    query(
        mysql,
        f"CREATE TABLE `{database}`.odd (id int PRIMARY KEY, e enum('a'), s set('a'), b bit(3), j json, "
        "g point, d varchar(9) character set dec8)",
    )
    start = executed(mysql)
    query(mysql, f"INSERT INTO `{database}`.odd VALUES (1, 'a', 'a', 1, '{{}}', POINT(1, 2), 'x')")
    query(mysql, f"INSERT INTO {table} VALUES (1, 'x')")
    events = changes(mysql, start)
    odd = [event for event in events if isinstance(event, TableIncompatible)]
    assert [event.table.name for event in odd] == [f"{database}.odd"]
    assert [f"column {name}" in odd[0].reason for name in "esbjgd"] == [True] * 6
    assert all(word in odd[0].reason for word in ("ENUM", "SET", "BIT", "JSON", "GEOMETRY", "dec8"))
    assert len(rows_of(events, "t")) == 1


def test_ddl_comes_as_text_in_its_place(mysql: MySQLServer, table: str) -> None:
    database = table.split(".", maxsplit=1)[0].strip("`")
    start = executed(mysql)
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (1, 'x')")
        cursor.execute("SET NAMES latin1")
        connection.encoding = "latin1"
        cursor.execute("ALTER TABLE t ADD COLUMN `größe` int FIRST")
        cursor.execute(f"INSERT INTO {table} VALUES (7, 2, 'y')")
        cursor.execute("CREATE TABLE copy SELECT * FROM t")
        cursor.execute("TRUNCATE t")
    events = changes(mysql, start)
    statements = [event for event in events if isinstance(event, Statement)]
    assert [s.database for s in statements] == [database] * 3
    assert [s.sql.split(" (")[0] for s in statements][0::2] == [
        "ALTER TABLE t ADD COLUMN `größe` int FIRST",
        "TRUNCATE t",
    ]
    assert statements[1].sql.startswith("CREATE TABLE `copy`")
    assert [event.rows for event in rows_of(events, "t")] == [[(1, b"x")], [(7, 2, b"y")]]
    assert [column.name for column in rows_of(events, "t")[1].table.columns] == ["größe", "id", "v"]
    names = [type(event).__name__ for event in events]
    assert names.count("TransactionBegin") == names.count("TransactionEnd") == 5


def test_generated_and_invisible_columns_are_there(mysql: MySQLServer, mysql_database: str) -> None:
    start = executed(mysql)
    query(
        mysql,
        f"CREATE TABLE `{mysql_database}`.g (id int PRIMARY KEY, s int AS (id * 2) STORED, w int AS (id + 1), "
        "h int INVISIBLE DEFAULT 9, KEY ((id * 3)))",
    )
    query(mysql, f"INSERT INTO `{mysql_database}`.g (id) VALUES (4)")
    event = rows_of(changes(mysql, start), "g")[0]
    assert [column.name for column in event.table.columns] == ["id", "s", "w", "h"]
    assert event.rows == [(4, 8, 5, 9)]


def test_hostile_names(mysql: MySQLServer, mysql_database: str) -> None:
    name = "a`b'c\"d\\e;-- %s {x} " + "ü" * 20 + "!"
    quoted = "`" + name.replace("`", "``") + "`"
    start = executed(mysql)
    query(mysql, f"CREATE TABLE `{mysql_database}`.{quoted} ({quoted} int PRIMARY KEY)")
    query(mysql, f"INSERT INTO `{mysql_database}`.{quoted} VALUES (3)")
    event = rows_of(changes(mysql, start), name)[0]
    assert (event.table.columns[0].name, event.rows) == (name, [(3,)])


@pytest.mark.parametrize(
    ("setting", "statements", "words"),
    [
        (
            "binlog_row_image = 'MINIMAL'",
            ["UPDATE {t} SET v = 'z'"],
            ["without all of its columns", "binlog_row_image=FULL"],
        ),
        ("binlog_row_image = 'NOBLOB'", ["ALTER TABLE {t} ADD b text", "UPDATE {t} SET v = 'z'"], ["binlog_row_image"]),
        ("binlog_format = 'STATEMENT'", ["UPDATE {t} SET v = 'z'"], ["as a statement: UPDATE", "binlog_format=ROW"]),
        (
            "binlog_format = 'STATEMENT'",
            ["SET @u = 'w'", "INSERT INTO {t} VALUES (3, @u)"],
            ["USER_VAR", "binlog_format=ROW"],
        ),
        ("binlog_format = 'STATEMENT'", ["INSERT INTO {t} VALUES (4, RAND())"], ["RAND event", "binlog_format=ROW"]),
        (
            "binlog_transaction_compression = ON",
            ["UPDATE {t} SET v = 'z'"],
            ["compressed", "binlog_transaction_compression=OFF"],
        ),
        (
            "autocommit = 1",
            ["XA START 'x'", "UPDATE {t} SET v = 'z'", "XA END 'x'", "XA PREPARE 'x'", "XA ROLLBACK 'x'"],
            ["XA"],
        ),
        ("autocommit = 1", ["XA START 'x'", "UPDATE {t} SET v = 'z'", "XA END 'x'", "XA COMMIT 'x' ONE PHASE"], ["XA"]),
    ],
)
def test_what_cannot_be_carried_is_refused_with_the_remedy(
    mysql: MySQLServer, table: str, setting: str, statements: list[str], words: list[str]
) -> None:
    query(mysql, f"INSERT INTO {table} VALUES (1, 'a')")
    start = executed(mysql)
    with session(mysql, f"SET SESSION {setting}", *[statement.format(t=table) for statement in statements]):
        error = failure(mysql, start)
    assert isinstance(error, Incompatible)
    assert all(word in str(error) for word in words), str(error)
    assert "transaction " in error.where
    assert "binlog.0" in error.where


def test_partial_json_is_refused(mysql: MySQLServer, mysql_database: str) -> None:
    query(mysql, f"CREATE TABLE `{mysql_database}`.j (id int PRIMARY KEY, j json)")
    query(mysql, f"INSERT INTO `{mysql_database}`.j VALUES (1, JSON_OBJECT('a', REPEAT('x', 999), 'b', 1))")
    start = executed(mysql)
    with session(
        mysql,
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        f"UPDATE `{mysql_database}`.j SET j = JSON_SET(j, '$.b', 2)",
    ):
        assert "partial JSON" in str(failure(mysql, start))


def test_what_came_before_an_error_is_delivered_first(mysql: MySQLServer, table: str) -> None:
    start = executed(mysql)
    query(mysql, f"INSERT INTO {table} VALUES (1, 'a')")
    with session(mysql, "SET SESSION binlog_format = 'STATEMENT'", f"INSERT INTO {table} VALUES (2, 'b')"):
        pass
    with open_stream(mysql, start) as stream:
        events: list[Event] = []
        with pytest.raises(Incompatible, match="as a statement"):
            drain(stream, events)
        with pytest.raises(Incompatible):
            stream.poll(0)
    assert rows_of(events, "t")[0].rows == [(1, b"a")]


def test_metadata_that_is_not_full_is_refused() -> None:
    with mysql_server(extra=["--binlog-row-metadata=MINIMAL"]) as mysql:
        start = executed(mysql)
        with session(mysql, "CREATE DATABASE d", "CREATE TABLE d.t (id int PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"):
            error = failure(mysql, start)
    assert isinstance(error, Incompatible)
    assert "SET GLOBAL binlog_row_metadata=FULL" in str(error)
    assert "d.t" in error.where


def test_gtids_that_are_off_are_refused() -> None:
    with (
        mysql_server(gtid=False) as mysql,
        session(mysql, "CREATE DATABASE d"),
        pytest.raises(ConfigurationError, match="gtid_mode=ON"),
        open_stream(mysql, GtidSet()) as stream,
    ):
        for _ in stream:
            pass


def test_a_purged_log_is_lost_and_named() -> None:
    with mysql_server() as mysql:
        with session(mysql, "CREATE DATABASE d", "CREATE TABLE d.t (id int PRIMARY KEY)"):
            start = executed(mysql)
        with session(mysql, "INSERT INTO d.t VALUES (1)", "FLUSH BINARY LOGS"):
            file = query(mysql, "SHOW BINARY LOG STATUS")[0][0]
            query(mysql, f"PURGE BINARY LOGS TO '{file}'")
            error = failure(mysql, start)
    assert isinstance(error, SourceLogLost)
    assert str(start) in str(error)
    assert "purged at the source" in str(error)


def test_a_reader_with_the_same_server_id_is_named(mysql: MySQLServer) -> None:
    with open_stream(mysql, executed(mysql), server_id=777) as first:
        while not first.poll(5):
            pass
        with open_stream(mysql, executed(mysql), server_id=777) as second:
            while not second.poll(5):
                pass
            with pytest.raises(ConfigurationError, match="server id 777"):
                drain(first, [])


def test_a_missing_privilege_is_named(mysql: MySQLServer) -> None:
    query(mysql, "CREATE USER 'nobody'@'%' IDENTIFIED BY 'secret word'")
    access = MySQLAccess(mysql.host, mysql.port, "nobody", "secret word", mysql.ca_file)
    try:
        with (
            pytest.raises(ConfigurationError, match="GRANT REPLICATION SLAVE") as caught,
            open_stream(mysql, GtidSet(), access=access) as stream,
        ):
            stream.poll(5)
        assert "secret" not in str(caught.value)
    finally:
        query(mysql, "DROP USER 'nobody'@'%'")


def test_silence_and_a_dead_server_are_transient_and_reading_goes_on() -> None:
    with mysql_server() as mysql:
        start = executed(mysql)
        with session(mysql, "CREATE DATABASE d", "CREATE TABLE d.t (id int PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"):
            pass
        with open_stream(mysql, start) as stream:
            events = read_to(stream, start, executed(mysql))
            mysql.suspend()
            try:
                with pytest.raises(Transient, match="silent for"):
                    drain(stream, events)
            finally:
                mysql.resume()
        middle = executed(mysql)
        with open_stream(mysql, middle) as stream:
            mysql.kill()
            with pytest.raises(Transient, match=r"lost|broke off"):
                drain(stream, events)
        mysql.start()
        query(mysql, "INSERT INTO d.t VALUES (2)")
        events += changes(mysql, middle)
    assert replay(events, "t") == {(1,): (1,), (2,): (2,)}


def test_log_rotation_and_a_log_without_checksums(mysql: MySQLServer, table: str) -> None:
    start = executed(mysql)
    try:
        for number, checksum in enumerate(["CRC32", "NONE", "NONE", "CRC32", "CRC32"]):
            query(mysql, f"SET GLOBAL binlog_checksum = {checksum}")
            query(mysql, f"INSERT INTO {table} VALUES ({number}, 'x')")
            query(mysql, "FLUSH BINARY LOGS")
        assert sorted(replay(changes(mysql, start), "t")) == [(n,) for n in range(5)]
    finally:
        query(mysql, "SET GLOBAL binlog_checksum = CRC32")


def test_tagged_gtids_are_read_and_sent_back() -> None:
    with mysql_server() as mysql:
        with session(mysql, "CREATE DATABASE d", "CREATE TABLE d.t (id int PRIMARY KEY)"):
            start = executed(mysql)
        statements = []
        for key, tag in enumerate(["", "blue", "blue", "a_very_long_tag_of_32_characters", "", "blue"]):
            statements += [f"SET gtid_next = 'AUTOMATIC{':' + tag if tag else ''}'", f"INSERT INTO d.t VALUES ({key})"]
        foreign = "ffffffff-80aa-11ee-b962-0242ac120002:x1:9223372036854775806"
        statements += [f"SET gtid_next = '{foreign}'", "INSERT INTO d.t VALUES (99)", "SET gtid_next = 'AUTOMATIC'"]
        with session(mysql, *statements):
            end = executed(mysql)
        assert str(end) == query(mysql, "SELECT @@GLOBAL.gtid_executed")[0][0].replace("\n", "").lower()
        events = changes(mysql, start)
        begins = [event for event in events if isinstance(event, TransactionBegin)]
        assert [begin.source.partition(":")[2] for begin in begins] == [
            "",
            "blue",
            "blue",
            "a_very_long_tag_of_32_characters",
            "",
            "blue",
            "x1",
        ]
        assert begins[-1].gtid == foreign
        assert all(abs(begin.commit_timestamp_us / 1e6 - time.time()) < 60 for begin in begins)
        middle = start.copy()
        for begin in begins[:4]:
            middle.add(begin.source, begin.number)
        assert sorted(replay(changes(mysql, middle), "t")) == [(4,), (5,), (99,)]
        middle.add_gtid(foreign)
        assert sorted(replay(changes(mysql, middle), "t")) == [(4,), (5,)]


def test_a_connection_without_tls_is_read_as_well(mysql: MySQLServer, table: str) -> None:
    start = executed(mysql)
    query(mysql, f"INSERT INTO {table} VALUES (1, 'x')")
    plain = MySQLAccess(mysql.host, mysql.port, mysql.migration.user, mysql.migration.password)
    connection = plain.connect(ssl_disabled=True)
    assert type(connection._sock).__name__ == "socket"  # type: ignore[attr-defined]
    connection.close()
    with open_stream(mysql, start, access=MySQLAccess(mysql.host, mysql.port, mysql.user, mysql.password)) as stream:
        assert replay(read_to(stream, start, executed(mysql)), "t") == {(1,): (1, b"x")}


def test_the_package_and_mysqlbinlog_see_the_same_rows(mysql: MySQLServer, table: str) -> None:
    start = executed(mysql)
    inserts = [f"INSERT INTO {table} VALUES ({n}, 'v{n}')" for n in range(40)]
    with session(
        mysql, *inserts, f"UPDATE {table} SET v = CONCAT(v, '!') WHERE id % 2", f"DELETE FROM {table} WHERE id % 3 = 0"
    ):
        events = rows_of(changes(mysql, start), "t")
    ours = [(event.kind, change) for event in events for change in event.rows]
    settings = {"host": mysql.host, "port": mysql.port, "user": mysql.user, "password": mysql.password}
    package = BinLogStreamReader(
        connection_settings=settings,
        server_id=5555,
        blocking=False,
        auto_position=str(start),
        enable_logging=False,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
    )
    theirs = [(type(event).__name__[:6].lower(), row) for event in package for row in event.rows]
    package.close()
    assert len(ours) == len(theirs) == 40 + 20 + 14
    for (kind, change), (other, row) in zip(ours, theirs, strict=True):
        assert {"write": "insert", "writer": "insert"}.get(other, other) == kind
        values = [row["before_values"], row["after_values"]] if kind == "update" else [row["values"]]
        images = change if kind == "update" else (change,)
        assert [(v["id"], v["v"].encode()) for v in values] == list(images)
    file = query(mysql, "SHOW BINARY LOG STATUS")[0][0]
    text = subprocess.run(
        [*mysqlbinlog_command(), "-v", str(mysql.data_directory / file)], check=True, capture_output=True, text=True
    ).stdout
    assert text.count(f"### INSERT INTO {table.replace('.t', '.`t`')}") == sum(kind == "insert" for kind, _ in ours)
    assert text.count(f"### DELETE FROM {table.replace('.t', '.`t`')}") == sum(kind == "delete" for kind, _ in ours)
