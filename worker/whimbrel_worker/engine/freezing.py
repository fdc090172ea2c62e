"""What a source must be able to do so that its writers can be stopped for a cutover. How it does it stands in
endpoints."""

from typing import Protocol

from whimbrel_api.cutover import FreezePolicy
from whimbrel_worker.engine.ports import Problem


class Freezing(Protocol):
    """Stops the writes to a source and lets them go on. `detail` is what a journal keeps of how it was before."""

    def problems(self, policy: FreezePolicy) -> list[Problem]:
        """Why the writes could not be stopped; empty where they can."""

    def former(self, policy: FreezePolicy) -> str:
        """How it is now, as a `detail`. Changes nothing. Raises ConfigurationError where it could not be stopped."""

    def is_for(self, detail: str, policy: FreezePolicy) -> bool:
        """Whether the detail is of a freeze as this policy asks for."""

    def stop(self, detail: str) -> None:
        """Stop the writes. Safe to repeat; changes nothing where they are stopped. Raises Transient."""

    def holds(self, detail: str) -> bool:
        """Whether the writes are stopped now."""

    def undo(self, detail: str) -> None:
        """Put back what was so before. Safe to repeat. Its errors say what to do by hand."""
