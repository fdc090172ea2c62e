"""Puts a target together from a task file: sign-in, limits and the statements that they share."""

from dataclasses import dataclass

from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dsql import cluster as dsql
from whimbrel_worker.endpoints.postgres import server as postgres
from whimbrel_worker.endpoints.postgres.connector import Connection, Connector, open_connection
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.engine.ports import Profile, Target
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


def _connector(file: TaskFile) -> tuple[Connector, Profile]:
    secrets = Secrets(file.secrets)
    if file.target.aurora_dsql is not None:
        return DSQLConnector(dsql.SignIn(file.target.aurora_dsql, secrets)), dsql.PROFILE
    if file.target.postgresql is not None:
        return postgres.PostgresConnector(file.target.postgresql, secrets), postgres.PROFILE
    raise ConfigurationError("the task names no target that this version knows", where=file.migration)
