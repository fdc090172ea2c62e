"""A database behind PolarDB's endpoint for tests of what reads its log: tables of items, a publication and a slot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psycopg
from psycopg import sql

from whimbrel_api.base import SecretRef, Tls, TlsMode
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_testbed.postgres import PostgresServer
from whimbrel_worker.endpoints.polardb.connect import PolarDBConnector
from whimbrel_worker.endpoints.polardb.log.changes import Committed, Event, Marker
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream, Wanted
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.errors import Transient
from whimbrel_worker.secrets import Secrets

T = TypeVar("T")
DEADLINE_SECONDS = 30.0
LOG_SETTINGS = {"synchronous_commit": "on", "max_replication_slots": "20", "max_wal_senders": "20"}


@dataclass
class PolarDBLog:
    """One database with its names; `position` is where the slot began."""

    server: PostgresServer
    connector: PolarDBConnector
    slot: str
    published: str = "changes"
    position: int = 0

    @property
    def owner(self) -> str:
        return f"test/{self.slot}"

    def sql(self, statement: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        with self.server.connect(self.connector.spec.database) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def prepare(self, table: str = "items") -> PolarDBLog:
        """A table in the stand-in's layout, a publication for all tables, the slot."""
        self.sql(
            f'CREATE TABLE "{table}" (s text COLLATE "C", n numeric, polardb_document jsonb NOT NULL, '
            "PRIMARY KEY (s, n))"
        )
        with self.connector.connect() as connection:
            mark = publication.Mark(self.owner, self.slot)
            publication.create(connection, self.published, mark, None, self.connector.where)
            self.position = slots.create(connection, self.slot, self.connector.where)
        return self

    def put(self, name: str, number: int, value: Any = 0, table: str = "items") -> None:
        self.sql(
            f'INSERT INTO "{table}" VALUES (%s, %s, %s) '
            "ON CONFLICT (s, n) DO UPDATE SET polardb_document = EXCLUDED.polardb_document",
            (name, number, document(name, number, value)),
        )

    def wanted(self, position: int | None = None) -> Wanted:
        return Wanted(self.slot, (self.published,), self.position if position is None else position)

    def stream(self, position: int | None = None) -> ReplicationStream:
        """A stream; waits until the server has noticed that the one before ended."""
        return eventually(lambda: ReplicationStream(self.connector, self.wanted(position)))

    def health(self) -> slots.SlotHealth:
        with self.connector.connect() as connection:
            found = slots.look(connection, self.slot, self.connector.where)
        assert found is not None
        return found

    def beat(self, content: str = "end") -> int:
        with self.connector.connect() as connection:
            return slots.beat(connection, content, self.connector.where)

    def with_account(self, directory: Path, user: str, password: str) -> PolarDBLog:
        return replace(self, connector=connector(self.server, self.connector.spec.database, directory, user, password))

    def close(self) -> None:
        """Drop slot and database, whatever the test left of them."""
        name = self.connector.spec.database
        with self.server.connect() as connection:
            found = connection.execute("SELECT slot_name FROM pg_replication_slots WHERE database = %s", (name,))
            for (slot,) in found.fetchall():
                slots.drop(connection, slot, name, terminate=True)
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def document(name: str, number: int, value: Any = 0) -> str:
    return orjson.dumps({"s": {"S": name}, "n": {"N": str(number)}, "v": {"S": str(value)}}).decode()


def connector(server: PostgresServer, database: str, directory: Path, user: str, password: str) -> PolarDBConnector:
    directory.mkdir(exist_ok=True)
    (directory / "username").write_text(user)
    (directory / "password").write_text(password)
    spec = PolarDBSource(
        host=server.host, port=server.port, database=database, credentials_secret_ref=SecretRef(name="back"),
        tls=Tls(mode=TlsMode.DISABLED),
    )  # fmt: skip
    return PolarDBConnector(spec, Secrets({"back": str(directory)}))


def polardb_log(server: PostgresServer, directory: Path, name: str) -> PolarDBLog:
    """An empty database of this name, which its slot has, too."""
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return PolarDBLog(server, connector(server, name, directory, server.user, server.password), name)


def eventually(action: Callable[[], T]) -> T:
    """The action's result once it raises nothing that passes."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return action()
        except (Transient, psycopg.errors.ObjectInUse):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def read_until(stream: ReplicationStream, wanted: Callable[[list[Event]], bool]) -> list[Event]:
    """Events until they are what is wanted."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted(events):
        assert time.monotonic() < deadline, f"only this came: {events[-20:]}"
        events += stream.poll(1.0)
    return events


def read_to_marker(stream: ReplicationStream, content: str = "end") -> list[Event]:
    """Events up to the commit of a heartbeat; the heartbeat and its commit left out."""
    events = read_until(stream, lambda seen: _marker_place(seen, content) is not None and _ended(seen))
    place = _marker_place(events, content)
    assert place is not None
    return events[:place]


def _ended(events: list[Event]) -> bool:
    return isinstance(events[-1], Committed)


def _marker_place(events: list[Event], content: str) -> int | None:
    places = [
        place for place, event in enumerate(events) if isinstance(event, Marker) and event.content == content.encode()
    ]
    return places[0] if places else None


def commits(events: Sequence[Event]) -> list[int]:
    return [event.end_lsn for event in events if isinstance(event, Committed)]
