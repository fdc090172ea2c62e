"""Positions in PostgreSQL's log as text and as numbers that can be compared. Pure; who reads them stands elsewhere.

Form: PostgreSQL manual, "pg_lsn Type": two hexadecimal numbers of up to 8 digits with a slash between them.
"""

import re
from typing import Final

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


def lsn_number(text: str) -> int | None:
    """A position such as 16/B374D848 as a number; None for anything else."""
    found = _TEXT.fullmatch(text)
    return None if found is None else int(found[1], 16) << 32 | int(found[2], 16)


def later(one: str, other: str) -> str:
    """The later of two positions; what is none counts as the earliest."""
    return max(other, one, key=lambda text: -1 if (number := lsn_number(text)) is None else number)
