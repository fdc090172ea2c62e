"""The stream of a logical replication slot over libpq: start, reading, acknowledging, end. No message is decoded here.

Protocol: PostgreSQL manual, "Streaming Replication Protocol". psycopg has no interface of its own for it, so this works
on psycopg.pq; every wait here has an end.
"""

from __future__ import annotations

import select
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import pq

from whimbrel_worker.endpoints.polardb.connect import PolarDBConnector
from whimbrel_worker.endpoints.polardb.failures import guarded, publication_missing, translate_stream
from whimbrel_worker.endpoints.polardb.log.changes import Assembler, Committed, Event
from whimbrel_worker.endpoints.polardb.log.commit_ends import CommitEnds
from whimbrel_worker.endpoints.polardb.log.lsn import parse_lsn
from whimbrel_worker.endpoints.polardb.log.pgoutput import decode
from whimbrel_worker.endpoints.polardb.log.walsender import (
    Keepalive,
    checked_name,
    open_frame,
    start_command,
    status_update,
)
from whimbrel_worker.endpoints.polardb.slot import slots
from whimbrel_worker.errors import Transient, WorkerError
from whimbrel_worker.libpq import Connection

_STATUS_SECONDS: Final = 10.0
_STATUS_SHARE: Final = 3
"""How many status updates go out at least within the server's wal_sender_timeout, and before it counts as silent."""
SILENT_SECONDS: Final = 120.0
"""A server that decodes a long transaction says nothing meanwhile; a dead host is noticed by TCP much earlier."""
_CLOSE_SECONDS: Final = 5.0
_POLL_BYTES: Final = 1 << 20
_PINGS, _PINGS_WITHIN_SECONDS = 5, 10.0
_PUBLISHED: Final = "SELECT pubname FROM pg_publication WHERE pubname = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read: the slot, the publications, and the end of the last commit that is applied."""

    slot: str
    publications: tuple[str, ...]
    position: int


@dataclass(frozen=True, slots=True)
class System:
    """Who the server is. `identifier` stays the same for a database cluster's life; `end`: the end of its log."""

    identifier: str
    timeline: int
    end: int
    database: str


class ReplicationStream:
    """Reads a slot's changes after a position. For one thread.

    After any error the object is spent: close it and make a new one, from the last position that was kept. Raises
    SourceLogLost, ConfigurationError, Incompatible or Transient; Transient for a slot that is in use.
    """

    def __init__(self, connector: PolarDBConnector, wanted: Wanted, *, silent_seconds: float = SILENT_SECONDS) -> None:
        """Check slot and publications, then start. `silent_seconds`: how long a server may say nothing at all."""
        self.where = f"{connector.where}, slot {checked_name(wanted.slot)}"
        self._wanted, self._assembler = wanted, Assembler(wanted.position)
        self._acknowledged = wanted.position
        self._received = self._sent_to = wanted.position
        self._ends = CommitEnds()
        self._failure: WorkerError | None = None
        self._pings: deque[float] = deque(maxlen=_PINGS)
        self._pings_within = _PINGS_WITHIN_SECONDS
        self._silent_seconds, self._waited = silent_seconds, 0.0
        self._status_at = time.monotonic()
        _check(connector, wanted, self.where)
        self._connection = connector.connect_replication()
        try:
            self._start()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> ReplicationStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it knows ---

    @property
    def acknowledged(self) -> int:
        """The end of the last commit that the server has been told to forget."""
        return self._acknowledged

    @property
    def sent_to(self) -> int:
        """Every commit that ends before this position has come out of `poll`; grows while nothing is written, too."""
        return self._sent_to

    @property
    def repeated(self) -> int:
        """How many transactions came again and were dropped."""
        return self._assembler.repeated

    # --- reading ---

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What has arrived, up to about a megabyte; empty when the time passes without an event.

        Rows of a transaction come before its Committed, maybe over several calls. An error is raised by the call after
        the one that gave what came before it.
        """
        if self._failure is not None:
            raise self._failure
        events: list[Event] = []
        deadline = time.monotonic() + timeout_seconds
        try:
            while not events:
                more = self._take(events)
                self.keep_alive()
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if not (more or events):
                    self._wait(min(left, self._status_seconds))
        except WorkerError as error:
            self._fail(error, events)
        except psycopg.Error as error:
            self._fail(self._ended(error), events)
        self._ends.extend(event.end_lsn for event in events if isinstance(event, Committed))
        return events

    def acknowledge(self, end_lsn: int) -> None:
        """Let the server forget everything up to this commit's end, or a little less: see commit_ends.

        The target has it, and its position is kept.

        Raises ValueError for anything but the end of a commit that came out of `poll`, Transient for a lost connection.
        """
        if end_lsn == self._acknowledged:
            return
        taken = self._ends.take(end_lsn)
        if taken is not None:
            self._acknowledged = taken
            self._tell()

    def keep_alive(self) -> None:
        """Tell the server that this reader lives, if that is due. Call it at least every few seconds of other work.

        Raises Transient for a lost connection.
        """
        if time.monotonic() - self._status_at >= self._status_seconds:
            self._tell(asks=True)

    def ask(self) -> None:
        """Ask the server how far it has sent; the answer is in `sent_to` after a `poll`. Raises Transient."""
        self._tell(asks=True)

    def close(self) -> None:
        """End the stream and the connection; nothing is acknowledged by it. Safe to repeat."""
        connection = self._connection
        if connection.closed:
            return
        try:
            if self._failure is None:
                self._finish(connection.pgconn)
        except psycopg.Error as error:
            self._failure = self._ended(error)
        finally:
            connection.close()

    # --- start ---

    def _start(self) -> None:
        pgconn = self._connection.pgconn
        timeout = _sender_timeout(self._connection)
        patience = min(timeout, self._silent_seconds)
        # A server that lives on asks once in half its time-out, so that as many take twice of it.
        self._pings_within = min(timeout, _PINGS_WITHIN_SECONDS)
        self._status_seconds = min(_STATUS_SECONDS, patience / _STATUS_SHARE)
        wanted = self._wanted
        result = pgconn.exec_(start_command(wanted.slot, wanted.publications, wanted.position))
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._refused(result, started=False)
        pgconn.nonblocking = 1
        self._pgconn = pgconn
        self._tell()

    def _refused(self, result: pq.abc.PGresult, *, started: bool) -> WorkerError:
        code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = _said(result)
        return translate_stream(code, message, self.where, slot=self._wanted.slot, started=started)

    # --- reading ---

    def _take(self, events: list[Event]) -> bool:
        """Take what has arrived. Returns whether there may be more that has arrived already."""
        self._pgconn.consume_input()
        size = 0
        while size < _POLL_BYTES:
            length, data = self._pgconn.get_copy_data(1)
            if length == 0:
                break
            if length < 0:
                raise self._over()
            size += length
            self._waited = 0.0
            self._receive(bytes(data), events)
        return size >= _POLL_BYTES

    def _receive(self, data: bytes, events: list[Event]) -> None:
        frame = open_frame(data)
        if isinstance(frame, Keepalive):
            self._received = max(self._received, frame.end)
            self._sent_to = max(self._sent_to, frame.end)
            if frame.asks:
                self._pinged()
            return
        self._pings.clear()
        self._received = max(self._received, frame.start)
        event = self._assembler.feed(decode(frame.payload))
        if event is not None:
            events.append(event)

    def _pinged(self) -> None:
        """Answer. A server that shuts down asks on and on until its whole log is acknowledged.

        That is never done here, where every acknowledged position is a commit's end: a reader that stayed would keep
        the server from ending.
        """
        now = time.monotonic()
        self._pings.append(now)
        if len(self._pings) == _PINGS and now - self._pings[0] < self._pings_within:
            raise Transient(
                "the source is being shut down",
                where=self.where,
                why=f"it asked {_PINGS} times within {self._pings_within:g} s whether all of its log was received",
                todo="it is tried again until the server is back",
            )
        self._tell()

    def _wait(self, seconds: float) -> None:
        """Wait until something can be read. Raises Transient after too long a silence."""
        begun = time.monotonic()
        poller = select.poll()
        poller.register(self._pgconn.socket, select.POLLIN)
        if poller.poll(max(1, round(seconds * 1000))):
            return
        self._waited += time.monotonic() - begun
        if self._waited > self._silent_seconds:
            raise Transient(
                "the source has fallen silent",
                where=self.where,
                why=f"nothing came for {self._waited:.0f} s, though it was asked to answer",
                todo="it is tried again; check the server and the network between",
            )

    def _tell(self, *, asks: bool = False) -> None:
        try:
            self._pgconn.put_copy_data(status_update(self._received, self._acknowledged, asks=asks))
            self._pgconn.flush()
        except psycopg.Error as error:
            raise self._ended(error) from None
        self._status_at = time.monotonic()

    # --- end ---

    def _fail(self, error: WorkerError, events: list[Event]) -> None:
        self._failure = error
        if not events:
            raise error

    def _over(self) -> WorkerError:
        """The error for a stream that the server ended."""
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return self._refused(result, started=True)
        return Transient(
            "the source ended its change log", where=self.where, why="the server shuts down", todo="it is tried again"
        )

    def _ended(self, error: psycopg.Error) -> WorkerError:
        said = " ".join(str(error).split())[:500]
        return translate_stream(error.sqlstate or "", said, self.where, slot=self._wanted.slot, started=True)

    def _finish(self, pgconn: pq.abc.PGconn) -> None:
        """Say that nothing more is wanted, and wait a while for the server's end, so that the slot is free at once."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        pgconn.put_copy_end()
        pgconn.flush()
        while (left := deadline - time.monotonic()) > 0:
            pgconn.consume_input()
            pgconn.flush()
            while (length := pgconn.get_copy_data(1)[0]) > 0:
                pass
            if length < 0:
                return
            poller = select.poll()
            poller.register(pgconn.socket, select.POLLIN)
            poller.poll(round(min(left, 1.0) * 1000))


def identify(connector: PolarDBConnector) -> System:
    """Ask the server who it is. Raises ConfigurationError or Transient."""
    with connector.connect_replication() as connection:
        result = connection.pgconn.exec_(b"IDENTIFY_SYSTEM")
        if result.status != pq.ExecStatus.TUPLES_OK:
            code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            raise translate_stream(code, _said(result), connector.where, slot="", started=True)
        identifier, timeline, end, database = ((result.get_value(0, column) or b"").decode() for column in range(4))
    return System(identifier, int(timeline), parse_lsn(end), database)


def _check(connector: PolarDBConnector, wanted: Wanted, where: str) -> None:
    """See that slot and publications are what reading needs: the server's own errors are many, and say it less well."""
    with connector.connect() as connection:
        health = slots.look(connection, wanted.slot, where)
        slots.check(health, wanted.slot, wanted.position, connector.spec.database, where)
        with guarded(where):
            rows = connection.execute(_PUBLISHED, (list(wanted.publications),)).fetchall()
    missing = set(wanted.publications) - {str(name) for (name,) in rows}
    if missing:
        raise publication_missing(where, f"there is no publication {', '.join(sorted(missing))}")


def _sender_timeout(connection: Connection) -> float:
    """The server's wal_sender_timeout in seconds; infinite where it is off."""
    result = connection.pgconn.exec_(b"SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")
    value = result.get_value(0, 0) if result.status == pq.ExecStatus.TUPLES_OK and result.ntuples else None
    milliseconds = int(value or 0)
    return milliseconds / 1000 if milliseconds > 0 else float("inf")


def _said(result: pq.abc.PGresult) -> str:
    """The server's message with its detail, which quotes no row here."""
    fields = (pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL)
    parts = [field.decode(errors="replace") for name in fields if (field := result.error_field(name))]
    return " ".join(". ".join(parts).split())[:500] or "the connection ended"
