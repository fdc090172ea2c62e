"""A bell that any number of tasks may wait for, and that none of them misses."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Bell:
    """Rung when something changed. Take `rings` before looking, then wait for a ring after that one."""

    def __init__(self) -> None:
        self.rings = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.rings += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, after: int, seconds: float | None = None) -> None:
        """Return once the bell was rung after that count, or when the time is over."""
        if self.rings > after:
            return
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the ring.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
