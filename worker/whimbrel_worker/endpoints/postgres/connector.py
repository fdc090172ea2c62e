"""Connections to a PostgreSQL server and what is said when they fail. No statement is made here."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from whimbrel_worker.endpoints.postgres.failures import translate_sign_in
from whimbrel_worker.libpq import Connection, open_libpq


class Literal(bytes):
    """Bytes that are a value's text form already: sent as they stand, typed by the statement's cast."""


class _LiteralDumper(psycopg.adapt.Dumper):
    oid = 0

    def dump(self, obj: bytes) -> bytes:
        return obj


class Connector(Protocol):
    """Makes signed-in connections. `where` names the server for messages."""

    @property
    def where(self) -> str:
        """The server, for messages."""

    def connect(self) -> Connection:
        """A new connection, autocommit on. Raises ConfigurationError or Transient."""


@dataclass(slots=True)
class Opened:
    """A connection with its age."""

    connection: Connection
    since: float = field(default_factory=time.monotonic)

    def age(self) -> float:
        """Seconds since it was opened."""
        return time.monotonic() - self.since

    def broken(self) -> bool:
        """Whether it has ended, or is in a state that nobody knows."""
        return self.connection.closed or self.connection.broken


class Kept:
    """One connection for many uses: made when first asked for, and anew once it has ended or is older than `max_age`.

    `max_age` in seconds; `noticed` hears of each new one. Each use begins with `get`; what it gives is not to be held
    over several transactions.
    """

    def __init__(self, connector: Connector, max_age: float, noticed: Callable[[], None] | None = None) -> None:
        self._connector, self._max_age, self._noticed = connector, max_age, noticed
        self._opened: Opened | None = None

    def get(self) -> Connection:
        """The connection. Raises what the connector raises."""
        if self._opened is not None and (self._opened.broken() or self._opened.age() > self._max_age):
            self.close()
        if self._opened is None:
            self._opened = Opened(self._connector.connect())
            if self._noticed is not None:
                self._noticed()
        return self._opened.connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(psycopg.Error):
                opened.connection.close()


def open_connection(where: str, **parameters: Any) -> Connection:
    """Connect with libpq parameters; errors come out as the worker's own."""
    try:
        connection = open_libpq(**parameters)
    except psycopg.Error as error:
        raise translate_sign_in(error, where) from None
    connection.adapters.register_dumper(Literal, _LiteralDumper)
    return connection
