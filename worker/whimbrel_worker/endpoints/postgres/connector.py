"""Connections to a PostgreSQL server and what is said when they fail. No statement is made here."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from whimbrel_worker.endpoints.postgres.failures import translate_sign_in

Connection = psycopg.Connection[tuple[Any, ...]]


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


def open_connection(where: str, **parameters: Any) -> Connection:
    """Connect with libpq parameters; errors come out as the worker's own."""
    try:
        connection = psycopg.connect(
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=10,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=45_000,
            application_name="whimbrel",
            **parameters,
        )
    except psycopg.Error as error:
        raise translate_sign_in(error, where) from None
    connection.adapters.register_dumper(Literal, _LiteralDumper)
    return connection
