"""Workers' counters added up over their lives, so that none is counted twice. Where they are served, others know."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.reports import Counters, WorkerReport
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.observed import TaskRef, Tasks

Total = tuple[TaskKind, str]
"""A task and the name of one of its counters, as `Counters` spells it."""


@dataclass(frozen=True)
class _Life:
    """One process of a worker, as far as it has told. `began` is None by workers that do not tell."""

    began: datetime | None
    counters: Counters


class Account:
    """What one resource's workers have done while this operator has looked at it.

    A worker counts from its own start, an operator from its own: at the first look what workers tell is only noted,
    because the operator before this one has counted it. So a sum begins at 0 with each operator, which `rate()` takes
    for the reset that it is. A worker that starts later counts in full, a former one that still speaks not any more.
    `heard`: when an instance spoke last, whichever of its processes that was.
    """

    def __init__(self) -> None:
        self._lives: dict[TaskRef, _Life] = {}
        self._looked = False
        self.totals: Counter[Total] = Counter()
        self.heard: dict[TaskRef, datetime] = {}

    def look(self, tasks: Tasks) -> None:
        """Take in what the workers say now."""
        for state in tasks.instances:
            # A counter that begins with its first figure hides it from rate().
            self.totals.update({(state.kind, name): 0 for name in Counters.model_fields})
            if state.word is not None:
                self._hear(state.word)
        self._looked = True

    def _hear(self, word: WorkerReport) -> None:
        ref = TaskRef(word.task_id, word.index)
        self.heard[ref] = word.observed_at
        known, now = self._lives.get(ref), _Life(word.started_at, word.counters)
        if known is not None and _former(now, known):
            return
        if known is not None and _same(now, known):
            done = _since(known.counters, now.counters)
        else:
            done = list(now.counters) if self._looked else ()
        self._lives[ref] = now
        for name, value in done:
            self.totals[word.task, name] += max(0, value)


def _former(life: _Life, known: _Life) -> bool:
    return life.began is not None and known.began is not None and life.began < known.began


def _same(life: _Life, known: _Life) -> bool:
    """Whether it is the same process. One that does not tell is another one once it has counted less."""
    if life.began is not None or known.began is not None:
        return life.began == known.began
    return all(value >= 0 for _, value in _since(known.counters, life.counters))


def _since(before: Counters, now: Counters) -> Iterable[tuple[str, int]]:
    return [(name, value - getattr(before, name)) for name, value in now]
