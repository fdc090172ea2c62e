"""The refusals: SQLSTATE, text and hint of each, in one place; when they are due is decided elsewhere.

Texts that the recorded facts give are used as they are; the ones marked in docs/testbed-dsql.md are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """An error the stand-in answers by itself."""

    sqlstate: str
    message: str
    hint: str = ""
    severity: str = "ERROR"


class RefusedError(Exception):
    """Carries a refusal to where it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def unsupported(message: str) -> Refusal:
    """Return a 0A000 (feature_not_supported)."""
    return Refusal("0A000", message)


def statement(name: str) -> Refusal:
    """Return the refusal of a kind of statement by PostgreSQL's node name."""
    return unsupported(f"unsupported statement: {name}")


def parameter(name: str) -> Refusal:
    """Return the refusal of a SET outside the allow-list."""
    return unsupported(f'setting configuration parameter "{name}" not supported')


def datatype(name: str) -> Refusal:
    """Return the refusal of a column type."""
    return unsupported(f"datatype {name} not supported")


def length(name: str, limit: int) -> Refusal:
    """Return the refusal of a column type whose values may become too long."""
    return Refusal("54000", f"datatype limit greater than {limit} bytes not supported for {name}")


def fatal(sqlstate: str, message: str, hint: str = "") -> Refusal:
    """Return a refusal that ends the connection."""
    return Refusal(sqlstate, message, hint, "FATAL")


def access_denied(hint: str) -> Refusal:
    """Return the refusal of a sign-in."""
    return fatal("28000", "unable to accept connection, access denied", hint)


OC000 = Refusal("40001", "change conflicts with another transaction (OC000)")
OC001 = Refusal("40001", "schema has been updated by another transaction (OC001)")
ROW_LIMIT = Refusal("54000", "transaction row limit exceeded")
SIZE_LIMIT = Refusal("54000", "transaction size limit 10mb exceeded")
AGE_LIMIT = Refusal("54000", "transaction age limit of 300s exceeded")
ABORTED = Refusal("25P02", "current transaction is aborted, commands ignored until end of transaction block")
MULTIPLE_DDL = unsupported("multiple ddl statements not supported in a transaction")
DDL_AND_DML = unsupported("ddl and dml are not supported in the same transaction")
SYNCHRONOUS_INDEX = unsupported("unsupported mode. please use CREATE INDEX ASYNC.")
TEMPORARY = unsupported("TEMPORARY or TEMP table not supported for CREATE TABLE")
UNLOGGED = unsupported("UNLOGGED table not supported for CREATE TABLE")
VACUUM = unsupported("unsupported VACUUM statement")
ADD_COLUMN = unsupported("ALTER TABLE ADD COLUMN with constraint not supported")
ADD_CONSTRAINT = unsupported("unsupported ALTER TABLE ADD CONSTRAINT statement")
ALTER_TABLE = unsupported("unsupported ALTER TABLE statement")
ISOLATION = unsupported("only the REPEATABLE READ isolation level is supported")
COPY = unsupported("COPY is not supported")
EXTENDED_COPY = unsupported("COPY is supported by the simple query protocol only")
SEQUENCE_TYPE = unsupported("sequences and identity columns must be bigint")
SEQUENCE_CACHE = Refusal("22023", "CACHE must be given, as 1 or as at least 65536")
KEY_COLUMNS = Refusal("54011", "more than 8 columns in a key are not allowed")
COLUMNS = Refusal("54011", "tables can have at most 255 columns")
MESSAGE_SIZE = fatal("08P01", "message exceeds the limit of 10 MiB")
PROTOCOL = fatal("08P01", "protocol violation")
TLS_REQUIRED = fatal("28000", "unable to accept connection, TLS is required")
TOO_MANY_CONNECTIONS = fatal("53300", "too many connections")
CONNECTION_RATE = fatal("53400", "connection rate limit exceeded")
