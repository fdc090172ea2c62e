"""A few figures over time as one line of bars. What the figures mean stands with those who draw them."""

from collections.abc import Sequence
from typing import Final

BARS: Final = "▁▂▃▄▅▆▇█"
ASCII_BARS: Final = "_.-=+*%#"
UNKNOWN: Final = " "


def sparkline(values: Sequence[float | None], width: int, bars: str = BARS) -> str:
    """The newest `width` values as bars from nothing to their greatest one; a blank where one is not known.

    Where all are nothing, the lowest bar stands for each. Raises ValueError for a negative value.
    """
    shown = values[-width:] if width > 0 else ()
    known = [value for value in shown if value is not None]
    if any(value < 0 for value in known):
        raise ValueError("a bar is at least nothing")
    most = max(known, default=0.0)
    return "".join(UNKNOWN if value is None else _bar(value, most, bars) for value in shown)


def _bar(value: float, most: float, bars: str) -> str:
    """The lowest bar for nothing, the highest for the most, and what is between by its share."""
    return bars[0] if most <= 0 else bars[round(value / most * (len(bars) - 1))]
