"""DynamoDB sources as a task would build them, over any endpoint of the test bed, and tables to read from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from whimbrel_api.tasks import TaskFile
from whimbrel_testbed.dynamodb.client import dynamodb_client
from whimbrel_worker.endpoints.dynamodb.calls.access import of_source
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.retries import Patience
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.engine.shard_ports import ShardRow, ShardStore
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.behaviour import Behaviour

Item = dict[str, dict[str, Any]]


class Server(Protocol):
    """An endpoint of the test bed."""

    def facts(self) -> Mapping[str, Any]: ...


class Rows:
    """A ShardStore of which only the listing is asked for."""

    def __init__(self, rows: Sequence[ShardRow]) -> None:
        self._rows = list(rows)

    def all(self) -> list[ShardRow]:
        return self._rows


def source_of(
    server: Server,
    directory: Path,
    *,
    task: str = "preflight",
    store: Callable[[], Any] | None = None,
    patience: Patience | None = None,
    behaviour: Behaviour = AWS,
    **fields: Any,
) -> DynamoDBSource:
    """A source over the endpoint. `fields` are the task file's, in their manifest form: tables, snapshot, mode."""
    facts, secret = server.facts(), directory / "source-keys"
    secret.mkdir(exist_ok=True)
    for name in ("accessKeyId", "secretAccessKey"):
        (secret / name).write_text(facts[name])
    place = {
        "region": facts["region"], "endpoint": facts["endpoint"], "credentialsSecretRef": {"name": "source-keys"},
    }  # fmt: skip
    target = {"endpoint": "http://127.0.0.1:9", "credentialsSecretRef": {"name": "source-keys"}}
    document = {
        "task": task, "taskId": "t", "migration": "test/items", "source": {"dynamodb": place},
        "target": {"dynamodb": target}, "secrets": {"source-keys": str(secret)},
    } | fields  # fmt: skip
    file = TaskFile.model_validate(document)
    assert file.source.dynamodb is not None
    client = Client(of_source(file.source.dynamodb, Secrets(file.secrets)), patience=patience)
    made: Callable[[], ShardStore] | None = store
    return DynamoDBSource(client, behaviour, file, made)


def make_table(server: Server, name: str, *, sort: str = "", stream: str = "", **more: Any) -> Any:
    """Make a table with a partition key pk (S) and perhaps a sort key sk of that type; `more` is CreateTable's."""
    client = dynamodb_client(server.facts())
    keys = [("pk", "S", "HASH"), *([("sk", sort, "RANGE")] if sort else [])]
    request: dict[str, Any] = {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind, _ in keys],
        "KeySchema": [{"AttributeName": key, "KeyType": role} for key, _, role in keys],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if stream:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream}
    request["AttributeDefinitions"] += more.pop("AttributeDefinitions", [])
    client.create_table(**(request | more))
    return client


def put_items(client: Any, table: str, items: Sequence[Item]) -> None:
    """Write items, 25 at a time."""
    for start in range(0, len(items), 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        left = {table: puts}
        while left:
            left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
