"""Puts a source and a target together from a task file: the only place that knows all endpoints."""

from dataclasses import dataclass

from whimbrel_api.tasks import TaskFile

from whimbrel_worker.endpoints.dsql import cluster as dsql
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.endpoints.postgres import server as postgres
from whimbrel_worker.endpoints.postgres.connector import Connection, Connector, open_connection
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.engine.ports import Profile, Source, Target
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets


@dataclass(frozen=True, slots=True)
class DSQLConnector:
    """Opens PostgreSQL connections with Aurora DSQL's sign-in."""

    sign_in: dsql.SignIn

    @property
    def where(self) -> str:
        """The cluster, for messages."""
        return self.sign_in.where

    def connect(self) -> Connection:
        """A new connection with a token of its own."""
        return open_connection(self.where, **self.sign_in.parameters())


def build_target(file: TaskFile) -> Target:
    """The task's target."""
    connector, profile = _connector(file)
    return PostgresTarget(connector, profile, file.migration, file.epoch)


def build_source(file: TaskFile, profile: Profile) -> Source:
    """The task's source; the target's profile says what its tables may look like."""
    if file.source.mysql is None:
        raise ConfigurationError("the task names no source that this version knows", where=file.migration)
    return MySQLSource(file.source.mysql, Secrets(file.secrets), file.tables, profile)


def _connector(file: TaskFile) -> tuple[Connector, Profile]:
    secrets = Secrets(file.secrets)
    if file.target.aurora_dsql is not None:
        return DSQLConnector(dsql.SignIn(file.target.aurora_dsql, secrets)), dsql.PROFILE
    if file.target.postgresql is not None:
        return postgres.PostgresConnector(file.target.postgresql, secrets), postgres.PROFILE
    raise ConfigurationError("the task names no target that this version knows", where=file.migration)
