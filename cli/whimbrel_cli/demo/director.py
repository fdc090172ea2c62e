"""The people around a migration, as the demo plays them. How an approval is given stands with each demo."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console

from whimbrel_api.migration import CutoverState, Migration, Phase
from whimbrel_cli.demo.stage import Application, Done
from whimbrel_cli.figures import count
from whimbrel_cli.guidance import Resource, finished

_FOLLOW_FOR: Final = 2.0


@dataclass
class Director:
    """Does what people do in a real migration: approves the plan, and stops the application when it is time.

    It is called with each new status, always in the same thread. `approve` gives the approval for a plan's hash;
    `entered` holds when each phase began.
    """

    application: Application
    console: Console
    approve: Callable[[str], None]
    entered: dict[str, float] = field(default_factory=dict)
    ended: float = 0.0
    counts: Done | None = None
    _approved: str = ""

    def on_change(self, resource: Resource) -> None:
        """Looks at a status and does what is due."""
        if not isinstance(resource, Migration):
            return
        now, status = time.monotonic(), resource.status
        self.entered.setdefault(status.phase.value, now)
        if finished(resource):
            self.ended = self.ended or now
        if status.cutover.state is CutoverState.AWAITING_APPROVAL and status.phase is Phase.FOLLOWING:
            self._approve(status.plan.hash, now)
        if status.cutover.state is CutoverState.FREEZING:
            self.freeze()

    def _approve(self, plan: str, now: float) -> None:
        """Approves after a while of following, so that a watcher sees the gates open."""
        if plan == self._approved or now - self.entered[Phase.FOLLOWING.value] < _FOLLOW_FOR:
            return
        self._approved = plan
        self.approve(plan)

    def freeze(self) -> None:
        """Stops the application, once."""
        if self.counts is not None:
            return
        self.counts = self.application.stop()
        self.say(f"The application has stopped writing, after {count(self.counts.changes)} changed rows.")

    def say(self, text: str) -> None:
        """Prints what happens around the migration."""
        self.console.print(f"» {text}", style="bold magenta", highlight=False, soft_wrap=True)
