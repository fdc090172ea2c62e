"""The writers of a real MySQL server stopped and let go on by Whimbrel; a server of its own, as settings change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from fix_servers import fresh_name
from support.freezing import (
    SUPER_READ_ONLY,
    Frozen,
    can_write,
    freezable,
    locking,
    postgres_target,
    record_of,
    steps,
    what_failed,
)
from support.moves import Move
from whimbrel_api.reports import ROLLED_BACK
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLAccess
from whimbrel_testbed.postgres import PostgresServer

pytestmark = pytest.mark.timeout(120)
READING = "SELECT, REPLICATION SLAVE, REPLICATION CLIENT"
ODD = 'o\'dd \\ "app"@home'


@pytest.fixture(scope="module")
def source() -> Iterator[Frozen]:
    with freezable() as frozen:
        yield frozen


@pytest.fixture
def database(source: Frozen) -> Iterator[str]:
    name = fresh_name()
    source.open()
    source.make(name)
    yield name
    source.open()
    source.run(f"DROP DATABASE `{name}`")


@pytest.fixture
def app(source: Frozen) -> MySQLAccess:
    return source.application()


@pytest.fixture
def unprepared(source: Frozen, database: str, postgres: PostgresServer, postgres_database: str, tmp_path: Path) -> Move:
    return postgres_target(source.server.migration, database, postgres, postgres_database, tmp_path)


@pytest.fixture
def move(unprepared: Move) -> Move:
    unprepared.prepare()
    return unprepared


def freeze(policy: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"freeze": {"quietSeconds": 0.3, "stopWrites": policy, "planAttempt": 1, **options}}


UNFREEZE = {"freeze": {"planAttempt": 2}}


def frozen(move: Move, policy: dict[str, Any]) -> str:
    """The position at which the source came to rest."""
    code, report = move.run("freeze", **freeze(policy))
    assert code == 0, report.last_error
    assert report.freeze is not None
    return report.freeze.position


def unfreeze(move: Move) -> None:
    code, report = move.run("unfreeze", **UNFREEZE)
    assert code == 0, report.last_error
    assert report.record is not None
    assert report.record.standing_freeze is None


def test_super_read_only_lets_nobody_write_and_no_open_transaction_commit(
    source: Frozen, database: str, app: MySQLAccess, move: Move
) -> None:
    with closing(app.connect(database, autocommit=False)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v) VALUES (77)")
        position = frozen(move, SUPER_READ_ONLY)
        with pytest.raises(pymysql.err.OperationalError, match="read-only"):
            connection.commit()
    assert not can_write(app, database)
    assert not can_write(source.server.admin, database)
    assert source.run(f"SELECT v FROM `{database}`.t") == []
    assert move.run("freeze", **freeze(SUPER_READ_ONLY))[1].freeze.position == position  # type: ignore[union-attr]
    assert steps(move).count("freezing") == 1
    unfreeze(move)
    assert source.read_only() == (False, False)
    assert can_write(app, database)
    assert steps(move)[-3:] == ["freezing", "unfreezing", "unfrozen"]
    assert record_of(move).plan_attempt == 2
    unfreeze(move)
    assert steps(move).count("unfrozen") == 1


@pytest.mark.parametrize("former", [(True, False), (True, True)])
def test_what_was_read_only_before_stays_so(
    source: Frozen, app: MySQLAccess, move: Move, former: tuple[bool, bool]
) -> None:
    source.run("SET GLOBAL super_read_only = ON" if former[1] else "SET GLOBAL read_only = ON")
    frozen(move, SUPER_READ_ONLY)
    assert source.read_only() == (True, True)
    unfreeze(move)
    assert source.read_only() == former


def test_a_locked_table_keeps_it_from_being_done_for_a_bounded_time_and_is_named(
    source: Frozen, database: str, app: MySQLAccess, move: Move
) -> None:
    with closing(app.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number = cursor.fetchone()[0]
        cursor.execute("LOCK TABLES t WRITE")
        code, said = what_failed(move, "freeze", **freeze(SUPER_READ_ONLY))
        assert code == ExitCode.FAILED
        assert f"connection {number} of app" in said
        assert source.read_only() == (False, False)
    frozen(move, SUPER_READ_ONLY)
    unfreeze(move)
    assert can_write(app, database)


def test_locked_accounts_lose_their_connections_and_open_transactions_and_others_write_on(
    source: Frozen, database: str, app: MySQLAccess, move: Move
) -> None:
    odd, other = source.application(ODD, "127.0.0.1"), source.application("reporter")
    before = source.application("locked_before")
    source.run("ALTER USER locked_before@'%' ACCOUNT LOCK")
    policy = locking("app", f"{ODD}@127.0.0.1", "locked_before@%")
    with closing(app.connect(database, autocommit=False)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v) VALUES (77)")
        position = frozen(move, policy)
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute("COMMIT")
    assert [can_write(each, database) for each in (app, odd, before)] == [False, False, False]
    assert source.run(f"SELECT v FROM `{database}`.t WHERE v = 77") == []
    confirmed = move.run("freeze", **freeze(policy, since=position))[1].freeze
    assert confirmed is not None
    assert (confirmed.position, confirmed.tables) == (position, {})
    assert can_write(other, database)
    unfreeze(move)
    assert [can_write(each, database) for each in (app, odd, before)] == [True, True, False]
    assert source.is_locked("locked_before")


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        (("app@%", "nobody@%"), "the account nobody@% does not exist"),
        (("app@%", "whimbrel@10.0.0.1"), "the migration itself signs in as whimbrel@%"),
        ((), "no account is named"),
    ],
)
def test_accounts_that_cannot_be_locked_are_refused_before_any_is(
    source: Frozen, app: MySQLAccess, move: Move, accounts: tuple[str, ...], said: str
) -> None:
    code, error = what_failed(move, "freeze", **freeze(locking(*accounts)))
    assert code == ExitCode.CONFIGURATION
    assert said in error
    assert not source.is_locked("app")
    assert "freezing" not in steps(move)
    code, error = what_failed(move, "preflight", **freeze(locking(*accounts)))
    assert said in error


def test_an_account_whose_namesake_stays_open_is_refused(source: Frozen, app: MySQLAccess, move: Move) -> None:
    """Its connections would be ended with the others', and come back."""
    source.application("app", "10.0.0.1")
    try:
        code, error = what_failed(move, "freeze", **freeze(locking("app@%")))
        assert code == ExitCode.CONFIGURATION
        assert "name app@10.0.0.1 as well" in error
        assert not source.is_locked("app")
        frozen(move, locking("app@%", "app@10.0.0.1"))
        unfreeze(move)
    finally:
        source.run("DROP USER app@'10.0.0.1'")


def test_an_account_that_only_its_like_may_lock_is_named_and_none_is_locked(
    source: Frozen, app: MySQLAccess, move: Move
) -> None:
    source.application("mighty")
    source.run("GRANT SYSTEM_USER ON *.* TO mighty@'%'")
    code, error = what_failed(move, "freeze", **freeze(locking("app@%", "mighty@%")))
    assert code == ExitCode.CONFIGURATION
    assert "SYSTEM_USER" in error
    assert not source.is_locked("app")


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (SUPER_READ_ONLY, ("GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'plain'@'%'",)),
        (locking("app@%"), ("GRANT CREATE USER ON", "GRANT PROCESS ON", "GRANT CONNECTION_ADMIN ON")),
    ],
)
def test_the_pre_flight_names_the_rights_that_are_missing(
    source: Frozen, app: MySQLAccess, unprepared: Move, policy: dict[str, Any], named: tuple[str, ...]
) -> None:
    plain = source.application("plain")
    source.run("REVOKE ALL ON *.* FROM plain@'%'", f"GRANT {READING} ON *.* TO plain")
    unprepared.mysql = plain
    code, error = what_failed(unprepared, "preflight", **freeze(policy))
    assert code == ExitCode.CONFIGURATION
    assert all(each in error for each in named)
    assert unprepared.run("preflight")[0] == 0


def test_rights_that_come_by_a_role_count(source: Frozen, app: MySQLAccess, unprepared: Move) -> None:
    plain = source.application("plain")
    source.run(
        "REVOKE ALL ON *.* FROM plain@'%'", f"GRANT {READING} ON *.* TO plain",
        "CREATE ROLE IF NOT EXISTS freezer", "GRANT CREATE USER, PROCESS, CONNECTION_ADMIN ON *.* TO freezer",
        "GRANT freezer TO plain", "SET DEFAULT ROLE freezer TO plain",
    )  # fmt: skip
    unprepared.mysql = plain
    assert unprepared.run("preflight", **freeze(locking("app@%")))[0] == 0


def test_what_is_written_after_the_freeze_is_named_by_table(source: Frozen, database: str, move: Move) -> None:
    source.run(f"CREATE TABLE `{database}`.u (id INT PRIMARY KEY)")
    position = move.run("freeze", freeze={"quietSeconds": 0.1})[1].freeze.position  # type: ignore[union-attr]
    source.run(f"INSERT INTO `{database}`.u VALUES (1), (2), (3)", f"INSERT INTO `{database}`.t (v) VALUES (1)")
    found = move.run("freeze", freeze={"quietSeconds": 0.1, "since": position})[1].freeze
    assert found is not None
    assert found.position != position
    assert found.tables == {f"{database}.t": 1, f"{database}.u": 3}


def test_a_late_freeze_of_an_attempt_that_is_over_does_nothing(source: Frozen, app: MySQLAccess, move: Move) -> None:
    """Its pod was slow to start; meanwhile the cutover was given up, and there was nothing yet to undo."""
    unfreeze(move)
    assert move.run("freeze", **freeze(SUPER_READ_ONLY))[0] == ExitCode.FENCED_OUT
    assert source.read_only() == (False, False)
    assert "freezing" not in steps(move)


def test_after_the_switch_the_source_stays_frozen(source: Frozen, app: MySQLAccess, move: Move) -> None:
    frozen(move, SUPER_READ_ONLY)
    assert move.run("fence", fence={"step": "switched", "planAttempt": 1})[0] == 0
    assert move.run("unfreeze", **UNFREEZE)[0] == 0
    assert source.read_only() == (True, True)
    assert record_of(move).standing_freeze is not None


def test_after_a_rollback_it_is_opened_again(source: Frozen, app: MySQLAccess, move: Move) -> None:
    """No pair from MySQL goes back yet; which entries of the journal count is the same for all sources."""
    frozen(move, SUPER_READ_ONLY)
    assert move.run("fence", fence={"step": "switched", "planAttempt": 1})[0] == 0
    with psycopg.connect(move.conninfo, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO whimbrel.journal (migration, number, step, detail, recorded_at)"
            " SELECT migration, max(number) + 1, %s, '', now() FROM whimbrel.journal GROUP BY migration",
            (ROLLED_BACK,),
        )
    assert move.run("unfreeze", freeze={})[0] == 0
    assert source.read_only() == (False, False)
    assert steps(move)[-2:] == ["unfreezing", "unfrozen"]


def test_another_way_of_freezing_undoes_the_first(source: Frozen, app: MySQLAccess, move: Move) -> None:
    frozen(move, locking("app@%"))
    frozen(move, SUPER_READ_ONLY)
    assert source.read_only() == (True, True)
    assert not source.is_locked("app")
    unfreeze(move)
    assert source.read_only() == (False, False)


def test_an_unfreeze_of_a_server_that_is_away_says_what_to_run_by_hand(
    source: Frozen, app: MySQLAccess, move: Move
) -> None:
    frozen(move, SUPER_READ_ONLY)
    away = move.source()
    away["mysql"]["port"] = 1
    code, report = move.run("unfreeze", source=away, **UNFREEZE)
    assert code == ExitCode.FAILED
    assert report.last_error is not None
    assert "SET GLOBAL read_only = OFF" in report.last_error.todo
    unfreeze(move)


def test_an_unfreeze_does_not_wait_for_locked_tables(source: Frozen, app: MySQLAccess, move: Move) -> None:
    """Its statement would wait on in the server when nobody waits for it any more."""
    frozen(move, locking("app@%"))
    with closing(source.server.connect(read_timeout=20)) as other, other.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        code, report = move.run("unfreeze", **UNFREEZE)
    assert code == ExitCode.FAILED
    assert report.last_error is not None
    assert "ALTER USER 'app'@'%' ACCOUNT UNLOCK" in report.last_error.todo
    unfreeze(move)
    assert not source.is_locked("app")


def test_an_unfreeze_that_is_refused_says_what_to_run_by_hand(source: Frozen, app: MySQLAccess, move: Move) -> None:
    frozen(move, locking("app@%"))
    source.run("REVOKE CREATE USER ON *.* FROM whimbrel@'%'")
    try:
        code, said = what_failed(move, "unfreeze", **UNFREEZE)
    finally:
        source.run("GRANT CREATE USER ON *.* TO whimbrel@'%'")
    assert code == ExitCode.CONFIGURATION
    assert "ALTER USER 'app'@'%' ACCOUNT UNLOCK" in said
    assert source.is_locked("app")
    unfreeze(move)
    assert not source.is_locked("app")
