"""The replication stream of a MySQL server, from a GTID set on: request, reading, time-outs. It decodes nothing."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

import pymysql
from pymysql.connections import Connection

from whimbrel_worker.endpoints.mysql.binlog.assembler import Assembler, ServerError, Wanted
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.binlog.model import Event
from whimbrel_worker.endpoints.mysql.binlog.packets import PacketReader
from whimbrel_worker.endpoints.mysql.binlog.server_errors import dump_error
from whimbrel_worker.errors import Transient, WorkerError

_COM_BINLOG_DUMP_GTID: Final = 0x1E
_THROUGH_GTID: Final = 4
_SILENT_HEARTBEATS: Final = 3
_LEAST_SILENCE_SECONDS: Final = 5.0
"""A source under load may be late with heartbeats that are due many times a second."""
_WRITE_TIMEOUT_SECONDS: Final = 600
"""How long the server waits for a reader that is busy with its target."""


class BinlogStream:
    """Reads a source's changes after ``gtid_set``; takes the connection over and closes it with itself.

    ``connection``: signed in by PyMySQL, not inside a transaction. ``server_id``: this reader's own in the source's
    replication topology, 1 to 2**32-1. ``heartbeat_seconds``: after how long without changes the source sends a
    heartbeat; silence of three of them, and of 5 s at least, is an error. ``wanted(database, table)``: rows of other
    tables are passed over undecoded.

    After any error the object is spent: make a new one on a new connection, from the set of transactions that were seen
    to their end. Raises WorkerError's subclasses: SourceLogLost, ConfigurationError, Incompatible, Transient.
    """

    def __init__(
        self, connection: Connection[Any], gtid_set: GtidSet, server_id: int, heartbeat_seconds: float, wanted: Wanted
    ) -> None:
        self._wanted_set = str(gtid_set)
        self._server_id = server_id
        self._heartbeat_seconds = heartbeat_seconds
        self._silence_seconds = max(_SILENT_HEARTBEATS * heartbeat_seconds, _LEAST_SILENCE_SECONDS)
        self._heard = time.monotonic()
        self._failure: WorkerError | None = None
        try:
            self._purged = _prepare(connection, server_id, heartbeat_seconds)
            self._assembler = Assembler(wanted, _collations(connection))
            self._socket, rest = _take_over(connection)
            self._socket.sendall(_dump_request(gtid_set, server_id))
        except (OSError, pymysql.MySQLError) as error:
            raise self._lost(error) from error
        self._reader = PacketReader(self._socket, rest)

    def __enter__(self) -> BinlogStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            yield from self.poll(self._silence_seconds)

    @property
    def file(self) -> str:
        """The source's log file that is being read."""
        return self._assembler.file

    @property
    def position(self) -> int:
        """Where in that file the last event ended."""
        return self._assembler.position

    def close(self) -> None:
        """Close the connection; the source ends its side when it next sends something."""
        self._socket.close()

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What the source has sent, up to a megabyte of its log; empty when the time passes without anything whole.

        An error inside a piece is raised by the next call, so that what came before it is not lost.
        """
        if self._failure:
            raise self._failure
        events: list[Event] = []
        try:
            packets = self._reader.read(min(timeout_seconds, self._silence_seconds))
            self._heard = time.monotonic()
            self._assembler.decode(packets, events)
        except TimeoutError:
            self._check_silence()
        except (WorkerError, ServerError, OSError) as error:
            self._failure = error if isinstance(error, WorkerError) else self._lost(error)
            if not events:
                raise self._failure from error
        return events

    def _check_silence(self) -> None:
        silent = time.monotonic() - self._heard
        if silent < self._silence_seconds:
            return
        self._failure = Transient(
            f"the source's change log has been silent for {silent:.1f} s", where="MySQL binary log",
            why=f"It promised a heartbeat every {self._heartbeat_seconds:g} s.",
            todo="The connection is made anew; check the network and the source if this comes back.",
        )  # fmt: skip
        raise self._failure

    def _lost(self, error: Exception) -> WorkerError:
        if isinstance(error, ServerError) and error.payload:
            return dump_error(error.payload, wanted=self._wanted_set, purged=self._purged, server_id=self._server_id)
        return Transient(
            "the connection to the source's change log was lost", where="MySQL binary log",
            why=f"{type(error).__name__}: {error}",
            todo="It is made anew from the last whole transaction.",
        )  # fmt: skip


def _prepare(connection: Connection[Any], server_id: int, heartbeat_seconds: float) -> str:
    """Set what the server's dump thread reads from its session; returns gtid_purged. Names of 8.4 and of 5.7 alike."""
    heartbeat = round(heartbeat_seconds * 1e9)
    identity = _replica_uuid(server_id)
    with connection.cursor() as cursor:
        for word in ("source", "master"):
            cursor.execute(f"SET @{word}_binlog_checksum = 'CRC32', @{word}_heartbeat_period = %s", (heartbeat,))
        cursor.execute("SET @replica_uuid = %s, @slave_uuid = %s", (identity, identity))
        cursor.execute("SET SESSION net_write_timeout = %s", (_WRITE_TIMEOUT_SECONDS,))
        cursor.execute("SELECT @@GLOBAL.gtid_purged")
        row = cursor.fetchone()
    return str(row[0]).replace("\n", "") if row else ""


def _replica_uuid(server_id: int) -> str:
    """A UUID made from the server id: a successor under the same id ends its predecessor's dump, and nobody else's."""
    return f"77686d62-7265-4c00-8000-{server_id:012x}"


def _collations(connection: Connection[Any]) -> dict[int, str]:
    """Each collation's character set, as the source itself numbers them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, character_set_name FROM information_schema.collations")
        return {int(number): str(charset) for number, charset in cursor.fetchall()}


def _take_over(connection: Any) -> tuple[socket.socket, bytes]:
    """Take PyMySQL's socket out of its connection, with whatever its buffered reader holds already.

    The server sends nothing unasked, so that should be nothing; a byte lost here would shift the whole stream. PyMySQL
    has no public way to do this: ``_sock`` and ``_rfile`` are its names up to 1.2 at least, and a test holds them.
    """
    sock, reader = connection._sock, connection._rfile
    sock.settimeout(0)
    try:
        rest = reader.peek()
    except (BlockingIOError, ssl.SSLWantReadError):
        rest = b""
    reader.close()
    connection._rfile = connection._sock = None
    return sock, rest


def _dump_request(gtid_set: GtidSet, server_id: int) -> bytes:
    """A COM_BINLOG_DUMP_GTID packet: no file name, position 4, the transactions that need not be sent."""
    data = gtid_set.encode()
    head = struct.pack("<BHIIQI", _COM_BINLOG_DUMP_GTID, _THROUGH_GTID, server_id, 0, 4, len(data))
    payload = head + data
    return len(payload).to_bytes(3, "little") + b"\0" + payload
