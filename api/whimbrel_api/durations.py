"""Durations as manifests write them (`200ms`, `1h30m`): in seconds, and back for a reader. No type stands here."""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SHOWN = (
    (_HOUR, ("m", _MINUTE), ("s", 1)),
    (_DAY, ("h", _HOUR), ("m", _MINUTE)),
    (math.inf, ("d", _DAY), ("h", _HOUR)),
)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def seconds(duration: str) -> float:
    """The length of a duration such as `1h30m` in seconds. Raises ValueError for anything else."""
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration; write it like 200ms, 5s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def text(length: float, gap: str = "") -> str:
    """A length in seconds as a reader wants it: 0.4s, 12s, 3m20s, 2h5m, 4d3h; `gap` parts numbers and units."""
    if length < 9.95:
        return f"{max(0.0, length):.1f}{gap}s"
    whole = round(length)
    if whole < _MINUTE:
        return f"{whole}{gap}s"
    (large, one), (small, part) = next((large, small) for limit, large, small in _SHOWN if whole < limit)
    return gap.join((str(whole // one), large, str(whole % one // part), small))
