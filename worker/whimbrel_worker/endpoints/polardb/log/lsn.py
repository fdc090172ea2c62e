"""Positions in PostgreSQL's log, as numbers and as text. Pure; whoever reads or keeps them stands elsewhere."""

from typing import Final

from whimbrel_api.lsn import lsn_number
from whimbrel_worker.errors import ConfigurationError

NOWHERE: Final = 0
"""InvalidXLogRecPtr: no position."""


def parse_lsn(text: str) -> int:
    """A position from its text, such as 16/B374D848. Raises ConfigurationError for anything else."""
    found = lsn_number(text)
    if found is None:
        raise ConfigurationError(
            "a log position cannot be read",
            why=f"{text[:80]!r} is not of the form 16/B374D848",
            todo="see where the position comes from; if from the control table, report this",
        )
    return found


def format_lsn(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
