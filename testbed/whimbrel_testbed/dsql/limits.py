"""Every number the stand-in enforces, in one place; the texts of the refusals stand in refusals.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Aurora DSQL's limits (AWS user guide, quotas; public recordings of a live cluster, September 2026).

    Bytes are counted as bind parameters or statement text plus `row_overhead_bytes` a row: the real service's own
    formula is not published, so that figure is an assumption on the strict side.
    """

    rows_per_transaction: int = 3_000
    bytes_per_transaction: int = 10 * 1024 * 1024
    row_overhead_bytes: int = 64
    transaction_seconds: float = 300.0
    message_bytes: int = 10 * 1024 * 1024
    value_bytes: int = 1024 * 1024
    char_bytes: int = 4_096
    varchar_bytes: int = 65_535
    key_columns: int = 8
    columns_per_table: int = 255
    indexes_per_table: int = 24
    tables: int = 1_000
    schemas: int = 10
    connections: int = 10_000
    connections_per_second: float = 100.0
    connection_burst: int = 1_000
    session_seconds: float = 3_600.0
    sequence_cache: int = 65_536
    fresh_table_seconds: float = 900.0

    def but(self, changes: dict[str, Any]) -> Limits:
        """Return a copy with some limits changed; a name that is none of them raises ValueError."""
        unknown = set(changes) - {field.name for field in fields(self)}
        if unknown:
            raise ValueError(f"unknown limits {sorted(unknown)}: the limits are {sorted(asdict(self))}")
        return replace(self, **changes)


UNIT_BYTES = 16 * 1024 * 1024
"""Most bytes of unanswered client messages the proxy holds before it passes them on without a Sync."""

REPLY_BYTES = 256 * 1024
"""A reply longer than this is handed to the client while it still arrives."""

CLIENT_SECONDS = 2.0
"""How long a client may keep its running statement waiting (COPY data, an answer not taken) in another's way."""

WATCH_SECONDS = 0.02
"""How long a statement may wait before the proxy looks for another transaction's lock in its way."""
