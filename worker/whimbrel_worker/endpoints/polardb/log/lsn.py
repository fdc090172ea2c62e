"""Positions in PostgreSQL's log, as numbers and as text. Pure; whoever reads or keeps them stands elsewhere.

Form: PostgreSQL manual, "pg_lsn Type": two hexadecimal numbers of up to 8 digits with a slash between them.
"""

import re
from typing import Final

from whimbrel_worker.errors import ConfigurationError

NOWHERE: Final = 0
"""InvalidXLogRecPtr: no position."""
_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


def parse_lsn(text: str) -> int:
    """A position from its text, such as 16/B374D848. Raises ConfigurationError for anything else."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            "a log position cannot be read",
            why=f"{text[:80]!r} is not of the form 16/B374D848",
            todo="see where the position comes from; if from the control table, report this",
        )
    return int(found[1], 16) << 32 | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
