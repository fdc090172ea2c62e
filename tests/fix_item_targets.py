"""Both kinds of DynamoDB-compatible target, each with tables of its own and no control table left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.item_targets import ItemCase
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.polardb.behaviour import POLARDB

if TYPE_CHECKING:
    from whimbrel_testbed.polardb.server import PolarDBServer


@pytest.fixture
def aws_case(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> Iterator[ItemCase]:
    """DynamoDB Local."""
    made = ItemCase("aws", AWS, dynamodb.endpoint, dynamodb, dynamodb_prefix, tmp_path)
    made.clear()
    yield made
    made.clear()


@pytest.fixture
def polardb_case(polardb: PolarDBServer, polardb_prefix: str, tmp_path: Path) -> Iterator[ItemCase]:
    """The PolarDB stand-in."""
    made = ItemCase("polardb", POLARDB, polardb.endpoint, polardb, polardb_prefix, tmp_path)
    made.clear()
    yield made
    made.clear()


@pytest.fixture(params=["aws_case", "polardb_case"])
def item_case(request: pytest.FixtureRequest) -> ItemCase:
    """Either target."""
    made: ItemCase = request.getfixturevalue(request.param)
    return made
