"""Turns the packets of a dump connection into events, keeping what holds across them: tables, transaction, position.

No I/O: packets come in, events go out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias
from zlib import crc32

from whimbrel_worker.endpoints.mysql.binlog import events as ev
from whimbrel_worker.endpoints.mysql.binlog import refusals
from whimbrel_worker.endpoints.mysql.binlog.charsets import transcoder
from whimbrel_worker.endpoints.mysql.binlog.decoders import TableDecoder
from whimbrel_worker.endpoints.mysql.binlog.model import (
    Event,
    Heartbeat,
    Kind,
    RowsEvent,
    Statement,
    TableIncompatible,
    TransactionBegin,
    TransactionEnd,
)
from whimbrel_worker.endpoints.mysql.binlog.packets import Piece
from whimbrel_worker.endpoints.mysql.binlog.statements import Meaning, meaning_of
from whimbrel_worker.endpoints.mysql.binlog.tablemap import parse_table_map, table_name
from whimbrel_worker.errors import WorkerError

Wanted: TypeAlias = Callable[[str, str], bool]
"""Whether the rows of (database, table) are to be decoded; asked once for each definition of a table."""
Handler: TypeAlias = Callable[[bytes, int, int, list[Event]], None]

_RESIDUE: Final = 0x2144DF1C
"""CRC-32 of anything followed by its own CRC-32."""
_OK, _ERROR = 0, 0xFF
_DUMMY_TABLE: Final = b"\xff\xff\xff\0\0\0"
"""A rows event with this table id holds no rows; it only ends a statement."""
_MAX_TABLES: Final = 4096
_IGNORED: Final = frozenset({ev.STOP, ev.IGNORABLE, ev.ROWS_QUERY, ev.PREVIOUS_GTIDS, ev.VIEW_CHANGE})


def _ignore(_data: bytes, _position: int, _end: int, _out: list[Event]) -> None:
    """For events that change no rows and carry no position of their own."""


class ServerError(Exception):
    """The server sent an ERR packet, or an end of the stream (empty payload)."""

    def __init__(self, payload: bytes) -> None:
        super().__init__("the server ended the stream")
        self.payload = payload


class Assembler:
    """Decodes packets in order; one object for each dump connection."""

    def __init__(self, wanted: Wanted, collations: Mapping[int, str]) -> None:
        self._wanted = wanted
        self._collations = collations
        self._checksums = False
        self._server_version = "unknown"
        self.file = ""
        self.position = 0
        self._source, self._number = "", 0
        self._open = self._group = False
        self._names = ev.SourceNames()
        self._definitions: dict[bytes, TableDecoder | None] = {}
        self._tables: dict[bytes, TableDecoder | None] = {}
        self._handlers: dict[int, Handler] = {
            ev.GTID: self._gtid, ev.GTID_TAGGED: self._gtid_tagged, ev.QUERY: self._query, ev.XID: self._end,
            ev.TABLE_MAP: self._table_map, ev.WRITE_ROWS: self._insert, ev.DELETE_ROWS: self._delete,
            ev.UPDATE_ROWS: self._update, ev.ROTATE: self._rotate, **dict.fromkeys(_IGNORED, _ignore),
        }  # fmt: skip

    def decode(self, packets: Iterable[Piece], out: list[Event]) -> None:
        """Append the packets' events to ``out``; on an error what came before it is in ``out`` already.

        Raises Incompatible, ConfigurationError, Transient, or ServerError for the server's own errors.
        """
        handlers, header = self._handlers, ev.HEADER.unpack_from
        view_of, view = b"", memoryview(b"")
        for data, start, end in packets:
            if data[start] != _OK:
                raise ServerError(data[start:end] if data[start] == _ERROR else b"")
            _, kind, _, size, log_position, flags = header(data, start + 1)
            if data is not view_of:
                view_of, view = data, memoryview(data)
            stop = end
            if crc32(view[start + 1 : end]) == _RESIDUE and (self._checksums or kind == ev.ROTATE):
                stop -= 4
            elif (self._checksums and not (kind == ev.ROTATE and not log_position)) or size != end - start - 1:
                raise self._placed(refusals.damaged(kind))
            try:
                handler = handlers.get(kind)
                if handler is not None:
                    self.position = log_position or self.position
                    handler(data, start + 20, stop, out)
                else:
                    self._uncommon(kind, flags, (data, start + 20, stop), log_position, out)
            except WorkerError as error:
                raise self._placed(error)  # noqa: B904  # the same error, its place added
            except (struct.error, IndexError, ValueError, KeyError) as error:
                raise self._placed(refusals.malformed(kind, error)) from error

    def _placed(self, error: WorkerError) -> WorkerError:
        transaction = f"transaction {self._source}:{self._number}" if self._open else ""
        place = f"binary log {self.file or '(start)'} before position {self.position}"
        error.where = ", ".join(filter(None, (error.where, transaction, place)))
        return error

    def _gtid(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        self._begin(ev.gtid_event(data, position, end, self._names), out)

    def _gtid_tagged(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        self._begin(ev.gtid_tagged_event(data, position, end), out)

    def _begin(self, begin: TransactionBegin, out: list[Event]) -> None:
        if self._open:
            raise refusals.broken_transaction("another one starts")
        if len(self._tables) > _MAX_TABLES:
            self._tables.clear()
        self._open, self._group = True, False
        self._source, self._number = begin.source, begin.number
        out.append(begin)

    def _end(self, _data: bytes, _position: int, _end: int, out: list[Event]) -> None:
        if not self._open:
            raise refusals.broken_transaction("an end without a beginning")
        self._open = False
        out.append(TransactionEnd(self._source, self._number))

    def _query(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        if not self._open:
            raise refusals.broken_transaction("a statement without a GTID")
        sql = position + 14 + data[position + 8] + (data[position + 11] | data[position + 12] << 8)
        if end - sql == 5 and data[sql:end] == b"BEGIN":
            self._group = True
        else:
            self._statement(ev.query_event(data, position, end), out)

    def _statement(self, query: ev.Query, out: list[Event]) -> None:
        sql, database = self._text(query), query.database.decode()
        meaning = meaning_of(sql)
        if meaning is Meaning.ROWS_AS_TEXT:
            raise refusals.statement_with_rows(sql, database)
        if meaning is Meaning.ROLLBACK:
            raise refusals.rollback_in_log(sql)
        if meaning is Meaning.XA:
            raise refusals.refused_event(ev.XA_PREPARE, self._server_version)
        if meaning is Meaning.OTHER:
            out.append(Statement(database, sql))
        if meaning is Meaning.COMMIT or not self._group:
            self._end(b"", 0, 0, out)

    def _text(self, query: ev.Query) -> str:
        collation = ev.query_collation(query.variables)
        convert = transcoder(self._collations.get(collation, "utf8mb4")) if collation is not None else None
        try:
            return (convert(query.sql) if convert else query.sql).decode()
        except UnicodeDecodeError:  # binary literals; names are always valid in the statement's character set
            return query.sql.decode("utf-8", "backslashreplace")

    def _table_map(self, data: bytes, position: int, end: int, _out: list[Event]) -> None:
        body = data[position + 6 : end]
        if body not in self._definitions:
            if len(self._definitions) >= _MAX_TABLES:
                self._definitions.clear()
            self._definitions[body] = self._decoder(body)
        self._tables[data[position : position + 6]] = self._definitions[body]

    def _decoder(self, body: bytes) -> TableDecoder | None:
        if not self._wanted(*table_name(body)):
            return None
        return TableDecoder(parse_table_map(body, self._collations))

    def _insert(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        self._rows("insert", data, position, end, out)

    def _delete(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        self._rows("delete", data, position, end, out)

    def _update(self, data: bytes, position: int, end: int, out: list[Event]) -> None:
        self._rows("update", data, position, end, out)

    def _rows(self, kind: Kind, data: bytes, position: int, end: int, out: list[Event]) -> None:
        if not self._open:
            raise refusals.broken_transaction("rows without a GTID")
        table_id = data[position : position + 6]
        if table_id not in self._tables and table_id != _DUMMY_TABLE:
            raise refusals.broken_transaction("rows without their table map")
        decoder = self._tables.get(table_id)
        if decoder is None:
            return
        if decoder.reason:
            out.append(TableIncompatible(decoder.table, decoder.reason))
            return
        position += 8 + (data[position + 8] | data[position + 9] << 8)
        decode = decoder.updates if kind == "update" else decoder.rows
        try:
            out.append(RowsEvent(decoder.table, kind, decode(data, position, end)))
        except UnicodeDecodeError as error:
            reason = f"a text holds bytes that its character set (codec {error.encoding}) does not assign"
            out.append(TableIncompatible(decoder.table, reason))

    def _rotate(self, data: bytes, position: int, end: int, _out: list[Event]) -> None:
        self.file, self.position = ev.rotate_event(data, position, end)

    def _uncommon(self, kind: int, flags: int, piece: Piece, log_position: int, out: list[Event]) -> None:
        if kind in (ev.HEARTBEAT, ev.HEARTBEAT_V2):
            self._heartbeat(piece, log_position, kind == ev.HEARTBEAT_V2, out)
            return
        self.position = log_position or self.position
        if kind == ev.FORMAT_DESCRIPTION:
            self._format_description(*piece)
        elif not flags & ev.IGNORABLE_FLAG:
            raise refusals.refused_event(kind, self._server_version)

    def _format_description(self, data: bytes, position: int, end: int) -> None:
        if self._open:
            raise refusals.broken_transaction("a new log file starts")
        whole = end + 4 if self._checksums else end
        self._server_version, algorithm = ev.format_description_event(data, position, whole)
        self._checksums = algorithm == ev.CHECKSUM_CRC32
        self._tables.clear()

    def _heartbeat(self, piece: Piece, log_position: int, second: bool, out: list[Event]) -> None:
        """A heartbeat proves the end of the log where it repeats the place known; else it reports skipped events."""
        place = ev.heartbeat_event(*piece, log_position=log_position, second=second)
        file, position = place
        if (file, position & 0xFFFFFFFF) == (self.file, self.position & 0xFFFFFFFF):
            out.append(Heartbeat(self.file, position))
        self.file, self.position = place
