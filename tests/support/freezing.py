"""A MySQL server whose writers may be stopped, with the accounts of an application, and moves from it. For tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from support.moves import Move, Tasks
from whimbrel_api.reports import Record
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer, mysql_server
from whimbrel_testbed.postgres import PostgresServer

RIGHTS = "SYSTEM_VARIABLES_ADMIN, CREATE USER, PROCESS, CONNECTION_ADMIN"
SUPER_READ_ONLY = {"method": "SuperReadOnly"}


def locking(*accounts: str) -> dict[str, Any]:
    """spec.cutover.freeze for these accounts."""
    return {"method": "LockAccounts", "accounts": list(accounts)}


@dataclass
class Frozen:
    """A server of one's own whose `migration` account may stop the writers."""

    server: MySQLServer

    def run(self, *statements: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """As the administrator; the last one's rows."""
        rows: list[tuple[Any, ...]] = []
        with closing(self.server.connect(read_timeout=20)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, arguments or None)
                rows = list(cursor.fetchall())
        return rows

    def make(self, database: str) -> None:
        """A database with a table `t`."""
        columns = "id INT AUTO_INCREMENT PRIMARY KEY, v INT"
        self.run(f"CREATE DATABASE `{database}`", f"CREATE TABLE `{database}`.t ({columns})")

    def application(self, user: str = "app", host: str = "%") -> MySQLAccess:
        """An account that may write everywhere, made anew."""
        password = secrets.token_urlsafe(12)
        self.run("DROP USER IF EXISTS %s@%s", arguments=(user, host))
        self.run("CREATE USER %s@%s IDENTIFIED BY %s", arguments=(user, host, password))
        self.run("GRANT SELECT, INSERT, UPDATE, DELETE, LOCK TABLES ON *.* TO %s@%s", arguments=(user, host))
        return MySQLAccess(self.server.host, self.server.port, user, password, self.server.ca_file)

    def is_locked(self, user: str, host: str = "%") -> bool:
        rows = self.run("SELECT account_locked FROM mysql.user WHERE User = %s AND Host = %s", arguments=(user, host))
        return str(rows[0][0]) == "Y"

    def read_only(self) -> tuple[bool, bool]:
        read_only, super_read_only = self.run("SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only")[0]
        return bool(read_only), bool(super_read_only)

    def open(self) -> None:
        """As at the beginning."""
        self.run("SET GLOBAL read_only = OFF")


@contextmanager
def freezable() -> Iterator[Frozen]:
    """A server of one's own."""
    with mysql_server(extra=["--performance-schema=ON"]) as server:
        frozen = Frozen(server)
        frozen.run(f"GRANT {RIGHTS} ON *.* TO %s@%s", arguments=(server.migration.user, "%"))
        yield frozen


def postgres_target(
    mysql: MySQLAccess, database: str, postgres: PostgresServer, postgres_database: str, directory: Path
) -> Move:
    """A migration of that database by this account, to a PostgreSQL database."""
    target = {
        "postgresql": {
            "host": postgres.host,
            "port": postgres.port,
            "database": postgres_database,
            "credentialsSecretRef": {"name": "postgres"},
            "tls": {"mode": "Disabled"},
        }
    }
    move = Move(
        directory, target, {}, tables={"include": [f"{database}.*"]}, mysql=mysql,
        conninfo=postgres.conninfo_for(postgres_database),
    )  # fmt: skip
    move.secret("postgres", username=postgres.user, password=postgres.password)
    return move


def can_write(access: MySQLAccess, database: str) -> bool:
    """Whether the account can sign in and write now."""
    try:
        with closing(access.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO t (v) VALUES (1)")
    except pymysql.err.MySQLError:
        return False
    return True


def record_of(move: Tasks) -> Record:
    """What the target's control tables say."""
    code, report = move.run("inspect")
    assert code == 0, report.last_error
    assert report.record is not None
    return report.record


def steps(move: Tasks) -> list[str]:
    """The journal's steps in order."""
    return [entry.step for entry in record_of(move).journal]


def what_failed(move: Tasks, kind: str, **fields: Any) -> tuple[int, str]:
    """Run a task that must fail: its exit code and what it says."""
    code, report = move.run(kind, **fields)
    if report.last_error is None:
        pytest.fail(f"{kind} did not fail")
    return code, report.last_error.sentence()
