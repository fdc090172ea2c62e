"""What the server's own errors on a dump connection mean. Pure; texts of MySQL 5.7 to 9."""

from __future__ import annotations

import re
from typing import Final

from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient, WorkerError

LOG_READ_ERROR: Final = 1236
ACCESS_ERRORS: Final = frozenset({1044, 1045, 1142, 1227})
_COLLISION: Final = re.compile(r"same (?:server_uuid|server_id|server id)|server_uuid/server_id", re.IGNORECASE)
_PURGED: Final = re.compile(r"purged|could not find (?:first|next) log", re.IGNORECASE)
_AHEAD: Final = re.compile(r"more GTIDs than", re.IGNORECASE)
_NO_GTID: Final = re.compile(r"GTID_MODE|AUTO_POSITION", re.IGNORECASE)


def dump_error(payload: bytes, *, wanted: str, purged: str, server_id: int) -> WorkerError:
    """The error for an ERR packet (its payload, from 0xff on)."""
    code = int.from_bytes(payload[1:3], "little")
    text = payload[9:].decode("utf-8", "replace") if payload[3:4] == b"#" else payload[3:].decode("utf-8", "replace")
    said = f"The server says ({code}): {text}"
    if code in ACCESS_ERRORS:
        return ConfigurationError(
            "the source refused to send its change log", where="MySQL binary log", why=said,
            todo="GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* to the account of the migration.",
        )  # fmt: skip
    if code != LOG_READ_ERROR:
        return Transient("the source broke off its change log", where="MySQL binary log", why=said)
    return _log_read_error(text, said, wanted, purged, server_id)


def _log_read_error(text: str, said: str, wanted: str, purged: str, server_id: int) -> WorkerError:
    where = "MySQL binary log"
    if _COLLISION.search(text):
        return ConfigurationError(
            f"another reader of the change log signed in under server id {server_id} and took this one's place",
            where=where, why=said,
            todo="Stop the other reader, or give each a server id of its own: two with one id throw each other out.",
        )  # fmt: skip
    if _NO_GTID.search(text) and not _PURGED.search(text):
        return ConfigurationError(
            "the source does not give out its change log by GTID", where=where, why=said,
            todo="Switch GTIDs on at the source: enforce_gtid_consistency=ON and gtid_mode=ON.",
        )  # fmt: skip
    if _AHEAD.search(text):
        return SourceLogLost(
            "the source lacks transactions that were already read from it", where=where,
            why=f"{said}. Read so far: {wanted}",
            todo="It was restored or replaced by a server that lags behind. Point the migration at the right server, "
            "or start it anew.",
        )  # fmt: skip
    return SourceLogLost(
        "the source no longer has the changes that follow the checkpoint", where=where,
        why=f"{said}. Read so far: {wanted or 'nothing'}; purged at the source: {purged or 'unknown'}",
        todo="Start the migration anew, and raise binlog_expire_logs_seconds (on Amazon RDS: 'binlog retention hours') "
        "so that the log outlives the longest stop.",
    )  # fmt: skip
