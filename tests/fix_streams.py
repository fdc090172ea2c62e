"""Labs for the change stream: a fresh MySQL database towards PostgreSQL or the Aurora DSQL stand-in."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.streams import Lab, dsql_lab, postgres_lab
from whimbrel_testbed.dsql import DSQLServer
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer


@pytest.fixture
def stream_to_postgres(
    mysql: MySQLServer, mysql_database: str, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> Iterator[Lab]:
    """Towards plain PostgreSQL."""
    with postgres_lab(tmp_path, mysql, mysql_database, postgres, postgres_database) as lab:
        yield lab


@pytest.fixture
def stream_to_dsql(mysql: MySQLServer, mysql_database: str, moves_dsql: DSQLServer, tmp_path: Path) -> Iterator[Lab]:
    """Towards the stand-in; its dials are turned back and the schema is dropped afterwards."""
    before = moves_dsql.control.dials()
    with dsql_lab(tmp_path, mysql, mysql_database, moves_dsql) as lab:
        yield lab
    moves_dsql.control.set(**before)
    with psycopg.connect(moves_dsql.backend_conninfo, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{mysql_database}" CASCADE'.encode())


@pytest.fixture(params=["stream_to_postgres", "stream_to_dsql"])
def lab(request: pytest.FixtureRequest) -> Lab:
    """Either target."""
    made: Lab = request.getfixturevalue(request.param)
    return made
