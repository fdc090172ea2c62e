"""Slots and publications on a real PostgreSQL: made, looked at, taken from under the reader, and cleared away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.polardb_log import LOG_SETTINGS, PolarDBLog, commits, eventually, polardb_log, read_to_marker, read_until
from whimbrel_api.migration import Tables
from whimbrel_api.tasks import ReverseOptions
from whimbrel_testbed.postgres import postgres_server
from whimbrel_worker.endpoints.polardb.log.lsn import parse_lsn
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream, Wanted
from whimbrel_worker.endpoints.polardb.slot import checks, publication, slots
from whimbrel_worker.endpoints.polardb.slot.publication import Mark, Qualified
from whimbrel_worker.endpoints.polardb.source import PolarDBLogSource
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient


def where(log: PolarDBLog) -> str:
    return log.connector.where


def begin(log: PolarDBLog, position: int | None = None) -> None:
    """Make a stream and end it: for what is refused at the start."""
    ReplicationStream(log.connector, log.wanted(position)).close()


# --- slots ---


def test_a_slot_tells_its_health(log: PolarDBLog) -> None:
    with log.connector.connect() as connection:
        assert slots.look(connection, log.slot, where(log)) is None
    log.prepare()
    log.put("a", 1)
    health = log.health()
    assert (health.plugin, health.database, health.active, health.active_pid) == ("pgoutput", log.slot, False, None)
    assert health.wal_status == "reserved"
    assert not health.lost
    assert health.confirmed_lsn == log.position
    assert 0 < health.restart_lsn <= health.confirmed_lsn < health.end
    assert health.retained_bytes == health.end - health.restart_lsn
    assert health.behind_bytes == health.end - log.position
    assert health.keep_bytes is health.safe_bytes is None
    with log.stream():
        assert log.health().active_pid is not None


def test_a_slot_is_not_made_twice(log: PolarDBLog) -> None:
    log.prepare()
    with log.connector.connect() as connection, pytest.raises(ConfigurationError, match="there already"):
        slots.create(connection, log.slot, where(log))


def test_a_slot_waits_for_open_transactions_a_while_only(log: PolarDBLog) -> None:
    with log.server.connect(log.slot, autocommit=False) as other, log.connector.connect() as connection:
        other.execute("CREATE TABLE open (id integer)")
        connection.execute("SET statement_timeout = 300")
        with pytest.raises(Transient, match="was open before"):
            slots.create(connection, log.slot, where(log))
        other.rollback()
        assert slots.look(connection, log.slot, where(log)) is None
        assert slots.create(connection, log.slot, where(log)) > 0


def test_a_slot_goes_once_and_only_when_nobody_reads(log: PolarDBLog) -> None:
    log.prepare()
    with log.connector.connect() as connection:
        with log.stream() as stream:
            pid = log.health().active_pid
            with pytest.raises(Transient, match=f"pid {pid}"):
                slots.drop(connection, log.slot, where(log), patience=0.0)
            assert slots.drop(connection, log.slot, where(log), terminate=True)
            with pytest.raises(Transient):
                read_until(stream, lambda _: False)
        assert not slots.drop(connection, log.slot, where(log))
        with pytest.raises(SourceLogLost, match="not there any more"):
            begin(log)


def test_a_slot_waits_for_its_reader_to_end(log: PolarDBLog) -> None:
    log.prepare()
    stream = log.stream()
    timer = threading.Timer(0.3, stream.close)
    timer.start()
    with log.connector.connect() as connection:
        assert slots.drop(connection, log.slot, where(log), patience=20.0)
    timer.join()


def test_a_second_reader_is_told_who_the_first_is(log: PolarDBLog) -> None:
    log.prepare()
    with log.stream():
        pid = log.health().active_pid
        with pytest.raises(Transient, match=f"pid {pid}"):
            begin(log)


def test_a_slot_of_another_kind_is_not_read(log: PolarDBLog) -> None:
    log.prepare()
    log.sql(f"SELECT pg_drop_replication_slot('{log.slot}')")
    log.sql(f"SELECT pg_create_physical_replication_slot('{log.slot}')")
    with pytest.raises(ConfigurationError, match="of another kind"):
        begin(log)
    log.sql(f"SELECT pg_drop_replication_slot('{log.slot}')")


def test_an_advanced_slot_is_a_lost_log(log: PolarDBLog) -> None:
    log.prepare()
    log.put("a", 1)
    log.sql(f"SELECT pg_replication_slot_advance('{log.slot}', pg_current_wal_lsn())")
    with pytest.raises(SourceLogLost, match="advanced by somebody, or dropped and made anew"):
        begin(log)


def test_a_slot_made_anew_is_a_lost_log(log: PolarDBLog) -> None:
    log.prepare()
    log.put("a", 1)
    with log.connector.connect() as connection:
        slots.drop(connection, log.slot, where(log))
        slots.create(connection, log.slot, where(log))
    with pytest.raises(SourceLogLost, match="made anew"):
        begin(log)


def test_a_server_behind_the_position_is_another_one(log: PolarDBLog) -> None:
    log.prepare()
    with pytest.raises(SourceLogLost, match="restored or replaced"):
        begin(log, log.position + (1 << 40))


def log_source(log: PolarDBLog) -> PolarDBLogSource:
    options = ReverseOptions(owner=log.owner, slot_name=log.slot)
    connector = log.connector
    return PolarDBLogSource(
        connector.spec, connector.secrets, options, wanted=Tables(), tables=list, ignored=lambda _: False
    )


def test_what_is_applied_during_a_look_does_not_count_as_a_log_that_ended_before(log: PolarDBLog) -> None:
    """Another thread reads on meanwhile; a log that ends before what was read is another server's."""
    source = log_source(log.prepare())
    moved: list[int] = []

    def floor() -> int:
        if moved:
            log.put("a", 1)
        moved.append(parse_lsn(log.sql("SELECT pg_current_wal_lsn()::text")[0][0]))
        return moved[-1]

    with closing(source):
        assert source.look(floor).name == log.slot
        assert moved[0] < moved[1]
        with pytest.raises(SourceLogLost, match="ends before what was read"):
            source.look(lambda: moved[1] + (1 << 32))


def test_a_slot_over_its_limit_is_a_lost_log(tmp_path: Path) -> None:
    with postgres_server(major=16, settings={**LOG_SETTINGS, "max_slot_wal_keep_size": "1MB"}) as own:
        log = polardb_log(own, tmp_path / "secret", "limited").prepare()
        health = log.health()
        assert health.keep_bytes == 1 << 20
        assert health.safe_bytes is not None
        for _ in range(4):
            log.beat()
            log.sql("SELECT pg_switch_wal()")
        log.sql("CHECKPOINT")
        assert log.health().lost
        with pytest.raises(SourceLogLost, match="no longer has the log") as raised:
            begin(log)
        assert "max_slot_wal_keep_size" in raised.value.todo


def test_a_log_that_says_too_little_is_refused(tmp_path: Path) -> None:
    with postgres_server(major=16, settings={**LOG_SETTINGS, "wal_level": "replica"}) as own:
        log = polardb_log(own, tmp_path / "secret", "little")
        with log.connector.connect() as connection, pytest.raises(ConfigurationError, match="wal_level"):
            slots.create(connection, log.slot, where(log))


def test_no_slot_left_says_what_to_do(tmp_path: Path) -> None:
    with postgres_server(major=16, settings={**LOG_SETTINGS, "max_replication_slots": "1"}) as own:
        log = polardb_log(own, tmp_path / "secret", "full").prepare()
        with log.connector.connect() as connection, pytest.raises(ConfigurationError, match="max_replication_slots"):
            slots.create(connection, "another", where(log))


# --- accounts ---


@pytest.fixture
def weak(log: PolarDBLog, tmp_path: Path) -> Iterator[PolarDBLog]:
    """The same with an account that may sign in and no more."""
    name = f"weak_{log.slot}"
    log.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'weak'")
    yield log.with_account(tmp_path / "weak", name, "weak")
    log.sql(f"DROP ROLE {name}")


def test_an_account_without_the_right_is_told_so(log: PolarDBLog, weak: PolarDBLog) -> None:
    log.prepare()
    weak.position = log.position
    with pytest.raises(ConfigurationError, match="ALTER ROLE … REPLICATION"):
        begin(weak)
    with weak.connector.connect() as connection, pytest.raises(ConfigurationError, match="ALTER ROLE … REPLICATION"):
        slots.create(connection, "another", where(log))
    with weak.connector.connect() as connection, pytest.raises(ConfigurationError, match="privilege"):
        publication.create(connection, "another", Mark("o", "s"), None, where(log))


def test_the_right_is_all_that_a_reader_needs(log: PolarDBLog, weak: PolarDBLog) -> None:
    log.prepare()
    log.sql(f"ALTER ROLE {weak.connector.secrets.read('back', 'username')} REPLICATION")
    log.put("a", 1)
    weak.position = log.position
    with weak.stream() as stream:
        weak.beat()
        assert len(commits(read_to_marker(stream))) == 1


def test_a_wrong_password_is_no_missing_right(log: PolarDBLog, tmp_path: Path) -> None:
    wrong = log.with_account(tmp_path / "wrong", log.server.user, "wrong-secret")
    for connect in (wrong.connector.connect, wrong.connector.connect_replication):
        with pytest.raises(ConfigurationError, match="refused the sign-in") as raised:
            connect()
        assert "wrong-secret" not in str(raised.value)


def test_the_pre_flight_tells_an_account_from_an_administrator(log: PolarDBLog, weak: PolarDBLog) -> None:
    log.sql("CREATE TABLE bare (id integer)")
    bare = [Qualified("public", "bare")]

    def found(which: PolarDBLog, only: list[Qualified] | None) -> str:
        with which.connector.connect() as connection:
            facts = checks.read_facts(connection, where(log))
            problems = [
                *checks.check_server(facts, where(log)),
                *checks.check_creation(facts, connection, only, where(log)),
            ]
        return "; ".join(f"{problem.what} {problem.where}" for problem in problems if problem.fatal)

    assert found(log, []) == ""
    assert found(log, None) == "a table without a replica identity cannot be published public.bare"
    assert found(log, bare) == found(log, None)
    assert "may not read the source's change log" in found(weak, [])
    assert "may not publish all tables" in found(weak, None)
    assert "may not make a publication" in found(weak, [])


# --- publications ---


def test_a_publication_is_made_once_with_its_mark(log: PolarDBLog) -> None:
    mark = Mark('shop/"back"', log.slot)
    log.sql("CREATE TABLE items (id integer PRIMARY KEY)")
    with log.connector.connect() as connection:
        assert publication.create(connection, 'p"100%', mark, None, where(log))
        assert not publication.create(connection, 'p"100%', mark, None, where(log))
        made = publication.look(connection, 'p"100%', where(log))
        assert made is not None
        assert made == publication.Publication('p"100%', made.oid, True, True, True, mark)
        assert publication.tables(connection, 'p"100%', where(log)) == [Qualified("public", "items")]
        with pytest.raises(ConfigurationError, match='made by shop/"back"'):
            publication.create(connection, 'p"100%', Mark("other", log.slot), None, where(log))


def test_only_our_own_publication_goes(log: PolarDBLog) -> None:
    log.sql("CREATE PUBLICATION theirs FOR ALL TABLES")
    with log.connector.connect() as connection:
        publication.create(connection, "ours", Mark("me", log.slot), None, where(log))
        assert not publication.drop(connection, "theirs", "me", where(log))
        assert not publication.drop(connection, "ours", "somebody", where(log))
        assert publication.drop(connection, "ours", "me", where(log))
        assert not publication.drop(connection, "ours", "me", where(log))
        with pytest.raises(ConfigurationError, match="made by somebody else"):
            publication.create(connection, "theirs", Mark("me", log.slot), None, where(log))
    assert log.sql("SELECT pubname FROM pg_publication") == [("theirs",)]


def test_a_table_without_identity_keeps_its_updates(log: PolarDBLog) -> None:
    """Once published, the server would refuse them."""
    log.sql("CREATE TABLE bare (id integer)")
    log.sql("CREATE TABLE fine (id integer PRIMARY KEY)")
    with log.connector.connect() as connection:
        with pytest.raises(ConfigurationError, match=r"public\.bare"):
            publication.create(connection, "p", Mark("me", log.slot), None, where(log))
        only = [Qualified("public", "fine")]
        assert publication.create(connection, "p", Mark("me", log.slot), only, where(log))
        log.sql("ALTER TABLE bare REPLICA IDENTITY FULL")
        assert publication.without_identity(connection, where(log)) == []
    log.sql("INSERT INTO bare VALUES (1); UPDATE bare SET id = 2")


@pytest.mark.parametrize("only", [[], [Qualified("public", "absent")]])
def test_a_list_that_cannot_be_published_makes_nothing(log: PolarDBLog, only: list[Qualified]) -> None:
    with log.connector.connect() as connection:
        with pytest.raises(ConfigurationError):
            publication.create(connection, "p", Mark("me", log.slot), only, where(log))
        assert publication.look(connection, "p", where(log)) is None


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("CREATE TABLE unrelated (id integer)", "there is no publication p"),
        ("CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')", "leaves out"),
        ("CREATE PUBLICATION p FOR TABLE other", "does not carry public.items"),
        ("CREATE PUBLICATION p FOR TABLE items (id)", "only some columns or rows of items"),
        ("CREATE PUBLICATION p FOR TABLE items WHERE (id > 1)", "only some columns or rows of items"),
    ],
)
def test_a_publication_that_leaves_something_out_is_unfit(log: PolarDBLog, made: str, why: str) -> None:
    log.sql("CREATE TABLE items (id integer PRIMARY KEY, d text)")
    log.sql("CREATE TABLE other (id integer PRIMARY KEY)")
    log.sql(made)
    with log.connector.connect() as connection, pytest.raises(ConfigurationError, match=why):
        publication.check(connection, "p", [Qualified("public", "items")], where(log))


def test_a_fit_publication_passes(log: PolarDBLog) -> None:
    log.sql("CREATE TABLE items (id integer PRIMARY KEY, d text)")
    log.sql("CREATE PUBLICATION p FOR ALL TABLES")
    with log.connector.connect() as connection:
        publication.check(connection, "p", [Qualified("public", "items")], where(log))


def test_a_missing_publication_is_named_at_the_start(log: PolarDBLog) -> None:
    log.prepare()
    log.sql("DROP PUBLICATION changes")
    with pytest.raises(ConfigurationError, match="there is no publication changes"):
        begin(log)


def test_a_publication_made_after_the_slot_is_named_while_reading(log: PolarDBLog) -> None:
    """Changes are read through the publications of their own time."""
    log.sql("CREATE TABLE items (id integer PRIMARY KEY)")
    with log.connector.connect() as connection:
        log.position = slots.create(connection, log.slot, where(log))
        log.sql("INSERT INTO items VALUES (1)")
        publication.create(connection, log.published, Mark("me", log.slot), None, where(log))
    with log.stream() as stream, pytest.raises(ConfigurationError, match="before the slot"):
        read_until(stream, lambda _: False)


def test_hostile_names_reach_the_server_as_names(log: PolarDBLog) -> None:
    log.sql("CREATE TABLE items (id integer PRIMARY KEY)")
    name = "p', proto_version '9\"; --"
    with log.connector.connect() as connection:
        publication.create(connection, name, Mark("me", log.slot), None, where(log))
        log.position = slots.create(connection, log.slot, where(log))
    log.beat()
    with eventually(lambda: ReplicationStream(log.connector, Wanted(log.slot, (name,), log.position))) as stream:
        assert read_to_marker(stream) == []
