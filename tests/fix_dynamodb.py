"""DynamoDB endpoints for the tests: one of each kind a test run, and table names of its own for each test."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from support.item_moves import ItemMove, item_move
from whimbrel_testbed.dynamodb.client import delete_tables, dynamodb_client
from whimbrel_testbed.dynamodb.database import memory_directory
from whimbrel_testbed.dynamodb.local import DynamoDBServer, dynamodb_server

if TYPE_CHECKING:
    from whimbrel_testbed.polardb.server import PolarDBServer
    from whimbrel_testbed.streams.server import StreamServer

_NUMBERS = itertools.count(1)
CONTROL = "whimbrel-control"


@contextmanager
def fresh_prefix(facts: Mapping[str, str]) -> Iterator[str]:
    """The start of table names that no other test of this run has; such tables are deleted at the end."""
    prefix = f"t{os.getpid()}-{next(_NUMBERS)}-"
    yield prefix
    delete_tables(dynamodb_client(facts), prefix)


def _lasting(fixture_name: str, config: pytest.Config) -> Literal["session", "module"]:
    """Where its streams grow slower with each record (see database), a server lasts for a module only."""
    return "session" if memory_directory() is not None else "module"


@pytest.fixture(scope=_lasting)
def dynamodb() -> Iterator[DynamoDBServer]:
    """A DynamoDB Local for the whole run or for the module: stop or break one of your own."""
    with dynamodb_server() as server:
        yield server


@pytest.fixture(scope="session")
def polardb() -> Iterator[PolarDBServer]:
    """A PolarDB stand-in for the whole run: turn its dials, or stop it, on one of your own."""
    from whimbrel_testbed.polardb.server import polardb_server

    with polardb_server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_way_back_stays() -> Iterator[None]:
    """What runs have made on the whole run's PolarDB stand-in goes with their test."""
    yield
    if "support.both_ways_run" in sys.modules:
        sys.modules["support.both_ways_run"].clear_servers()


@pytest.fixture(scope=_lasting)
def stream_bed(dynamodb: DynamoDBServer) -> Iterator[StreamServer]:
    """A stream server in front of `dynamodb`, for as long as that: steer the streams of your own tables only."""
    from whimbrel_testbed.streams.server import stream_server

    with stream_server(dynamodb) as server:
        yield server


@pytest.fixture
def dynamodb_prefix(dynamodb: DynamoDBServer) -> Iterator[str]:
    """The start of the names of this test's tables in `dynamodb`; they are deleted after it."""
    with fresh_prefix(dynamodb.facts()) as prefix:
        yield prefix


@pytest.fixture
def polardb_prefix(polardb: PolarDBServer) -> Iterator[str]:
    """The start of the names of this test's tables in `polardb`; they are deleted after it."""
    with fresh_prefix(polardb.facts()) as prefix:
        yield prefix


@pytest.fixture
def stream_prefix(stream_bed: StreamServer) -> Iterator[str]:
    """The start of the names of this test's tables in `stream_bed`; they are deleted after it."""
    with fresh_prefix(stream_bed.facts()) as prefix:
        yield prefix


@pytest.fixture
def moving(stream_bed: StreamServer, polardb: PolarDBServer, stream_prefix: str, tmp_path: Path) -> Iterator[ItemMove]:
    """A move of this test's tables from the stream server to the PolarDB stand-in, whose copies go with it."""
    yield item_move(tmp_path, stream_bed, polardb, stream_prefix)
    client = dynamodb_client(polardb.facts())
    delete_tables(client, stream_prefix)
    delete_tables(client, CONTROL)
