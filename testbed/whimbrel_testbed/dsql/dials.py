"""The dials that turn faults and options on; what they do stands where they are read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Dials:
    """Faults and options of the stand-in, changeable while it runs; everything is off by default.

    Fractions run from 0 to 1 and are drawn from a generator seeded with `seed`. `drop_after_commit` and
    `drop_before_commit` are a number of connections to cut where they are 1 or more (counted down), a fraction of the
    COMMITs below that. Only transactions that wrote are struck.
    """

    seed: int = 0
    conflict_rate: float = 0.0
    """Fraction of the COMMITs answered with 40001 OC000 after a rollback."""
    oc001_after_ddl: bool = False
    """After DDL, the next statement of every other session fails once with 40001 OC001."""
    drop_after_commit: float = 0.0
    """The commit is done, then the connection is cut without a reply."""
    drop_before_commit: float = 0.0
    """The transaction is rolled back, then the connection is cut without a reply."""
    slow_fresh_table: float = 0.0
    """Rows a second that a table younger than `fresh_table_seconds` takes; 0 means unlimited."""
    copy_supported: bool = False
    """COPY is allowed, under the row cap."""
    token_expiry_leeway: float = 0.0
    """Seconds added to a token's life (negative: it ends earlier)."""
    max_session_seconds: float = 0.0
    """Age at which a session is cut; 0 means the limit."""
    pause: bool = False
    """Connections and statements are accepted and not answered until this is off again."""
    limits: dict[str, Any] = field(default_factory=dict)
    """Numbers of limits.Limits to change."""

    def set(self, **changes: Any) -> None:
        """Turn dials; a name that is no dial raises ValueError."""
        unknown = set(changes) - {known.name for known in fields(self)}
        if unknown:
            raise ValueError(f"unknown dials {sorted(unknown)}: the dials are {sorted(asdict(self))}")
        for name, value in changes.items():
            setattr(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """Return all dials as plain values."""
        return asdict(self)
