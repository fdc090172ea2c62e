"""Connections to the PostgreSQL that keeps the items, one a thread, and the transactions on them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader

from whimbrel_testbed.polardb.refusals import InvalidError, RefusedError

Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]
_Result = TypeVar("_Result")
_ATTEMPTS = 50


class RacedError(Exception):
    """Another transaction has made the item meanwhile that this one found absent: do it again."""


class _Raw(Loader):
    """A document goes to the client as PostgreSQL wrote it; nobody needs it as an object first."""

    def load(self, data: bytes | bytearray | memoryview) -> bytes:
        return bytes(data)


class Store:
    """The database; a call runs in one thread and uses that thread's connection."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo, self._local = conninfo, threading.local()

    def run(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run single statements in autocommit."""
        return self._guarded(work)

    def transaction(self, work: Callable[[Connection], _Result], *, snapshot: bool = False) -> _Result:
        """Run a transaction, again where it lost a race; `snapshot`: all its reads see one state."""

        def whole(connection: Connection) -> _Result:
            with connection.transaction():
                if snapshot:
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return work(connection)

        return self._guarded(whole)

    def _guarded(self, work: Callable[[Connection], _Result]) -> _Result:
        for _ in range(_ATTEMPTS):
            try:
                return work(self._connection())
            except (RacedError, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                continue
            except psycopg.errors.ProgramLimitExceeded as error:
                raise InvalidError(f"PostgreSQL, which keeps the items, cannot take this one: {error}") from error
            except psycopg.OperationalError as error:
                raise RefusedError("InternalServerError", f"The stand-in's PostgreSQL: {error}", status=500) from error
        raise RefusedError("TransactionConflictException", "Transaction is ongoing for the item", status=400)

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=1)
            connection.adapters.register_loader("jsonb", _Raw)
            self._local.connection = connection
        return connection
