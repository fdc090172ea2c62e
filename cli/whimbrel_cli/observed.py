"""What a view shows at one moment, and how fast tables move between two of them. Nothing is drawn here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from whimbrel_cli.guidance import LOCAL, Caller, Resource


@dataclass(frozen=True)
class Happening:
    """An event as a view shows it."""

    at: datetime
    warning: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Checking:
    """How far a comparison is that runs just now."""

    rows: int
    rows_total: int
    differences: int


@dataclass(frozen=True)
class Observed:
    """A resource with its newest events (oldest first), rows per second by table, and the moment of looking.

    `caller`: how the commands are called that a view names. `lags`: the lag in seconds at the last looks, oldest first,
    None where it was not known; empty where nobody has looked more than once.
    """

    resource: Resource
    now: datetime
    events: Sequence[Happening] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    checking: Checking | None = None
    caller: Caller = LOCAL
    lags: Sequence[float | None] = ()


_WINDOW = 5.0
_LAGS = 60


class Rates:
    """Rows per second of each table over the last seconds, from the counts in successive statuses."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[float, int]]] = {}

    def update(self, now: float, rows: Mapping[str, int]) -> dict[str, float]:
        """Takes the counts at `now` (seconds) and gives the rates. A count that falls starts its table anew."""
        for table, copied in rows.items():
            samples = self._samples.setdefault(table, [])
            if samples and copied < samples[-1][1]:
                samples.clear()
            samples.append((now, copied))
            while len(samples) > 2 and samples[1][0] < now - _WINDOW:
                samples.pop(0)
        return {table: _rate(self._samples[table]) for table in rows}


class Lags:
    """The lag at the last looks, as far as it was observed anew; a look that brings no new observation adds none."""

    def __init__(self) -> None:
        self._seen: list[float | None] = []
        self._observed_at: datetime | None = None

    def update(self, observed_at: datetime | None, seconds: float | None) -> tuple[float | None, ...]:
        """Takes the lag observed at that moment, and gives all that are kept; nothing before the first one."""
        if observed_at is not None and observed_at != self._observed_at:
            self._observed_at = observed_at
            self._seen = [*self._seen, seconds][-_LAGS:]
        return tuple(self._seen)


def _rate(samples: list[tuple[float, int]]) -> float:
    (start, before), (end, after) = samples[0], samples[-1]
    return (after - before) / (end - start) if end > start else 0.0
