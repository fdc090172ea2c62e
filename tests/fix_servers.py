"""Real servers for the tests: one of each kind a test run, and a fresh database a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg import sql

from whimbrel_testbed.mysql import MySQLServer, mysql_server
from whimbrel_testbed.postgres import PostgresServer, postgres_server

_NUMBERS = itertools.count(1)


def fresh_name() -> str:
    """A database name that no other test of this run has."""
    return f"t{os.getpid()}_{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def mysql() -> Iterator[MySQLServer]:
    """A MySQL server for the whole run: leave its settings and accounts as they are; stop or break one of your own."""
    with mysql_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run: leave its settings as they are; stop or break one of your own."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def mysql_database(mysql: MySQLServer) -> Iterator[str]:
    """The name of an empty database in `mysql`, dropped after the test."""
    name = fresh_name()
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{name}`")
        yield name
        cursor.execute(f"DROP DATABASE `{name}`")


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database in `postgres`, dropped after the test."""
    name = fresh_name()
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield name
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
