"""Starting and stopping the stream server: its process, and the DynamoDB Local behind it where none is given."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from whimbrel_testbed.dynamodb.local import dynamodb_server
from whimbrel_testbed.processes import HOST
from whimbrel_testbed.standins import standin_process
from whimbrel_testbed.streams.control import CONTROL_PATH, Control


class Upstream(Protocol):
    """A DynamoDB endpoint with streams, such as dynamodb.local.DynamoDBServer."""

    @property
    def endpoint(self) -> str:
        """`http://host:port`."""

    @property
    def region(self) -> str:
        """The region to sign for."""

    @property
    def access_key_id(self) -> str:
        """Half of the key pair."""

    @property
    def secret_access_key(self) -> str:
        """The other half."""


@dataclass(frozen=True)
class StreamServer:
    """A running stream server: one endpoint for DynamoDB and DynamoDB Streams, and its control."""

    endpoint: str
    region: str
    access_key_id: str
    control: Control
    seed: int
    secret_access_key: str = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """All that a client needs, secrets included, as the command line prints it."""
        return {
            "kind": "streams", "endpoint": self.endpoint, "region": self.region, "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key, "control": self.control.url, "seed": self.seed,
        }  # fmt: skip


@contextmanager
def stream_server(upstream: Upstream | None = None, *, seed: int | None = None) -> Iterator[StreamServer]:
    """Run a stream server before `upstream`, or before a DynamoDB Local of its own, until the context ends.

    `seed` draws sequence numbers and names of shards; without one it is drawn, and stands in the server's `seed`.
    Raises TestbedError where one of the servers does not start.
    """
    if upstream is None:
        with dynamodb_server() as own, stream_server(own, seed=seed) as server:
            yield server
        return
    chosen = random.randrange(2**31) if seed is None else seed  # noqa: S311
    keys = {"access_key_id": upstream.access_key_id, "secret_access_key": upstream.secret_access_key}
    behind = {"endpoint": upstream.endpoint, "region": upstream.region, **keys}
    with standin_process(
        "whimbrel_testbed.streams.proxy", "the stream server", {"upstream": behind, "seed": chosen}
    ) as port:
        endpoint = f"http://{HOST}:{port}"
        yield StreamServer(endpoint, upstream.region, control=Control(endpoint + CONTROL_PATH), seed=chosen, **keys)
