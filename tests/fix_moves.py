"""Migrations under test: a fresh MySQL database towards a fresh PostgreSQL database or the Aurora DSQL stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from support.moves import Move
from whimbrel_testbed.dsql import DSQLServer, dsql_server
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer


@pytest.fixture
def postgres_move(
    mysql: MySQLServer, mysql_database: str, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> Move:
    """To plain PostgreSQL; the account is the least privileged one."""
    secret = tmp_path / "postgres"
    secret.mkdir()
    (secret / "username").write_text(postgres.user)
    (secret / "password").write_text(postgres.password)
    target = {
        "postgresql": {
            "host": postgres.host,
            "port": postgres.port,
            "database": postgres_database,
            "credentialsSecretRef": {"name": "postgres"},
            "tls": {"mode": "Disabled"},
        }
    }
    return Move(
        tmp_path,
        target,
        {"postgres": str(secret)},
        tables={"include": [f"{mysql_database}.*"]},
        mysql=mysql.migration,
        conninfo=postgres.conninfo_for(postgres_database),
    )


@contextmanager
def dsql_move_to(stand_in: DSQLServer, mysql: MySQLServer, database: str, directory: Path) -> Iterator[Move]:
    """To the stand-in; its control tables and the database's schema are dropped before and after."""
    secret = directory / "dsql"
    secret.mkdir()
    (secret / "accessKeyId").write_text(stand_in.access_key_id)
    (secret / "secretAccessKey").write_text(stand_in.secret_access_key)
    (secret / "ca.crt").write_bytes(Path(stand_in.ca_file).read_bytes())
    target = {
        "auroraDSQL": {
            "endpoint": stand_in.endpoint,
            "port": stand_in.port,
            "region": stand_in.region,
            "database": stand_in.database,
            "user": stand_in.user,
            "credentialsSecretRef": {"name": "dsql"},
            "tls": {"mode": "VerifyFull", "caSecretRef": {"name": "dsql", "key": "ca.crt"}},
        }
    }

    def clear() -> None:
        with psycopg.connect(stand_in.backend_conninfo, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS whimbrel CASCADE")
            connection.execute(f'DROP SCHEMA IF EXISTS "{database}" CASCADE'.encode())

    clear()
    yield Move(
        directory,
        target,
        {"dsql": str(secret)},
        tables={"include": [f"{database}.*"]},
        mysql=mysql.migration,
        conninfo=stand_in.backend_conninfo,
    )
    clear()


@pytest.fixture(scope="session")
def moves_dsql() -> Iterator[DSQLServer]:
    """A stand-in for whole migrations."""
    with dsql_server() as running:
        yield running


@pytest.fixture
def dsql_move(mysql: MySQLServer, mysql_database: str, moves_dsql: DSQLServer, tmp_path: Path) -> Iterator[Move]:
    """To the Aurora DSQL stand-in; the account is the least privileged one."""
    with dsql_move_to(moves_dsql, mysql, mysql_database, tmp_path) as move:
        yield move


@pytest.fixture(params=["postgres_move", "dsql_move"])
def move(request: pytest.FixtureRequest) -> Move:
    """Either target."""
    made: Move = request.getfixturevalue(request.param)
    return made
