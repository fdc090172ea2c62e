"""psycopg's errors to the worker's own, with what to do next. The one place that knows SQLSTATEs.

Codes: PostgreSQL manual, "PostgreSQL Error Codes"; Aurora DSQL user guide, "Concurrency control" and "Quotas".
"""

from typing import Final

import psycopg

from whimbrel_worker.errors import ConfigurationError, Conflict, Incompatible, Transient, WorkerError
from whimbrel_worker.libpq import first_line, guarding, lost

_CONFLICTS = {"40001", "40P01"}
_ROW_CLASSES = ("22", "23")
_BUSY = {"53300", "53400", "55P03", "57014", "57P01", "57P02", "57P03", "25P03", "08P01"}
_SIGN_IN_MARKS = ("password authentication failed", "access denied", "no password supplied", 'role "')
_TLS_MARKS = ("certificate", "SSL error", "SSL connection", "does not match host name", "server does not support SSL")


def translate(error: psycopg.Error, where: str) -> WorkerError:
    """The worker's error for a psycopg error. `where` names the server, statement or table."""
    code, message = error.sqlstate or "", first_line(error)
    if code in _CONFLICTS:
        return Conflict("the target refused a transaction for a concurrent one", where=where, why=message)
    if code[:2] in _ROW_CLASSES or code == "54000":
        return Incompatible(
            "the target does not take a value",
            where=where,
            why=message,
            todo="correct the row in the source or give the column another type under tables.overrides",
        )
    if code == "42501":
        return ConfigurationError(
            "a privilege is missing on the target", where=where, why=message, todo="grant it to the migration's role"
        )
    if code in _BUSY or code[:2] in {"08", "53", "57", "58", "XX"} or lost(error):
        return Transient("the target is not available just now", where=where, why=message)
    return ConfigurationError(
        "the target refused a statement", where=where, why=f"{message} ({code})", todo="see the target's own log"
    )


def translate_sign_in(error: psycopg.Error, where: str) -> WorkerError:
    """The worker's error for a failed connection."""
    message = first_line(error)
    hint = str(error)
    if any(mark in hint for mark in _TLS_MARKS):
        return ConfigurationError(
            "the target's certificate cannot be trusted",
            where=where,
            why=message,
            todo="check tls.caSecretRef and that the host name in the manifest is the certificate's",
        )
    if any(mark in hint for mark in _SIGN_IN_MARKS) or (error.sqlstate or "").startswith("28"):
        return ConfigurationError(
            "the target refused the sign-in",
            where=where,
            why=" ".join(hint.split())[:500],
            todo="check the Secret named by credentialsSecretRef, the user, the region and this machine's clock",
        )
    if "does not exist" in hint and "database" in hint:
        return ConfigurationError(
            "the target has no such database", where=where, why=message, todo="create it, or correct spec.target"
        )
    return Transient(
        "the target cannot be reached",
        where=where,
        why=message,
        todo="check host, port, network policy and whether the server is up; it is tried again",
    )


guarded: Final = guarding(translate)
"""Turns psycopg's errors inside its block into the worker's own."""
