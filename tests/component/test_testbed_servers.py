"""The test bed's servers: they start, are verified by their clients, and leave nothing behind, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer, mysql_server
from whimbrel_testbed.postgres import PostgresServer, postgres_server
from whimbrel_testbed.provision import mysql_client_command, mysqlbinlog_command


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def query(server: MySQLServer | MySQLAccess, statement: str) -> Any:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def test_mysql_is_set_up_for_a_migration(mysql: MySQLServer) -> None:
    (row,) = query(mysql, "SELECT @@gtid_mode, @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata")
    assert row == ("ON", 1, "ROW", "FULL", "FULL")
    (row,) = query(mysql.migration, "SHOW GRANTS")
    assert row == ("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `whimbrel`@`%`",)
    assert mysql.password not in repr(mysql)
    assert mysql.migration.password not in repr(mysql)


def test_mysql_is_verified_by_tls(mysql: MySQLServer, tmp_path: Path) -> None:
    ((_, version),) = query(mysql, "SHOW SESSION STATUS LIKE 'Ssl_version'")
    assert version.startswith("TLSv1.")
    stranger = make_authority(tmp_path)
    access = MySQLAccess(mysql.host, mysql.port, mysql.user, mysql.password, str(stranger.ca_file))
    with pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        access.connect()


def test_mysql_options_are_heeded_and_data_outlive_a_crash() -> None:
    with mysql_server(gtid=False, row_image="MINIMAL", extra=["--default-time-zone=+02:00"]) as server:
        directory, pid = server.data_directory.parent, server.pid
        (row,) = query(server, "SELECT @@gtid_mode, @@binlog_row_image, @@time_zone")
        assert row == ("OFF", "MINIMAL", "+02:00")
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE kept")
        server.kill()
        server.start()
        assert query(server, "SHOW DATABASES LIKE 'kept'")
        server.suspend()
    assert is_gone(pid)
    assert not directory.exists()


def test_mysql_tools_talk_to_it(mysql: MySQLServer) -> None:
    place = [f"--host={mysql.host}", f"--port={mysql.port}", f"--user={mysql.user}", f"--ssl-ca={mysql.ca_file}"]
    secret = {**os.environ, "MYSQL_PWD": mysql.password}
    command = [*mysql_client_command(), *place, "--ssl-mode=VERIFY_IDENTITY", "-N", "-e", "SELECT 40 + 2"]
    assert subprocess.run(command, env=secret, capture_output=True, check=True, text=True).stdout == "42\n"
    command = [*mysqlbinlog_command(), *place, "--read-from-remote-server", "binlog.000001"]
    # Statements stand in the log in the character sets of those who sent them.
    dump = subprocess.run(command, env=secret, capture_output=True, check=True).stdout.decode(errors="replace")
    assert "# at 4" in dump


@pytest.mark.parametrize("major", [18, 16])
def test_postgres_is_set_up(major: int) -> None:
    with postgres_server(major=major, settings={"max_connections": "17"}) as server:
        pid, directory = server.pid, Path(server.connect().execute("SHOW data_directory").fetchall()[0][0]).parent
        assert server.version.startswith(f"{major}.")
        shown = [
            server.connect().execute(f"SHOW {name}").fetchone() for name in ("max_connections", "wal_level", "timezone")
        ]
        assert shown == [("17",), ("logical",), ("UTC",)]
        wrong = server.conninfo.replace(server.password, "wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        server.restart()
        assert server.connect().execute("SELECT 1").fetchone() == (1,)
        assert server.password not in repr(server)
    assert is_gone(pid)
    assert not directory.exists()


def test_postgres_databases_are_fresh(postgres: PostgresServer, postgres_database: str) -> None:
    with postgres.connect(postgres_database) as connection:
        row = connection.execute(
            "SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s", [postgres_database]
        )
        assert row.fetchone() == ("C", "UTF8")


@contextmanager
def command(kind: str, scratch: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command line's server with temporary files under `scratch`, and what it printed."""
    scratch.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "whimbrel_testbed", kind], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary directory with a short path that every account may enter."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="wbt-") as path:
        yield Path(path)


@pytest.mark.parametrize("kind", ["mysql", "postgres"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_serves_and_leaves_nothing_behind(kind: str, number: signal.Signals, scratch: Path) -> None:
    with command(kind, scratch) as (process, facts):
        if kind == "mysql":
            access = MySQLAccess(facts["host"], facts["port"], facts["user"], facts["password"], facts["caFile"])
            assert query(access, "SELECT 1") == ((1,),)
        else:
            with psycopg.connect(facts["conninfo"]) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        assert any(scratch.iterdir())
        process.send_signal(number)
        assert process.wait(30) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        wait_for(lambda: is_gone(facts["pid"]), f"the end of process {facts['pid']}")
        wait_for(lambda: not any(scratch.iterdir()), f"an empty {scratch}: {list(scratch.iterdir())}")


def test_a_command_interrupted_while_it_starts_leaves_nothing_behind(scratch: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        [sys.executable, "-m", "whimbrel_testbed", "mysql"], env=environment, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: any(scratch.glob("whimbrel-mysql-*/server.log")), "the start of the server")
    process.terminate()
    assert process.wait(30) == 0
    assert list(scratch.iterdir()) == []


def test_a_wrong_command_is_explained() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whimbrel_testbed", "oracle"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage:" in done.stderr
