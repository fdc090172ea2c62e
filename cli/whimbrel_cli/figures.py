"""Numbers, times and names as people read them. Nothing here knows a resource's meaning."""

from datetime import datetime, timedelta

from whimbrel_api import durations
from whimbrel_api.endpoints import Source, Target
from whimbrel_api.migration import StreamStatus

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def count(number: float) -> str:
    """A count with thousands separated: 336,776."""
    return f"{number:,.0f}"


def span(seconds: float | None) -> str:
    """A length of time, shortly: 0.4 s, 12 s, 3 m 20 s, 2 h 5 m, 4 d 3 h; a dash where it is not known."""
    return "–" if seconds is None else durations.text(seconds, gap=" ")


def lag(stream: StreamStatus) -> str:
    """How far the target is behind: 0.4 s; `quiet` where nothing comes and nothing proves it; `unknown`."""
    if stream.lag_seconds is not None:
        return span(stream.lag_seconds)
    return "quiet" if stream.quiet else "unknown"


def size(number: float) -> str:
    """Bytes in decimal units: 28.4 MB."""
    unit = 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def percent(part: float, whole: float) -> int:
    """Whole percents, rounded down, so that 100 says that nothing is left; 0 where there is nothing to count."""
    return min(100, int(100 * part / whole)) if whole > 0 else 0


def ago(moment: datetime | None, now: datetime) -> float | None:
    """Seconds since then, never below zero."""
    return None if moment is None else max(0.0, (now - moment) / timedelta(seconds=1))


def clock(moment: datetime) -> str:
    """The time of the day, in the zone of the machine."""
    return moment.astimezone().strftime("%H:%M:%S")


def one_line(text: str) -> str:
    """A text from elsewhere, safe for a terminal: runs of blanks and control characters become one space."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shortened(text: str, width: int) -> str:
    """One line of at most `width` characters, its end cut off where it is longer."""
    line = one_line(text)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def source_name(source: Source) -> str:
    """Where data comes from: mysql db:3306, dynamodb us-east-1."""
    if source.dynamodb:
        return f"dynamodb {source.dynamodb.endpoint or source.dynamodb.region}"
    return f"mysql {source.mysql.host}:{source.mysql.port}" if source.mysql else "–"


def target_name(target: Target) -> str:
    """Where data goes to: auroraDSQL abc.dsql.us-east-1.on.aws:5432."""
    if target.dynamodb:
        return f"{target.dynamodb.dialect.value} {target.dynamodb.endpoint}"
    if target.aurora_dsql:
        return f"auroraDSQL {target.aurora_dsql.endpoint}:{target.aurora_dsql.port}"
    return f"postgresql {target.postgresql.host}:{target.postgresql.port}" if target.postgresql else "–"
