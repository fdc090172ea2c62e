"""What every target owes workers that succeed each other: attempts of their own, and no write of a former epoch.

Which server stands behind a target, and what is written to it, is the caller's.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import pytest

from whimbrel_worker.engine.ports import ControlStore, Session
from whimbrel_worker.errors import FencedOut


class Taken(Protocol):
    """What of a target is needed to take its control rows."""

    def control(self) -> ControlStore: ...
    def session(self, task: str, index: int) -> Session: ...


def attempts_of_sessions_at_once(target: Taken, count: int = 4) -> list[int]:
    """The attempts, in order, that `count` sessions got which took one control row at the same time."""
    attempts: list[int] = []
    threads = [
        threading.Thread(target=lambda: attempts.append(target.session("stream", 0).take().attempt))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(attempts)


def require_fence_of_a_raised_epoch(target: Taken, second: Taken, late: Callable[[Session], None]) -> None:
    """Raise the epoch once: `late` by a session of the first is refused, and only `second`, of the new one, goes on."""
    session = target.session("stream", 0)
    session.take()
    assert target.control().raise_epoch("switched", "done") == 2
    assert target.control().raise_epoch("switched", "done") == 2
    with pytest.raises(FencedOut):
        late(session)
    with pytest.raises(FencedOut, match="epoch 1 of this worker is over"):
        target.session("stream", 0).take()
    assert second.session("stream", 0).take().epoch == 2
