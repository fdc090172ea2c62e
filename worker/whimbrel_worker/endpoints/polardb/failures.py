"""PostgreSQL's errors on the side that is read, to the worker's own, with what to do next. No call is made here.

Codes: PostgreSQL manual, "PostgreSQL Error Codes". Messages may be in the server's language, so they are shown, and
searched for names and numbers only.
"""

import re
from typing import Final

import psycopg

from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient, WorkerError
from whimbrel_worker.libpq import first_line, guarding, lost

START_ANEW: Final = (
    "start the reverse sync anew after a full comparison: changes in between are not in the log any more; raise "
    "max_slot_wal_keep_size on the source so that the log outlives the longest stop"
)
REPLICATION_ADVICE: Final = "as an administrator of the source: ALTER ROLE … REPLICATION for the account of the Secret"
_IN_USE: Final = "55006"
_NOT_READY: Final = "55000"
_MISSING: Final = "42704"
_PRIVILEGE: Final = "42501"
_LOG_GONE: Final = "58P01"
_TOO_MANY: Final = "53400"
_PASSING_CLASSES: Final = frozenset({"08", "53", "57", "58", "XX", "40"})
_PASSING: Final = frozenset({"25P03", "25006", "55P03"})
_SIGN_IN_MARKS: Final = ("password authentication failed", "no password supplied", 'role "', "pg_hba.conf")
_TLS_MARKS: Final = ("certificate", "SSL error", "SSL connection", "does not match host name", "does not support SSL")
_NUMBER: Final = re.compile(r"\b[0-9]+\b")


def translate(error: psycopg.Error, where: str) -> WorkerError:
    """The worker's error for a failed statement. `where` names the server and the slot, publication or table."""
    code, message = error.sqlstate or "", first_line(error)
    if code == _PRIVILEGE:
        return ConfigurationError(
            "a privilege is missing on the source",
            where=where,
            why=message,
            todo=f"{REPLICATION_ADVICE}; FOR ALL TABLES needs a superuser, a list of tables their owner",
        )
    if code == _TOO_MANY:
        return ConfigurationError(
            "the source has no replication slot or connection left",
            where=where,
            why=message,
            todo="drop slots that nobody reads (SELECT * FROM pg_replication_slots), or raise max_replication_slots "
            "and max_wal_senders",
        )
    if is_passing(code) or lost(error):
        return Transient("the source is not available just now", where=where, why=message)
    return ConfigurationError(
        "the source refused a statement", where=where, why=f"{message} ({code})", todo="see the source's own log"
    )


def translate_sign_in(error: psycopg.Error, where: str, secret: str) -> WorkerError:
    """The worker's error for a failed connection; `secret` is the Secret's name."""
    said = " ".join(str(error).split())[:500]
    if any(mark in said for mark in _TLS_MARKS):
        return ConfigurationError(
            "the source's certificate cannot be trusted",
            where=where,
            why=said,
            todo="check tls.caSecretRef and that the host name in the manifest is the certificate's",
        )
    if any(mark in said for mark in _SIGN_IN_MARKS) or (error.sqlstate or "").startswith("28"):
        return ConfigurationError(
            "the source refused the sign-in",
            where=where,
            why=said,
            todo=f"check username and password in the Secret {secret}, and that pg_hba.conf or the white list lets "
            "this host in",
        )
    if "database" in said and "does not exist" in said:
        return ConfigurationError(
            "the source has no such database",
            where=where,
            why=said,
            todo="correct spec.source.polardb.database; PolarDB's DynamoDB tables are in polardb_internal_dynamodb",
        )
    return Transient(
        "the source cannot be reached",
        where=where,
        why=said,
        todo="check host, port, network policy and whether the server is up; it is tried again",
    )


def translate_stream(code: str, message: str, where: str, *, slot: str, started: bool) -> WorkerError:
    """The worker's error for START_REPLICATION or for what follows it. `code` is empty where the connection ended."""
    if code == _IN_USE:
        return slot_in_use(where, slot, next(iter(_NUMBER.findall(message.replace(slot, ""))), "unknown"))
    if code == _MISSING:
        return publication_missing(where, message) if started else slot_missing(where, slot)
    if code == _LOG_GONE or (code == _NOT_READY and not started):
        return slot_lost(where, slot, message)
    if code == _PRIVILEGE:
        return no_replication_right(where, message)
    if not code or is_passing(code):
        return Transient("the source broke off its change log", where=where, why=message, todo="it is tried again")
    return ConfigurationError(
        "the source refused to send its change log",
        where=where,
        why=f"{message} ({code})",
        todo="see the source's own log",
    )


def is_passing(code: str) -> bool:
    """Whether an SQLSTATE speaks of a state that may end by itself."""
    return code[:2] in _PASSING_CLASSES or code in _PASSING


class SlotInUse(Transient):
    """Somebody reads from the slot: often the reader before, whose end the server has not noticed yet."""


def slot_in_use(where: str, slot: str, pid: object) -> SlotInUse:
    """The error for a slot that somebody reads from."""
    return SlotInUse(
        "the replication slot is in use",
        where=where,
        why=f"the slot {slot} is read by the process with pid {pid} on the source",
        todo=f"it is tried again; if it stays so, see who that is: SELECT * FROM pg_stat_replication WHERE pid = {pid}",
    )


def slot_missing(where: str, slot: str) -> SourceLogLost:
    """There is no such slot."""
    return SourceLogLost(
        "the replication slot is not there any more",
        where=where,
        why=f"the source has no slot {slot}: it was dropped, or the server was restored or failed over without it",
        todo=START_ANEW,
    )


def slot_lost(where: str, slot: str, why: str) -> SourceLogLost:
    """The server has removed log that the slot needs."""
    return SourceLogLost(
        "the source no longer has the log that the replication slot needs",
        where=where,
        why=f"slot {slot}: {why}",
        todo=START_ANEW,
    )


def publication_missing(where: str, why: str) -> ConfigurationError:
    """A publication is not there, or was not when the log was written."""
    return ConfigurationError(
        "a publication is missing on the source",
        where=where,
        why=why,
        todo="make the publication before the slot: changes that were logged without it cannot be read through it; "
        "where it came after the slot, drop both and start the reverse sync anew",
    )


def no_replication_right(where: str, why: str) -> ConfigurationError:
    """The account may not read the change log."""
    return ConfigurationError(
        "the account may not read the source's change log", where=where, why=why, todo=REPLICATION_ADVICE
    )


guarded: Final = guarding(translate)
"""Turns psycopg's errors inside its block into the worker's own."""
