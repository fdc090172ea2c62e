"""Puts a source together from a task file. Targets are put together in targets."""

import threading
from typing import Final

from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.calls.access import of_source
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.retries import Patience
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.engine.ports import Source, Target
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets

_PATIENCE_SECONDS: Final = 20.0
"""Shorter than the time after which a worker that does not beat is taken for lost."""


def build_source(file: TaskFile, target: Target, stop: threading.Event) -> Source:
    """The task's source; the target says what its tables may look like, and keeps the positions of shards."""
    secrets = Secrets(file.secrets)
    if file.source.mysql is not None:
        return MySQLSource(file.source.mysql, secrets, file.tables, target.profile)
    if file.source.dynamodb is not None:
        client = Client(of_source(file.source.dynamodb, secrets), stop=stop, patience=Patience(_PATIENCE_SECONDS))
        store = target.shards if isinstance(target, DynamoDBTarget) else None
        return DynamoDBSource(client, AWS, file, store)
    raise ConfigurationError("the task names no source that this version knows", where=file.migration)
