"""Targets for tests: plain PostgreSQL and the Aurora DSQL stand-in behind the product's own connectors."""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from whimbrel_api.base import SecretKeyRef, SecretRef, Tls, TlsMode
from whimbrel_api.endpoints import AuroraDSQLTarget, PostgreSQLTarget
from whimbrel_testbed.dsql import Control, DSQLServer
from whimbrel_testbed.postgres import PostgresServer
from whimbrel_worker.endpoints.dsql import cluster
from whimbrel_worker.endpoints.postgres import server
from whimbrel_worker.endpoints.postgres.connector import Connector
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.tasks.targets import DSQLConnector
from whimbrel_worker.values.columns import Cell, Column, Kind, Table

ITEMS = Table(
    "shop",
    "items",
    "shop",
    'it"e%ms',
    (
        Column("id", Kind.INTEGER, "bigint", "bigint", nullable=False),
        Column("name", Kind.TEXT, "text", "text"),
        Column("data", Kind.BYTES, "blob", "bytea"),
        Column("price", Kind.DECIMAL, "decimal(5,2)", "numeric(5,2)"),
        Column("weight", Kind.FLOAT64, "double", "double precision"),
    ),
    (0,),
)


@dataclass(frozen=True)
class TargetCase:
    """One target server with what a test needs of it."""

    name: str
    connector: Connector
    profile: Profile
    direct: str
    """A connection string for looking at the real PostgreSQL behind it."""
    control: Control | None
    """The stand-in's dials."""

    def target(self, migration: str = "default/case", epoch: int = 1) -> PostgresTarget:
        return PostgresTarget(self.connector, self.profile, migration, epoch)

    @property
    def dials(self) -> Control:
        assert self.control is not None
        return self.control

    def look(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.direct, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def change(self, statement: str) -> None:
        with psycopg.connect(self.direct, autocommit=True) as connection:
            connection.execute(statement.encode())


def dsql_connector(stand_in: DSQLServer, directory: str) -> DSQLConnector:
    spec = AuroraDSQLTarget(
        endpoint=stand_in.endpoint,
        port=stand_in.port,
        region=stand_in.region,
        database=stand_in.database,
        user=stand_in.user,
        credentials_secret_ref=SecretRef(name="dsql"),
        tls=Tls(ca_secret_ref=SecretKeyRef(name="dsql")),
    )
    return DSQLConnector(cluster.SignIn(spec, Secrets({"dsql": directory})))


def postgres_connector(running: PostgresServer, directory: str) -> server.PostgresConnector:
    spec = PostgreSQLTarget(
        host=running.host,
        port=running.port,
        database="postgres",
        credentials_secret_ref=SecretRef(name="postgres"),
        tls=Tls(mode=TlsMode.DISABLED),
    )
    return server.PostgresConnector(spec, Secrets({"postgres": directory}))


def prepared(case: TargetCase) -> PostgresTarget:
    """The target with control tables, a registered migration and ITEMS."""
    target = case.target()
    target.control().ensure()
    target.control().register("source-1")
    target.schema().create(ITEMS)
    return target


def rows_of(numbers: Iterable[int], name: bytes) -> list[tuple[Cell, ...]]:
    """Rows of ITEMS."""
    return [(number, name, None, b"1.00", 0.5) for number in numbers]
