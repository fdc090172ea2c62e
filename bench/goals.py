"""What the speed should be, and whether a run reached it. The measuring stands elsewhere; nothing is asserted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import binlog_decode, dynamodb_client, snapshot, start, stream


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure beside its limit; `at_least` says on which side of it the figure should be."""

    what: str
    found: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def line(self) -> str:
        """The goal as a line of text.

        >>> Goal("lag p95", 0.25, 1, "s").line()
        'goal lag p95 ≤ 1 s: 0.25 s, reached'
        """
        sign, verdict = "≥" if self.at_least else "≤", "reached" if self.reached else "missed"
        limit, found = f"{self.limit:,g} {self.unit}", f"{_figures(self.found)} {self.unit}"
        return f"goal {self.what} {sign} {limit}: {found}, {verdict}"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def of_snapshot(result: snapshot.Result) -> list[Goal]:
    """CPU of the worker, start-up included, by both paths, and its memory."""
    own = {way.name: way for way in result.ways if way.name in (snapshot.OWN_COPY, snapshot.OWN_UPSERTS)}
    return [
        Goal("snapshot with COPY", own[snapshot.OWN_COPY].cpu_per_million, 2.2, "CPU s / M rows"),
        Goal("snapshot with upserts of 2,999", own[snapshot.OWN_UPSERTS].cpu_per_million, 3.0, "CPU s / M rows"),
        _memory("snapshot", [way.memory for way in own.values()]),
    ]


def of_decoding(results: Sequence[binlog_decode.Measurement]) -> list[Goal]:
    """Our rate by CPU over the package's, for each kind of change."""
    limits = {"one-row updates": 15.0, "bulk inserts": 8.0}
    own = [one for one in results if one.decoder == binlog_decode.OWN]
    return [Goal(f"decoding {one.change}", one.ratio, limits[one.change], "×", at_least=True) for one in own]


def of_stream(result: stream.Result) -> list[Goal]:
    """Rate, memory and lag of the worker that follows."""
    own = result.ways[0]
    return [
        Goal("stream end to end", own.rate, 10_000, "changes/s", at_least=True),
        _memory("stream", [own.memory]),
        Goal("lag p95 of a trickle", result.p95, 1.0, "s"),
    ]


def of_items(results: Sequence[dynamodb_client.Measurement]) -> list[Goal]:
    """CPU for each item of 250 B, by our own client in either direction."""
    limits = {dynamodb_client.WRITE: 9.0, dynamodb_client.READ: 11.0}
    own = [one for one in results if one.client == dynamodb_client.OWN]
    return [Goal(f"an item's {one.direction}", one.micros_an_item, limits[one.direction], "CPU µs") for one in own]


def of_start(starts: Sequence[start.Start]) -> list[Goal]:
    """Seconds until a program begins with its work."""
    return [Goal(f"start of the {one.program}", one.best, 2.0, "s") for one in starts]


def _memory(worker: str, peaks: Sequence[float]) -> Goal:
    return Goal(f"memory of the {worker} worker", max(peaks), 200, "MB")
