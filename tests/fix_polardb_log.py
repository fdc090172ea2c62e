"""A real PostgreSQL whose log is read as PolarDB's, and a database on it with a slot's name of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.polardb_log import LOG_SETTINGS, PolarDBLog, polardb_log
from whimbrel_testbed.postgres import PostgresServer, postgres_server

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def log_server() -> Iterator[PostgresServer]:
    """A server of the module's own: its tests stop it and change its settings."""
    with postgres_server(major=16, settings=LOG_SETTINGS) as running:
        yield running


@pytest.fixture
def log(log_server: PostgresServer, tmp_path: Path) -> Iterator[PolarDBLog]:
    """An empty database; its slots go with it."""
    made = polardb_log(log_server, tmp_path / "secret", f"log_{os.getpid()}_{next(_NUMBERS)}")
    yield made
    made.close()
