"""A token bucket over rows a second: how long to wait before the next batch. It does not wait itself and knows no
batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Throttle:
    """Lets rows through at a rate that may change; None lets all through.

    A batch is let through whole as soon as the earlier ones are paid for, so that a rate below a batch's size works
    too. Unused time counts for one second at most.
    """

    clock: Callable[[], float] = time.monotonic
    _paid_until: float = field(default=0.0, init=False)

    def spend(self, rows: int, rate: float | None) -> None:
        """Count rows that were let through."""
        if rate is not None:
            self._paid_until = max(self._paid_until, self.clock() - 1.0) + rows / rate
        else:
            self._paid_until = 0.0

    def wait_seconds(self, rate: float | None) -> float:
        """How long until the next batch may go."""
        return 0.0 if rate is None else max(0.0, self._paid_until - self.clock())
