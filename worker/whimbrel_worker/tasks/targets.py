"""Puts a target together from a task file: sign-in, limits and the statements that they share."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from whimbrel_api.endpoints import Dialect
from whimbrel_api.endpoints import DynamoDBTarget as DynamoDBTargetSpec
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dsql import cluster as dsql
from whimbrel_worker.endpoints.dynamodb.calls.access import of_target
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget, TargetOptions
from whimbrel_worker.endpoints.polardb.behaviour import POLARDB
from whimbrel_worker.endpoints.postgres import server as postgres
from whimbrel_worker.endpoints.postgres.connector import Connector, open_connection
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.engine.ports import Profile, Target
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.libpq import Connection
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.behaviour import Behaviour


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


_BEHAVIOURS: Final[Mapping[Dialect, Behaviour]] = {Dialect.AWS: AWS, Dialect.POLARDB: POLARDB}


def build_target(file: TaskFile, stop: threading.Event) -> Target:
    """The task's target. `stop` ends its waiting between two tries."""
    secrets = Secrets(file.secrets)
    if file.target.dynamodb is not None:
        return _item_target(file, file.target.dynamodb, secrets, stop)
    connector, profile = _connector(file, secrets)
    return PostgresTarget(connector, profile, file.migration, file.epoch)


def _item_target(file: TaskFile, spec: DynamoDBTargetSpec, secrets: Secrets, stop: threading.Event) -> DynamoDBTarget:
    limit = file.snapshot.capacity_limit
    units = limit.write_units_per_second if limit is not None else None
    options = TargetOptions(
        fenced_writes=spec.fenced_writes,
        recreate=frozenset(file.schema_.recreate),
        write_units_per_second=units / file.workers if units else None,
    )
    client = Client(of_target(spec, secrets), stop=stop)
    return DynamoDBTarget(client, _BEHAVIOURS[spec.dialect], options, file.migration, file.epoch)


def _connector(file: TaskFile, secrets: Secrets) -> tuple[Connector, Profile]:
    if file.target.aurora_dsql is not None:
        return DSQLConnector(dsql.SignIn(file.target.aurora_dsql, secrets)), dsql.PROFILE
    if file.target.postgresql is not None:
        return postgres.PostgresConnector(file.target.postgresql, secrets), postgres.PROFILE
    raise ConfigurationError("the task names no target that this version knows", where=file.migration)
