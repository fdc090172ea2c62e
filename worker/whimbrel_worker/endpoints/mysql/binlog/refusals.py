"""Events that cannot be carried, each with its message."""

from __future__ import annotations

from typing import Final

from whimbrel_worker.errors import ConfigurationError, Incompatible, Transient, WorkerError

_ANEW: Final = "then start the migration anew: what was logged that way cannot be read"
_NOT_ROW: Final = (
    "It belongs to a statement logged as text: binlog_format was not ROW in that session.",
    f"SET GLOBAL binlog_format=ROW and end older sessions; {_ANEW}.",
)
_OLD_ROWS: Final = (
    "a row event of an old layout", "The server, or a source behind it, writes row events of version 1.",
    f"Unset log_bin_use_v1_row_events or replace the old source; {_ANEW}.",
)  # fmt: skip
_REFUSED: Final = {
    5: ("an INTVAR event", *_NOT_ROW),
    13: ("a RAND event", *_NOT_ROW),
    14: ("a USER_VAR event", *_NOT_ROW),
    17: ("a LOAD DATA logged as text", *_NOT_ROW),
    18: ("a LOAD DATA logged as text", *_NOT_ROW),
    **dict.fromkeys((20, 21, 22, 23, 24, 25), _OLD_ROWS),
    26: ("an INCIDENT event", "The server itself says that changes are missing from its log.",
         "Look into the server's error log, then start the migration anew."),
    38: ("an XA transaction", "Its rows stand in the log before it is known whether it commits.",
         "Do without XA transactions while the migration runs; then start the migration anew."),
    39: ("a partial JSON update", "binlog_row_value_options was PARTIAL_JSON in the session that made it.",
         f"SET GLOBAL binlog_row_value_options=''; {_ANEW}."),
    40: ("a compressed transaction", "binlog_transaction_compression was ON in the session that made it.",
         f"SET GLOBAL binlog_transaction_compression=OFF and end the sessions that switch it on; {_ANEW}."),
}  # fmt: skip
"""By event type: what, why, what to do."""


def refused_event(kind: int, server_version: str) -> WorkerError:
    """The error for an event that is known and cannot be carried, or that is not known at all."""
    if kind == 34:
        return ConfigurationError(
            "the change log holds a transaction without a GTID", why="gtid_mode is not ON at the source.",
            todo="Switch GTIDs on (enforce_gtid_consistency=ON, gtid_mode=ON), then start the migration anew.",
        )  # fmt: skip
    if kind in _REFUSED:
        what, why, todo = _REFUSED[kind]
        return Incompatible(f"the change log holds {what}", why=why, todo=todo)
    return Incompatible(
        f"the change log holds an event of type {kind}, which is not known here",
        why=f"The server's version is {server_version}.",
        todo="Update Whimbrel to a version that knows this MySQL release; nothing was skipped.",
    )  # fmt: skip


def statement_with_rows(sql: str, database: str) -> Incompatible:
    """Rows changed by a statement that was logged as text."""
    return Incompatible(
        f"a change of rows was logged as a statement: {sql[:200]}", where=f"database {database}",
        why="binlog_format was not ROW in the session that made it, so its rows are not in the log.",
        todo=f"SET GLOBAL binlog_format=ROW, end older sessions and those that set it themselves; {_ANEW}.",
    )  # fmt: skip


def rollback_in_log(sql: str) -> Incompatible:
    """A transaction whose log takes back some of its rows."""
    return Incompatible(
        f"a transaction was partly rolled back inside the log: {sql[:200]}",
        why="It changed a table without transactions (such as MyISAM) and one with them, so the log keeps both.",
        todo="Convert such tables to InnoDB (ALTER TABLE … ENGINE=InnoDB); then start the migration anew.",
    )  # fmt: skip


def broken_transaction(what: str) -> Transient:
    """The log's structure is not what it must be; read again from the last whole transaction."""
    return Transient(
        f"the change log broke off inside a transaction: {what}",
        why="The source restarted, or its log is damaged.",
        todo="Nothing of the transaction was applied; the log is read again from the one before it. "
        "If this comes back, check the source's binary log with mysqlbinlog --verify-binlog-checksum.",
    )


def damaged(kind: int) -> Transient:
    """An event whose checksum is wrong."""
    return Transient(
        f"an event of the change log (type {kind}) came with a wrong checksum",
        why="It was damaged on the way or on the source's disk.",
        todo="It is read again; if this comes back, check the log with mysqlbinlog --verify-binlog-checksum.",
    )


def malformed(kind: int, cause: Exception) -> Incompatible:
    """An event whose bytes do not fit its layout."""
    return Incompatible(
        f"an event of the change log (type {kind}) could not be decoded",
        why=f"{type(cause).__name__} while it was read; its checksum is right.",
        todo="Report this with the server's version; nothing of the event was applied.",
    )
