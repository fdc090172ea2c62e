"""Whether rows may still be on their way: the stream's position against the source's. No row is read here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from whimbrel_worker.engine.ports import ControlStore, Source

STREAM = "stream"
_LOOK_EVERY = 0.2
_AGAIN = 1.0
"""Seconds to wait once a first wait has failed: a stream that stands still is not waited for again and again."""


class Arrival(Protocol):
    """Whether what the source has written reaches the target by a stream, and whether it is there."""

    @property
    def exists(self) -> bool:
        """Whether a stream has ever written into the target."""

    def caught_up(self) -> bool:
        """Wait until the target holds all that the source has committed by now. False: it did not in time."""


@dataclass(slots=True)
class Flow:
    """The stream into the target, if there is one. `control` None: none. `wait` may raise to end the task."""

    source: Source
    control: ControlStore | None
    wait: Callable[[float], None]
    patience: float = 60.0

    @property
    def exists(self) -> bool:
        """Whether a stream has ever written into the target."""
        return self.control is not None and bool(self.control.positions(STREAM))

    def caught_up(self) -> bool:
        """Wait until the target holds all that the source has committed by now. False: it did not in time."""
        position = self.source.position()
        deadline = time.monotonic() + self.patience
        while not self._holds(position):
            if time.monotonic() >= deadline:
                self.patience = min(self.patience, _AGAIN)
                return False
            self.wait(_LOOK_EVERY)
        return True

    def _holds(self, position: str) -> bool:
        if self.control is None:
            return True
        applied = list(self.control.positions(STREAM).values())
        return not applied or (all(applied) and self.source.covers(self.source.least(applied), position))
