"""What the binlog stream hands out: transactions, row changes, statements, heartbeats. No decoding here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Row: TypeAlias = tuple[Any, ...]
"""One value a column, None for NULL; which Python type it is, is said in decoders.py."""
Kind: TypeAlias = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class BinlogColumn:
    """One column as TABLE_MAP describes it."""

    name: str
    type_code: int
    type_name: str
    unsigned: bool
    charset: str
    """The column's character set, ``binary`` for binary strings, empty for what is no string."""
    collation_id: int
    metadata: int
    """TABLE_MAP's metadata of the type: length, precision and scale, or fractional digits."""
    nullable: bool


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table as it was when the change was logged."""

    database: str
    table: str
    columns: tuple[BinlogColumn, ...]
    primary_key: tuple[int, ...]
    """Indexes into ``columns`` in the key's order; empty when there is no primary key."""

    @property
    def name(self) -> str:
        """``database.table``, for messages."""
        return f"{self.database}.{self.table}"


@dataclass(slots=True)
class TransactionBegin:
    """A transaction of the source starts; its changes follow up to TransactionEnd."""

    source: str
    """The originating server's UUID, with ``:tag`` where the GTID has one."""
    number: int
    commit_timestamp_us: int
    """When the server that sends the log committed it, in microseconds since 1970."""
    original_commit_timestamp_us: int
    transaction_length: int
    """Bytes in the log."""

    @property
    def gtid(self) -> str:
        """``uuid:number`` or ``uuid:tag:number``."""
        return f"{self.source}:{self.number}"


@dataclass(slots=True)
class RowsEvent:
    """Rows changed in one table, in the log's order."""

    table: TableInfo
    kind: Kind
    rows: list[Any]
    """insert, delete: a Row each; update: a pair (before, after) of Rows each."""


@dataclass(slots=True)
class TableIncompatible:
    """Rows changed in a table that this version cannot decode; they were not decoded."""

    table: TableInfo
    reason: str
    """Which column and type."""


@dataclass(slots=True)
class Statement:
    """A statement logged as text: DDL, or anything else that changes no rows by itself."""

    database: str
    """The session's default database."""
    sql: str


@dataclass(slots=True)
class TransactionEnd:
    """The transaction is complete: a position may move over it."""

    source: str
    number: int

    @property
    def gtid(self) -> str:
        """The same text as in TransactionBegin."""
        return f"{self.source}:{self.number}"


@dataclass(slots=True)
class Heartbeat:
    """The server had nothing more to send when it sent this: everything up to here has been read."""

    file: str
    position: int


Event: TypeAlias = TransactionBegin | RowsEvent | TableIncompatible | Statement | TransactionEnd | Heartbeat
Events: TypeAlias = Sequence[Event]
