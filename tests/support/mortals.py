"""Operators that die: one is killed at its k-th call to the API server, the next at another, until the life is over."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable

from support.api_faults import Faulty
from support.operator_forge import ForkedOperator
from whimbrel_testbed.kubernetes.api_proxy import Asked, Cut, Fault

MOST_LIVES = 400


class Mortal:
    """Kills an operator at its k-th call, and each that follows it at another."""

    def __init__(self, run: Faulty, operator: ForkedOperator, draw: Callable[[int], tuple[int, bool]]) -> None:
        self._run, self._operator, self._draw = run, operator, draw
        self.lives = self._calls = 0
        self._last, self._late = draw(0)
        self.every_call = False
        self.deaths: Counter[str] = Counter()

    def born(self) -> None:
        assert self.lives < MOST_LIVES, f"no end after {self.lives} lives\n{self._run.story()}"
        self._run.free_lease()
        self._last, self._late = self._draw(self.lives)
        self._calls = 0
        self.lives += 1

    def rule(self, asked: Asked) -> Fault | None:
        if not self.every_call and (not asked.writes or "/leases" in asked.path):
            return None
        self._calls += 1
        if self._calls != self._last:
            return None
        self.deaths[f"{asked.method} {'after' if self._late else 'before'}"] += 1
        return Cut(self._late, lambda: self._operator.send(signal.SIGKILL))
