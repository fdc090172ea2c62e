"""The people around a migration, as the demo plays them: until the cutover. What comes after it stands in acts.

How an order is given stands with each demo.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from rich.console import Console

from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Migration, Phase
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.demo.comparison import Comparison
from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.stage import Side, Stage, say
from whimbrel_cli.demo.traveller import Traveller
from whimbrel_cli.figures import count, span
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.plain import way_back_figures
from whimbrel_operator.domain.cutover.rehearsal import Estimate, rehearse

AT_THE_SWITCH: Final = "at the cutover"
_FOLLOW_FOR: Final = 2.0
_TELL_EVERY: Final = 2.0

Waiting = Callable[[], bool]


class Orders(Protocol):
    """What a person types: by the local commands, or by kubectl."""

    def approve(self, plan: str) -> None:
        """Approve the plan of that hash."""

    def show(self) -> None:
        """Show how the migration and its way back stand."""

    def roll_back(self) -> None:
        """Ask for the rollback."""


@dataclass
class Director:
    """Does what people do in a real migration, and moves the application when it is time.

    It is shown the resources again and again, always in the same thread. `moments`: what it was at, from when on, in
    seconds of time.monotonic(). `failure`: why the play was ended early.
    """

    stage: Stage
    options: Options
    console: Console
    traveller: Traveller
    orders: Orders
    acts: Callable[["Director"], Iterator[Waiting]]
    migration: Migration | None = None
    back: ReverseSync | None = None
    moments: list[tuple[str, float]] = field(default_factory=list)
    ended: float = 0.0
    estimate: Estimate | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    failure: str = ""
    over: bool = False
    _approved: str = ""
    _told: float = 0.0
    _changes: int = 0
    _play: Iterator[Waiting] | None = None
    _waits_for: Waiting | None = None

    @property
    def played(self) -> bool:
        """Whether the play came to its end; else something stalled, was cancelled, or took too long."""
        return self.over and self._play is not None and self._waits_for is None

    def look(self, resources: Sequence[Resource]) -> bool:
        """Looks at all there are, and does what is due. Gives whether nothing is left to play, or somebody must act."""
        self.back = next((each for each in resources if isinstance(each, ReverseSync)), None)
        for each in resources:
            self.on_change(each)
        return self.over or any(self._stuck(each) for each in resources)

    def _stuck(self, resource: Resource) -> bool:
        """Whether a person must act. A way back that is being taken away may say so, and that is meant."""
        leaving = isinstance(resource, ReverseSync) and self.rolled_back
        return condition(resource.status, "Stalled") is not None and not leaving

    @property
    def rolled_back(self) -> bool:
        """Whether the traffic is at the source again."""
        return self.migration is not None and self.migration.status.cutover.rolled_back_at is not None

    def on_change(self, resource: Resource) -> None:
        """Looks at one of them and does what is due."""
        if isinstance(resource, ReverseSync):
            self.back = resource
            self._tell_figures(resource)
        if not isinstance(resource, Migration):
            return
        self.migration = resource
        self.traveller.raise_failure()
        self._note(resource)
        self._until_the_switch(resource)
        self._play_on()
        if finished(resource) and resource.status.phase is not Phase.COMPLETED:
            self.over = True
        if self.over:
            self.ended = self.ended or time.monotonic()

    def _note(self, migration: Migration) -> None:
        status = migration.status
        rolling = status.phase is Phase.COMPLETED and status.cutover.state is CutoverState.ROLLING_BACK
        at = CutoverState.ROLLING_BACK.value if rolling else status.phase.value
        if not self.moments or self.moments[-1][0] != at:
            self.moments.append((at, time.monotonic()))

    def _until_the_switch(self, migration: Migration) -> None:
        status = migration.status
        if self.rolled_back:
            return
        if status.cutover.state is CutoverState.AWAITING_APPROVAL and status.phase is Phase.FOLLOWING:
            self._approve(migration)
        if status.cutover.state is CutoverState.FREEZING:
            self.stop()
        if status.cutover.state is CutoverState.FINAL_CHECK and self.stage.must_rest and not self.comparisons:
            self.compare(AT_THE_SWITCH, "meanwhile plain reads compare all of both, since both are at rest")

    def _approve(self, migration: Migration) -> None:
        """Approves after a while of following, so that a watcher sees the gates open."""
        plan, now = migration.status.plan.hash, time.monotonic()
        if plan == self._approved or now - self.moments[-1][1] < _FOLLOW_FOR:
            return
        self._approved = plan
        self.estimate = rehearse(migration, datetime.now(UTC)).pause
        expected = estimated(self.estimate)
        self.say(f"The gates are open. `whimbrel cutover --dry-run` expects {expected} without writes.")
        self.orders.approve(plan)

    def _play_on(self) -> None:
        """The acts up to the next thing that has to be waited for."""
        if self._play is None:
            self._play = self.acts(self)
            self._waits_for = next(self._play, None)
        while self._waits_for is not None and self._waits_for():
            self._waits_for = next(self._play, None)
        self.over = self.over or self._waits_for is None

    def _tell_figures(self, back: ReverseSync) -> None:
        """How changes flow back, each time that some have."""
        figures, changes, now = way_back_figures(back.status), back.status.changes_applied, time.monotonic()
        if figures and changes != self._changes and now - self._told >= _TELL_EVERY:
            self._changes, self._told = changes, now
            self.say(f"Flowing back, {self.stage.target} → {self.stage.source}: {figures}")

    def start(self, side: Side, *, held: float = 0.0) -> None:
        """Lets the application write there."""
        self.traveller.start(side, held=held)
        self.say(f"The application writes to {self.stage.name(side)} now.")

    def stop(self) -> None:
        """Stops the application, where it writes."""
        if (done := self.traveller.stop()) is not None:
            self.say(f"The application has stopped writing, after {count(done.changes)} changed rows.")

    def compare(self, when: str, what: str, read: Callable[[], list[str]] | None = None) -> Comparison:
        """Begins a comparison; of both sides as they are now, if nothing else is given."""
        self.say(f"Comparison {when}: {what}.")
        self.comparisons.append(Comparison(when, read or self.stage.as_they_are()))
        return self.comparisons[-1]

    def say(self, text: str) -> None:
        """Prints what happens around the migration."""
        say(self.console, text)


def estimated(estimate: Estimate | None) -> str:
    """An estimate as `whimbrel cutover --dry-run` words it: at most 31 s."""
    if estimate is None or estimate.seconds is None:
        return "an unknown time"
    return f"{'at most' if estimate.at_most else 'about'} {span(estimate.seconds)}"
