"""A client of the AWS SDK for any DynamoDB endpoint of the test bed; what is asked of it is the caller's affair."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import botocore.session
from botocore.config import Config

_LOCK: Final = threading.Lock()
_SESSION: Final = botocore.session.Session()
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
_WAIT: Final = {"Delay": 1, "MaxAttempts": 300}


def dynamodb_client(
    facts: Mapping[str, str], *, attempts: int = 8, service: str = "dynamodb", connections: int = 16
) -> Any:
    """Return botocore's client for an endpoint's facts (endpoint, region, accessKeyId, secretAccessKey).

    `attempts`: how often a call is sent at most where the endpoint throttles, fails or is away; `service` may be
    `dynamodbstreams`. The client may be used by several threads.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts}, max_pool_connections=connections,
        connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, proxies={},
    )  # fmt: skip
    with _LOCK:  # Making a client is not safe for threads.
        return _SESSION.create_client(
            service, region_name=facts["region"], endpoint_url=facts["endpoint"],
            aws_access_key_id=facts["accessKeyId"], aws_secret_access_key=facts["secretAccessKey"],
            aws_session_token=facts.get("sessionToken"), config=config,
        )  # fmt: skip


def table_names(client: Any) -> Iterator[str]:
    """Yield the names of all tables there, page after page."""
    for page in client.get_paginator("list_tables").paginate():
        yield from page["TableNames"]


def delete_tables(client: Any, prefix: str) -> None:
    """Delete every table whose name starts with the prefix, and wait until it is gone."""
    for name in [name for name in table_names(client) if name.startswith(prefix)]:
        delete_table(client, name)


def delete_table(client: Any, name: str) -> None:
    """Delete a table and return once it is gone; botocore's WaiterError after five minutes."""
    client.delete_table(TableName=name)
    client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig=_WAIT)


def create_table(client: Any, request: Mapping[str, Any]) -> None:
    """Make a table by a CreateTable request and return once it is active; WaiterError after five minutes."""
    client.create_table(**request)
    client.get_waiter("table_exists").wait(TableName=request["TableName"], WaiterConfig=_WAIT)
