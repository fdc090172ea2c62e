"""A stage for plays in memory: an application that only counts, comparisons that find what they are told."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from support.live_states import NOW, PLAN
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.demo.director import Director, Waiting
from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.stage import Application, Done, Side, Stage
from whimbrel_cli.demo.traveller import Traveller
from whimbrel_testbed.dynamodb.traffic import TrafficCounts

ITEMS: dict[str, Any] = {
    "source": {"dynamodb": {"region": "us-east-1"}},
    "target": {"dynamodb": {"endpoint": "http://polardb:5432", "credentialsSecretRef": {"name": "target"}}},
    "reverseSync": {"enabled": True, "polardb": {"host": "polardb", "credentialsSecretRef": {"name": "log"}}},
}


@dataclass
class Counting:
    """An application whose first and last write are given."""

    counts: TrafficCounts

    def stop(self) -> TrafficCounts:
        return self.counts

    def raise_failure(self) -> None:
        """It never fails."""


@dataclass(frozen=True)
class Played(Stage):
    """`moments`: the first and the last write of each application, in turn; `found`: of each comparison."""

    moments: Sequence[tuple[float, float]] = ()
    found: Sequence[list[str]] = ()
    left: Sequence[str] = ()
    rests: bool = True
    told_of: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return "here"

    @property
    def target(self) -> str:
        return "there"

    @property
    def must_rest(self) -> bool:
        return self.rests

    @contextmanager
    def application(self, side: Side, *, rate: float, seed: int) -> Iterator[Application]:
        first, last = self.moments[len([each for each in self.told_of if each != "compared"])]
        self.told_of.append(f"{side.value} by seed {seed}")
        yield Counting(TrafficCounts(calls=1, puts=int(rate), first_write=first, last_write=last))

    def told(self, done: Done) -> str:
        return f"{done.changes} changes."

    def secrets(self) -> dict[str, dict[str, str]]:
        return {}

    def patch(self) -> dict[str, Any]:
        return {"spec": {}}

    def as_they_are(self) -> Callable[[], list[str]]:
        found = self.found[self.told_of.count("compared")]
        self.told_of.append("compared")
        return lambda: found

    def left_behind(self) -> list[str]:
        return list(self.left)

    def places(self) -> Sequence[tuple[str, str]]:
        return ()


@dataclass
class Told:
    """What a person was played to type."""

    orders: list[str] = field(default_factory=list)

    def approve(self, plan: str) -> None:
        self.orders.append(f"approve {plan}")

    def show(self) -> None:
        self.orders.append("status")

    def roll_back(self) -> None:
        self.orders.append("rollback")


def console() -> Console:
    """One that keeps what it is told."""
    return Console(file=io.StringIO(), width=160, force_terminal=False)


def said(screen: Console) -> str:
    """All of it."""
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def director(
    stage: Played, options: Options, acts: Callable[[Director], Iterator[Waiting]], screen: Console
) -> AbstractContextManager[Director]:
    """A director of a play whose application writes to the source already."""

    @contextmanager
    def playing() -> Iterator[Director]:
        with Traveller(stage, options) as traveller:
            traveller.start(Side.SOURCE)
            yield Director(stage, options, screen, traveller, Told(), acts)

    return playing()


def items(phase: str, state: str, *, ready: bool = False, **cutover: Any) -> Migration:
    """A migration of items with a way back, in that phase."""
    condition = {"type": "RollbackReady", "status": "True", "reason": "Ready", "lastTransitionTime": NOW}
    status = {
        "phase": phase, "plan": {"hash": PLAN}, "cutover": {"state": state, **cutover},
        "conditions": [condition] if ready else [],
    }  # fmt: skip
    return Migration.model_validate({"metadata": {"name": "flights"}, "spec": ITEMS, "status": status})


def back(changes: int, **status: Any) -> ReverseSync:
    """Its way back."""
    spec = {"migrationRef": {"name": "flights"}}
    found = {"phase": "Streaming", "lag": "0.3s", "slot": {"name": "slot_1"}, "changesApplied": changes, **status}
    return ReverseSync.model_validate({"metadata": {"name": "flights"}, "spec": spec, "status": found})
