"""Durations as manifests write them (`200ms`, `1h30m`), in seconds. Nothing else."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def seconds(duration: str) -> float:
    """The length of a duration such as `1h30m` in seconds. Raises ValueError for anything else."""
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration; write it like 200ms, 5s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
