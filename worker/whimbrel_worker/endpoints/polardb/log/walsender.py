"""What goes over a replication connection beside the plugin's messages. Pure.

Formats: PostgreSQL manual, "Streaming Replication Protocol": XLogData, primary keepalive, standby status update.
"""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn
from whimbrel_worker.endpoints.polardb.log.pgoutput import refuse
from whimbrel_worker.errors import ConfigurationError

_DATA: Final = struct.Struct("!cQQq")
_KEEPALIVE: Final = struct.Struct("!cQqB")
_STATUS: Final = struct.Struct("!cQQQq?")
_POSTGRES_EPOCH_SECONDS: Final = 946_684_800
_LONGEST_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class LogData:
    """A piece of the log, one message of the plugin. `end`: how far the server has come."""

    start: int
    end: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Everything before `end` has been sent. `asks`: the server wants a status update at once."""

    end: int
    asks: bool


def open_frame(data: bytes) -> LogData | Keepalive:
    """What one CopyData message holds. Raises Incompatible for anything unknown."""
    if data[:1] == b"k" and len(data) == _KEEPALIVE.size:
        _, end, _, asks = _KEEPALIVE.unpack(data)
        return Keepalive(end, bool(asks))
    if data[:1] != b"w" or len(data) < _DATA.size:
        refuse(f"a frame of kind {data[:1]!r} with {len(data)} bytes")
    _, start, end, _ = _DATA.unpack_from(data)
    return LogData(start, end, data[_DATA.size :])


def status_update(received: int, acknowledged: int, *, asks: bool) -> bytes:
    """A standby status update: what has been received, and what need not be sent again. `asks` for an answer."""
    now = int((time.time() - _POSTGRES_EPOCH_SECONDS) * 1_000_000)
    return _STATUS.pack(b"r", received, acknowledged, acknowledged, now, asks)


def start_command(slot: str, publications: Sequence[str], position: int) -> bytes:
    """START_REPLICATION from a position on. Raises ConfigurationError for a name that PostgreSQL cannot have."""
    options = f"proto_version '1', publication_names {_literal(publication_names(publications))}, messages 'true'"
    return f"START_REPLICATION SLOT {_identifier(slot)} LOGICAL {format_lsn(position)} ({options})".encode()


def publication_names(publications: Sequence[str]) -> str:
    """The plugin's option of that name. Raises ConfigurationError for a name that PostgreSQL cannot have."""
    return ",".join(_identifier(name) for name in publications)


def _identifier(name: str) -> str:
    return '"' + checked_name(name).replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def checked_name(name: str) -> str:
    """The name of a slot or publication. Raises ConfigurationError where PostgreSQL would cut or refuse it."""
    if not name or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise ConfigurationError(
            "a slot or publication cannot have this name",
            why=f"{name[:100]!r}: a name has 1 to {_LONGEST_NAME} bytes and no NUL",
            todo="correct spec.slotName or spec.publicationName",
        )
    return name
