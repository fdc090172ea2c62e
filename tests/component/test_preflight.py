"""The pre-flight's words for everything that can be wrong with source and target: what, where, why, what to do."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.moves import Move
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer, mysql_server
from whimbrel_testbed.processes import free_port


def load(mysql: MySQLServer, database: str | None, *statements: str) -> None:
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def refused(move: Move, *, code: int = 2, **fields: object) -> ReportedError:
    """The pre-flight's error; no part of it may hold the password."""
    found, report = move.run("preflight", **fields)
    error = report.last_error
    assert error is not None
    assert found == code, error
    assert move.mysql.password not in report.model_dump_json()
    for part in (error.what, error.why, error.todo):
        assert part, error
    return error


@pytest.fixture
def ready(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> Move:
    """A migration of one good table."""
    load(mysql, mysql_database, "CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40), at DATETIME(3) NOT NULL)")
    return postgres_move


def test_a_good_pair_is_told_about(ready: Move, mysql: MySQLServer, mysql_database: str) -> None:
    load(mysql, mysql_database, "CREATE TABLE auto (id INT AUTO_INCREMENT PRIMARY KEY)")
    code, report = ready.run("preflight")
    assert code == 0, report.last_error
    result = report.preflight
    assert result is not None
    assert result.write_path == "copy"
    assert result.source_version == mysql.version or mysql.version in result.source_version
    assert "PostgreSQL" in result.target_version
    assert any("AUTO_INCREMENT" in warning for warning in result.warnings)
    assert not result.record.exists
    assert {table.name for table in report.tables} == {f"{mysql_database}.items", f"{mysql_database}.auto"}


# --- sign-in to the source ---


def test_wrong_password(ready: Move) -> None:
    ready.mysql = replace(ready.mysql, password="not-the-password")
    error = refused(ready)
    assert error.category is ErrorCategory.CONFIGURATION
    assert error.what == "the source refused the sign-in"
    assert f"MySQL 127.0.0.1:{ready.mysql.port}" in error.where
    assert "Access denied for user 'whimbrel'" in error.why
    assert "Secret mysql" in error.todo


def test_unreachable_host(ready: Move) -> None:
    ready.mysql = replace(ready.mysql, port=free_port())
    error = refused(ready, code=1)
    assert error.category is ErrorCategory.TRANSIENT
    assert error.what == "the source cannot be reached"
    assert "refused" in error.why.lower()
    assert "network policy" in error.todo


def test_unknown_host(ready: Move) -> None:
    ready.mysql = replace(ready.mysql, host="no-such-host.invalid")
    found, report = ready.run("preflight")
    error = report.last_error
    assert error is not None
    assert found in (1, 2)  # a resolver that cannot answer at all is worth another try
    assert error.what in ("the source's host name is not known", "the source's name cannot be resolved just now")
    assert "no-such-host.invalid" in error.where


def test_wrong_authority(ready: Move, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ready.mysql = replace(ready.mysql, ca_file=str(make_authority(tmp_path / "other").ca_file))
    error = refused(ready)
    assert error.what == "the source's certificate cannot be trusted"
    assert "tls.caSecretRef" in error.todo


def test_certificate_for_another_name(ready: Move) -> None:
    with mysql_server(extra=["--bind-address=127.0.0.1,127.0.0.2"]) as server:
        ready.mysql = replace(server.migration, host="127.0.0.2")
        error = refused(ready)
    assert error.what == "the source's certificate is for another host name"
    assert "127.0.0.2" in error.why
    assert "spec.source.mysql.host" in error.todo


def test_a_missing_secret_key(ready: Move) -> None:
    file = ready.task("preflight")
    (ready.directory / "mysql" / "password").unlink()
    from whimbrel_worker.runner import run_task

    assert run_task(file) == 2
    error = ready.report(file).last_error
    assert error is not None
    assert "Secret mysql has no key password" in error.what


# --- privileges ---


@pytest.fixture
def account(mysql: MySQLServer, mysql_database: str) -> Iterator[MySQLAccess]:
    """An account with no privilege at all."""
    name = f"u_{mysql_database}"
    load(mysql, None, f"CREATE USER '{name}'@'%' IDENTIFIED BY 'S3cret-for-the-test'")
    yield replace(mysql.migration, user=name, password="S3cret-for-the-test")
    load(mysql, None, f"DROP USER '{name}'@'%'")


@pytest.mark.parametrize("missing", ["REPLICATION SLAVE", "REPLICATION CLIENT"])
def test_missing_global_privilege(
    ready: Move, mysql: MySQLServer, mysql_database: str, account: MySQLAccess, missing: str
) -> None:
    other = ({"REPLICATION SLAVE", "REPLICATION CLIENT"} - {missing}).pop()
    load(mysql, None, f"GRANT SELECT, {other} ON *.* TO '{account.user}'@'%'")
    ready.mysql = account
    error = refused(ready)
    assert error.what == f"the account {account.user}@% lacks the privilege {missing}"
    assert f"GRANT {missing} ON *.* TO '{account.user}'@'%'" in error.todo


def test_privileges_that_come_by_a_role_count(
    ready: Move, mysql: MySQLServer, mysql_database: str, account: MySQLAccess
) -> None:
    role = f"r_{mysql_database}"
    load(
        mysql,
        None,
        f"CREATE ROLE '{role}'",
        f"GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{role}'",
        f"GRANT '{role}' TO '{account.user}'@'%'",
        f"SET DEFAULT ROLE '{role}' TO '{account.user}'@'%'",
    )
    ready.mysql = account
    code, report = ready.run("preflight")
    load(mysql, None, f"DROP ROLE '{role}'")
    assert code == 0, report.last_error


def test_tables_that_the_account_may_not_read(
    ready: Move, mysql: MySQLServer, mysql_database: str, account: MySQLAccess
) -> None:
    load(mysql, None, f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{account.user}'@'%'")
    ready.mysql = account
    error = refused(ready)
    assert f"nothing matches {mysql_database}.* of tables.include" in error.what
    assert "GRANT SELECT" in error.todo
    load(mysql, None, f"GRANT INSERT ON `{mysql_database}`.* TO '{account.user}'@'%'")
    error = refused(ready)
    assert error.what == "the account may not read a table that is to move"
    assert f"SELECT command denied to user '{account.user}'" in error.why
    assert "'items'" in error.why


# --- settings: servers of their own ---


def test_everything_wrong_with_a_server_is_told_at_once(ready: Move) -> None:
    with mysql_server(gtid=False, binlog_format="STATEMENT", row_image="MINIMAL") as server:
        load(server, None, f"CREATE DATABASE {ready.tables['include'][0][:-2]}")
        load(server, ready.tables["include"][0][:-2], "CREATE TABLE t (id INT)")
        ready.mysql = server.migration
        error = refused(ready)
    assert "problems" in error.what
    for text in (
        "gtid_mode is OFF, not ON",
        "enforce_gtid_consistency is OFF, not ON",
        "binlog_format is STATEMENT, not ROW",
        "binlog_row_image is MINIMAL, not FULL",
        "the table has no primary key",
        "SET PERSIST binlog_format = ROW",
    ):
        assert text in error.why, text


def test_the_binary_log_is_off(ready: Move) -> None:
    with mysql_server(log_bin=False, gtid=False) as server:
        ready.mysql = server.migration
        error = refused(ready, tables={})
    assert "the binary log is off; in log_bin;" in error.why
    assert "start the server with --log-bin" in error.why


def test_a_purged_log_ends_the_pre_flight_with_its_own_code(ready: Move) -> None:
    with mysql_server() as server:
        database = ready.tables["include"][0][:-2]
        load(server, None, f"CREATE DATABASE {database}", f"CREATE TABLE {database}.t (id INT PRIMARY KEY)")
        ready.mysql = server.migration
        ready.prepare()
        assert ready.run("snapshot")[0] == 0
        load(server, None, f"INSERT INTO {database}.t VALUES (1)", "FLUSH BINARY LOGS")
        load(
            server,
            None,
            "SET GLOBAL binlog_expire_logs_seconds = 2592000",
            "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY",
        )
        error = refused(ready, code=3)
    assert error.category is ErrorCategory.SOURCE_LOG_LOST
    assert "no longer reaches back to the checkpoint" in error.what
    assert "were purged before they were read" in error.why
    assert "begin a new migration" in error.todo


# --- tables ---


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("id INT", "the table has no primary key"),
        ("id INT PRIMARY KEY, doc JSON", "column doc has the type json, which cannot be carried"),
        ("id INT PRIMARY KEY, e ENUM('a','b')", "column e has the type enum('a','b'), which cannot be carried"),
        ("id DOUBLE PRIMARY KEY", "key column id is a floating-point number"),
    ],
)
def test_tables_that_cannot_be_carried(
    ready: Move, mysql: MySQLServer, mysql_database: str, definition: str, words: str
) -> None:
    load(mysql, mysql_database, f"CREATE TABLE bad ({definition})")
    error = refused(ready)
    assert words in error.what
    assert error.where.startswith(f"{mysql_database}.bad")
    assert "tables." in error.todo
    assert ready.run("preflight", tables={"include": [f"{mysql_database}.*"], "exclude": ["*.bad"]})[0] == 0


# --- the target ---


def existing(move: Move, database: str, definition: str) -> None:
    move.look(f'CREATE SCHEMA "{database}"')
    move.look(f'CREATE TABLE "{database}".items ({definition})')


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("id integer primary key, name varchar(40)", "column at is missing there"),
        ("id bigint primary key, name varchar(40), at timestamp(3)", "column id is bigint there, integer (int) here"),
        ("id integer primary key, name varchar(39), at timestamp(3)", "column name is character varying(39) there"),
        ("id integer primary key, name varchar(40) not null, at timestamp(3)", "column name is NOT NULL there"),
        ("id integer, name varchar(40) primary key, at timestamp(3)", "the primary key is (name) there, (id) here"),
        (
            "id integer primary key, name varchar(40), at timestamp(3), x int not null",
            "column x is NOT NULL there and missing",
        ),
    ],
)
def test_a_target_table_that_differs(ready: Move, mysql_database: str, definition: str, words: str) -> None:
    existing(ready, mysql_database, definition)
    error = refused(ready)
    text = error.sentence()
    assert f"the target's table {mysql_database}.items differs from {mysql_database}.items: " in text
    assert words in text
    assert "renameTo" in error.sentence()


def test_a_target_table_that_fits_is_used(ready: Move, mysql_database: str) -> None:
    existing(ready, mysql_database, "at timestamp(3) NOT NULL, name varchar(40), id integer primary key, more text")
    code, report = ready.run("preflight")
    assert code == 0, report.last_error
    assert report.preflight is not None
    assert any("column more is on the target only" in warning for warning in report.preflight.warnings)


def test_a_target_table_with_rows_of_somebody_else(ready: Move, mysql_database: str) -> None:
    existing(ready, mysql_database, "id integer primary key, name varchar(40), at timestamp(3) NOT NULL")
    ready.look(f"INSERT INTO \"{mysql_database}\".items VALUES (1, 'x', now()) RETURNING 1")
    error = refused(ready)
    assert f"the target's table {mysql_database}.items holds rows that this migration did not write" in error.what


def test_a_missing_table_where_tables_are_to_exist(ready: Move, mysql_database: str) -> None:
    error = refused(ready, schema={"mode": "Existing"})
    assert error.what == f"the target has no table {mysql_database}.items"
    assert "CreateIfMissing" in error.todo


def test_a_migration_of_that_name_from_another_source(ready: Move) -> None:
    ready.prepare()
    with mysql_server() as other:
        database = ready.tables["include"][0][:-2]
        load(
            other,
            None,
            f"CREATE DATABASE {database}",
            f"CREATE TABLE {database}.items (id INT PRIMARY KEY, name VARCHAR(40), at DATETIME(3) NOT NULL)",
        )
        ready.mysql = other.migration
        error = refused(ready)
    assert "already holds a migration of that name from another source" in error.what
    assert "another name" in error.todo


def test_problems_of_both_sides_are_told_together(ready: Move) -> None:
    ready.mysql = replace(ready.mysql, password="wrong")
    Path(ready.secrets["postgres"], "password").write_text("wrong as well")
    error = refused(ready)
    assert error.what == "the pre-flight found 2 problems"
    assert "(1) the source refused the sign-in" in error.why
    assert "(2) the target refused the sign-in" in error.why


def test_a_second_look_after_the_work_has_begun_is_fine(ready: Move, mysql: MySQLServer, mysql_database: str) -> None:
    load(mysql, mysql_database, "INSERT INTO items VALUES (1, 'a', NOW())")
    ready.prepare()
    assert ready.run("snapshot")[0] == 0
    code, report = ready.run("preflight")
    assert code == 0, report.last_error
    assert report.preflight is not None
    assert report.preflight.record.snapshot_complete


def test_cascades_that_the_log_does_not_hold(ready: Move) -> None:
    with mysql_server(extra=["--innodb-native-foreign-keys=ON"]) as server:
        load(
            server,
            None,
            "CREATE DATABASE family",
            "CREATE TABLE family.parents (id INT PRIMARY KEY)",
            "CREATE TABLE family.children (id INT PRIMARY KEY, parent INT,"
            " FOREIGN KEY (parent) REFERENCES family.parents (id) ON DELETE CASCADE)",
            "CREATE TABLE family.friends (id INT PRIMARY KEY, parent INT,"
            " FOREIGN KEY (parent) REFERENCES family.parents (id))",
        )
        ready.mysql = server.migration
        error = refused(ready, tables={"include": ["family.*"]})
    assert "a foreign key changes rows of this table without a word" in error.what
    assert error.where == "family.children"
    assert "RESTRICT" in error.todo


def test_cascades_that_the_log_holds_are_only_named(ready: Move, mysql: MySQLServer, mysql_database: str) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE parents (id INT PRIMARY KEY)",
        "CREATE TABLE children (id INT PRIMARY KEY, parent INT,"
        " FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
    )
    code, report = ready.run("preflight")
    assert code == 0, report.last_error
    assert report.preflight is not None
    assert any("foreign keys are not carried" in warning for warning in report.preflight.warnings)


def test_compressed_transactions_are_refused_before_the_copy(ready: Move) -> None:
    with mysql_server(extra=["--binlog-transaction-compression=ON"]) as server:
        ready.mysql = server.migration
        error = refused(ready, tables={})
    assert "transactions in the binary log are compressed; in binlog_transaction_compression" in error.why
    assert "SET PERSIST binlog_transaction_compression = OFF" in error.why + error.todo
