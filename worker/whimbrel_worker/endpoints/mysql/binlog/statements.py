"""What a statement in the log's text means for a reader of rows. Pure functions over SQL text; no parser of DDL."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Meaning(Enum):
    """What to do with a QUERY event."""

    COMMIT = auto()
    NOTHING = auto()
    """Marks a point inside the transaction and changes nothing."""
    ROLLBACK = auto()
    """Takes back rows that stand in the log before it."""
    XA = auto()
    ROWS_AS_TEXT = auto()
    """A change of rows logged as a statement: there are no row images to apply."""
    OTHER = auto()
    """DDL, accounts, maintenance: for the caller to judge."""


_LEADING: Final = re.compile(
    r"(?:\s+|/\*(?!!)[\s\S]*?\*/|--[\s\x00-\x1f][^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*![0-9]*|\*/|[(;])+"
)
"""Space, comments, the marks of version comments, and parentheses, before the first word."""
_WORD: Final = re.compile(r"[A-Za-z_]+")
_ROLLBACK_TO: Final = re.compile(r"rollback\s", re.IGNORECASE)
_CHANGES_ROWS: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "SELECT", "CALL", "DO", "VALUES", "TABLE", "IMPORT"}
)
_RDS_TABLE: Final = r"`?mysql`?\.`?rds_[a-z0-9_]+`?(?![`\w.])"
_HOUSEKEEPING: Final = re.compile(
    rf"(?:(?:insert|replace)\s+into\s+{_RDS_TABLE}\s*(?:\(|values\b)"
    rf"|update\s+{_RDS_TABLE}\s+set\b|delete\s+from\s+{_RDS_TABLE}\s*(?:where\b|\Z))[^;]*\Z",
    re.IGNORECASE,
)
"""Amazon RDS keeps its own records in tables mysql.rds_*, logged as statements whatever binlog_format is."""
_MEANINGS: Final = {
    "COMMIT": Meaning.COMMIT,
    "SAVEPOINT": Meaning.NOTHING,
    "RELEASE": Meaning.NOTHING,
    "ROLLBACK": Meaning.ROLLBACK,
    "XA": Meaning.XA,
}


def meaning_of(sql: str) -> Meaning:
    """Classify a statement by its first word."""
    leading = _LEADING.match(sql)
    text = sql[leading.end() :] if leading else sql
    word = _WORD.match(text)
    first = word[0].upper() if word else ""
    if first in _CHANGES_ROWS:
        return Meaning.NOTHING if _HOUSEKEEPING.match(text) else Meaning.ROWS_AS_TEXT
    return _MEANINGS.get(first, Meaning.OTHER)
