"""Targets under test: the same tests run against plain PostgreSQL and the Aurora DSQL stand-in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.targets import TargetCase, dsql_connector, postgres_connector
from whimbrel_testbed.dsql import DSQLServer, dsql_server
from whimbrel_testbed.postgres import PostgresServer, postgres_server
from whimbrel_worker.endpoints.dsql import cluster
from whimbrel_worker.endpoints.postgres import server


@pytest.fixture(scope="session")
def dsql() -> Iterator[DSQLServer]:
    with dsql_server() as running:
        yield running


@pytest.fixture(scope="session")
def plain_postgres() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def cleared(case: TargetCase) -> TargetCase:
    case.change("DROP SCHEMA IF EXISTS whimbrel CASCADE")
    case.change("DROP SCHEMA IF EXISTS shop CASCADE")
    return case


@pytest.fixture
def dsql_case(dsql: DSQLServer, tmp_path_factory: pytest.TempPathFactory) -> TargetCase:
    """The stand-in without control tables and without the tables of an earlier test."""
    directory = tmp_path_factory.mktemp("secret")
    (directory / "accessKeyId").write_text(dsql.access_key_id)
    (directory / "secretAccessKey").write_text(dsql.secret_access_key)
    (directory / "ca.crt").write_bytes(Path(dsql.ca_file).read_bytes())
    connector = dsql_connector(dsql, str(directory))
    return cleared(TargetCase("dsql", connector, cluster.PROFILE, dsql.backend_conninfo, dsql.control))


@pytest.fixture
def postgres_case(plain_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> TargetCase:
    """Plain PostgreSQL without control tables and without the tables of an earlier test."""
    directory = tmp_path_factory.mktemp("secret")
    (directory / "username").write_text(plain_postgres.user)
    (directory / "password").write_text(plain_postgres.password)
    connector = postgres_connector(plain_postgres, str(directory))
    direct = plain_postgres.conninfo_for("postgres")
    return cleared(TargetCase("postgresql", connector, server.PROFILE, direct, None))


@pytest.fixture(params=["postgres_case", "dsql_case"])
def case(request: pytest.FixtureRequest) -> TargetCase:
    """Either target."""
    made: TargetCase = request.getfixturevalue(request.param)
    return made
