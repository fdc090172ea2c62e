"""Positions of a source without one log: moments of the source's clock as text. Pure; the positions of shards stand in
the control table.

A position `2026-11-21T19:00:00.123Z` means: everything that was created before this moment. A freeze position is such a
moment with the name of kept shard positions behind a `#`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor
from typing import Final

from whimbrel_worker.errors import ConfigurationError

_SEPARATOR: Final = "#"


def freeze_position(moment: str, name: str) -> str:
    """The text of a freeze position."""
    return f"{moment}{_SEPARATOR}{name}"


def name_of(position: str) -> str:
    """The name in a freeze position; empty where it is a plain moment."""
    return position.partition(_SEPARATOR)[2]


def moment_text(at: float) -> str:
    """A moment in seconds since 1970 as text, cut to the millisecond before it."""
    return datetime.fromtimestamp(floor(at * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def seconds_of(position: str) -> float:
    """The moment of a position in seconds since 1970. Raises ConfigurationError for another kind of position."""
    moment = position.partition(_SEPARATOR)[0]
    try:
        return datetime.fromisoformat(moment.removesuffix("Z") + "+00:00").timestamp()
    except ValueError:
        raise ConfigurationError(
            f"{position[:200]!r} is no position of a DynamoDB source",
            why="it should be a moment such as 2026-11-21T19:00:00.123Z",
            todo="begin a new migration under another name: this one's record was written for another source",
        ) from None


def covers(position: str, other: str) -> bool:
    """Whether one moment is not before another; the empty position is before all."""
    return not other or (bool(position) and seconds_of(position) >= seconds_of(other))


def least(positions: Sequence[str]) -> str:
    """The earliest moment; empty where there is none."""
    if not positions or "" in positions:
        return ""
    return min(positions, key=seconds_of)
