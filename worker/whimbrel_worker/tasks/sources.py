"""Puts a source together from a task file. Targets are put together in targets."""

import threading
from typing import Final

from whimbrel_api.endpoints import PolarDBSource as PolarDBSpec
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.calls.access import of_source
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.retries import Patience
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.endpoints.dynamodb.tables.discover import selected
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.endpoints.polardb.source import PolarDBLogSource
from whimbrel_worker.engine.ports import Source, Tally, Target
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets

_PATIENCE_SECONDS: Final = 20.0
"""Shorter than the time after which a worker that does not beat is taken for lost."""


def build_source(file: TaskFile, target: Target, stop: threading.Event, tally: Tally | None = None) -> Source:
    """The task's source; the target says what its tables may look like, and keeps the positions of shards.

    `tally` counts the tries of a source that is asked by requests; those of another the tasks count.
    """
    secrets = Secrets(file.secrets)
    if file.source.mysql is not None:
        return MySQLSource(file.source.mysql, secrets, file.tables, target.profile)
    if file.source.dynamodb is not None:
        access = of_source(file.source.dynamodb, secrets)
        client = Client(access, stop=stop, patience=Patience(_PATIENCE_SECONDS), tally=tally)
        store = target.shards if isinstance(target, DynamoDBTarget) else None
        return DynamoDBSource(client, AWS, file, store)
    if file.source.polardb is not None:
        return _polardb(file, file.source.polardb, secrets, target)
    raise ConfigurationError("the task names no source that this version knows", where=file.migration)


def _polardb(file: TaskFile, spec: PolarDBSpec, secrets: Secrets, target: Target) -> PolarDBLogSource:
    """A log that flows back into the tables of a DynamoDB target."""
    if not isinstance(target, DynamoDBTarget):
        raise ConfigurationError(
            "PolarDB's log flows back into DynamoDB alone",
            where=file.migration,
            why="the task names another target",
            todo="name spec.target.dynamodb",
        )
    return PolarDBLogSource(
        spec,
        secrets,
        file.reverse,
        wanted=file.tables,
        tables=lambda: target.tables(file.tables),
        ignored=lambda name: not selected([name], file.tables),
    )
