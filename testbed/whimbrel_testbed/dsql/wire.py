"""The PostgreSQL v3 protocol as bytes: cutting messages out of a stream and building them; it talks to nobody.

Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from whimbrel_testbed.dsql import refusals
from whimbrel_testbed.dsql.refusals import Refusal, RefusedError

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102

PARSE, BIND, EXECUTE, DESCRIBE, CLOSE, SYNC, FLUSH, QUERY, TERMINATE = (ord(c) for c in "PBEDCSHQX")
COPY_DATA, COPY_DONE, COPY_FAIL, PASSWORD, FUNCTION_CALL = (ord(c) for c in "dcfpF")

PARSE_COMPLETE = b"1\x00\x00\x00\x04"
BIND_COMPLETE = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE = b"3\x00\x00\x00\x04"
NO_DATA = b"n\x00\x00\x00\x04"
NO_PARAMETERS = b"t\x00\x00\x00\x06\x00\x00"
SYNC_MESSAGE = b"S\x00\x00\x00\x04"

_HEADER = struct.Struct(">I")


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one message: type byte, length, payload."""
    return kind + _HEADER.pack(len(payload) + 4) + payload


def text(value: str) -> bytes:
    """Return a NUL-ended string."""
    return value.encode() + b"\x00"


def ready(status: str) -> bytes:
    """Return ReadyForQuery with status I, T or E."""
    return message(b"Z", status.encode())


def complete(tag: str) -> bytes:
    """Return CommandComplete."""
    return message(b"C", text(tag))


def error(refusal: Refusal) -> bytes:
    """Return ErrorResponse."""
    fields = [("S", refusal.severity), ("V", refusal.severity), ("C", refusal.sqlstate), ("M", refusal.message)]
    fields += [("H", refusal.hint)] if refusal.hint else []
    return message(b"E", b"".join(code.encode() + text(value) for code, value in fields) + b"\x00")


def error_fields(payload: bytes) -> dict[str, str]:
    """Read the payload of an ErrorResponse into its fields by code letter."""
    parts = (part for part in payload.split(b"\x00") if part)
    return {chr(part[0]): part[1:].decode("utf-8", "replace") for part in parts}


def parse_message(name: str, sql: str, rest: bytes = b"\x00\x00") -> bytes:
    """Return Parse; `rest` is the encoded parameter type list."""
    return message(b"P", text(name) + text(sql) + rest)


def portal_messages(sql: str) -> list[bytes]:
    """Return Parse, Bind, Describe, Execute of one statement through the unnamed portal, all columns as text."""
    bind = message(b"B", b"\x00\x00\x00\x00\x00\x00\x00\x00")
    return [parse_message("", sql), bind, message(b"D", b"P\x00"), message(b"E", b"\x00\x00\x00\x00\x00")]


def command(sql: str) -> bytes:
    """Return a statement of the proxy's own that leaves the client's unnamed statement and portal alone."""
    name = "_standin"
    bind = message(b"B", text(name) + text(name) + b"\x00\x00\x00\x00\x00\x00")
    execute = message(b"E", text(name) + b"\x00\x00\x00\x00")
    closes = message(b"C", b"P" + text(name)) + message(b"C", b"S" + text(name))
    return parse_message(name, sql) + bind + execute + closes


COMMAND_ANSWERS = 5


def close_statement(name: str) -> bytes:
    """Return Close of a prepared statement."""
    return message(b"C", b"S" + text(name))


def strings(payload: bytes, count: int) -> tuple[list[str], int]:
    """Read `count` NUL-ended strings; return them and the offset after the last. Raises RefusedError (08P01)."""
    found, offset = [], 0
    for _ in range(count):
        end = payload.find(b"\x00", offset)
        if end < 0:
            raise RefusedError(refusals.PROTOCOL)
        found.append(payload[offset:end].decode("utf-8", "surrogateescape"))
        offset = end + 1
    return found, offset


def without_extended(data: bytes) -> bytes:
    """Leave out what the extended protocol answers before the result, for a client that has sent a simple Query."""
    kept, position = [], 0
    while position < len(data):
        kind = data[position]
        end = position + 1 + _HEADER.unpack_from(data, position + 1)[0]
        if kind not in b"12n":
            kept.append(data[position:end])
        position = end
        if kind in b"TnCE":
            break
    return b"".join(kept) + data[position:]


class Cutter:
    """Cuts whole client messages out of what arrives in any pieces."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Take bytes, give back the messages that are complete now; one over the limit raises RefusedError (08P01)."""
        held = self._held
        held += data
        start, size = 0, len(held)
        found = []
        while start + 5 <= size:
            length = _HEADER.unpack_from(held, start + 1)[0]
            if length > self.limit:
                raise RefusedError(refusals.MESSAGE_SIZE)
            if length < 4:
                raise RefusedError(refusals.PROTOCOL)
            end = start + 1 + length
            if end > size:
                break
            found.append(bytes(held[start:end]))
            start = end
        del held[:start]
        return found
