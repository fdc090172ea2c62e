"""One resource's daemon: pass after pass, for ever, whatever happens. What a pass does stands in reconcile."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from whimbrel_api.logs import lines_about
from whimbrel_api.repeats import Repeats
from whimbrel_operator.errors import (
    OperatorDefect,
    OperatorError,
    Refused,
    ResourceUnreadable,
    StateUnreadable,
    TaskTooLarge,
    Transient,
)
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.reconcile import Outcome, Reconciler
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.telling import MINUTE, tell
from whimbrel_operator.troubles import Told, told, unanswered
from whimbrel_operator.wakeups import Board, Wakeup

LOG: Final = logging.getLogger("whimbrel.reconcile")
NEAREST: Final = 0.2
BUSY: Final = 5.0
AT_REST: Final = 30.0
# Most resources of a cluster have ended long ago; only a change of their own can concern them.
ENDED: Final = 300.0
_ENDS: Final = ("Completed", "Cancelled")
_JITTER: Final = 0.2
# Pods that outlive their Job ring no bell.
_STILL_ENDING: Final = 2.0
_FIRST_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 60.0
# An unforeseen error may be gone with the next pass; one that stays is a defect that a person should see.
_STAYS: Final = 3
_PERSONS: Final = (ResourceUnreadable, Refused, TaskTooLarge, StateUnreadable)
"""What only a person can put right: work on the resource has stopped until then."""


@dataclass(frozen=True)
class Rest:
    """Seconds to wait for the next pass. `patient`: only a change of the resource itself ends it sooner."""

    seconds: float
    patient: bool = False


def after(outcome: Outcome) -> Rest:
    """When to look again after a pass: at once while it moves, often while something runs, seldom at rest."""
    if outcome.moved:
        return Rest(0.0)
    if outcome.busy:
        return Rest(_spread(BUSY))
    return Rest(_spread(ENDED if outcome.status is not None and outcome.status.phase in _ENDS else AT_REST))


def backoff(failures: int) -> Rest:
    """How long to wait after that many failed passes in a row: 1 s, doubled up to 60 s, spread over its upper half."""
    whole: float = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(failures - 1, 10))
    return Rest(max(_FIRST_BACKOFF, whole * random.uniform(0.5, 1.0)), patient=True)  # noqa: S311


def _longer(rest: Rest, error: Exception) -> Rest:
    """What the API server asked for, if that is longer."""
    asked = error.retry_after if isinstance(error, Transient) else 0.0
    return Rest(max(rest.seconds, asked), patient=True)


def _spread(length: float) -> float:
    return length * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - so that a thousand do not wake together


@dataclass
class Shared:
    """What all daemons have in common.

    `leads`: whether the Lease still holds, by the clock; without it nothing is begun. `clear` takes a step towards
    nothing of a resource being left, and says whether something is. `refuse` says in a resource's status why it cannot
    be worked on until a person acts. `repeats` keeps what goes on from being logged with each pass, `steps` what flaps.
    """

    reconciler: Reconciler
    board: Board
    metrics: Metrics
    slots: asyncio.Semaphore
    clock: Callable[[], float]
    leads: Callable[[], bool]
    clear: Callable[[Key, str], Awaitable[bool]]
    refuse: Callable[[Key, OperatorError], Awaitable[None]]
    pass_timeout: float = 30.0
    nearest: float = NEAREST
    repeats: Repeats = field(default_factory=Repeats)
    steps: Repeats = field(default_factory=lambda: Repeats(MINUTE))


async def _refuse(shared: Shared, key: Key, error: OperatorError) -> bool:
    """Whether its status says now what is wrong. Nobody who waits for a resource reads the operator's log."""
    try:
        await shared.refuse(key, error)
    except Exception as second:  # noqa: BLE001 - told, and tried again with the next pass
        line = "its status could not say so, tries again: %s"
        shared.repeats.log(LOG, logging.WARNING, (key, "unsaid"), line, told(second).line)
        return False
    shared.metrics.refused(key)
    return True


def _level(trouble: Told, error: Exception) -> int:
    """ERROR where a person must act or the program is wrong, WARNING where it is only tried again."""
    return logging.ERROR if isinstance(error, _PERSONS) or not trouble.expected else logging.WARNING


def _subject(key: Key, trouble: Told, error: Exception) -> tuple[object, ...]:
    """What a failure is about: an API server that is silent is one thing, whichever resource was looked at."""
    return (trouble.kind,) if unanswered(error) else (key, trouble.kind)


class Daemon:
    """The life of one resource, until it is gone or the daemon is cancelled."""

    def __init__(self, shared: Shared, wakeup: Wakeup) -> None:
        self._shared, self._wakeup, self._key = shared, wakeup, wakeup.key
        self._failures, self._epoch, self._said = 0, 0, False

    async def run(self) -> None:
        """Pass after pass. Ends when the resource is gone; errors never end it."""
        try:
            while not self._wakeup.gone:
                await self._rest(await self._next())
        finally:
            self._shared.board.leave(self._wakeup)

    async def _next(self) -> Rest:
        """One pass in its turn: one at a time for a name, and a bounded number over all."""
        async with self._shared.board.lock(self._key), self._shared.slots:
            with lines_about(resource=str(self._key), epoch=self._epoch or None):
                return await self._turn()

    async def _turn(self) -> Rest:
        if not self._shared.leads():
            return Rest(NEAREST, patient=True)
        self._wakeup.begin()
        self._shared.metrics.begins(self._key)
        started = self._shared.clock()
        try:
            return await self._pass()
        except Exception as error:  # noqa: BLE001 - a daemon that ends would leave its resource alone for ever
            return await self._failed(error)
        finally:
            self._shared.metrics.took(self._key.kind, self._shared.clock() - started)

    async def _pass(self) -> Rest:
        async with asyncio.timeout(self._shared.pass_timeout):
            outcome = await self._shared.reconciler.reconcile(self._key)
        if self._said:
            LOG.info("works again after %d failed passes", self._failures)
        self._failures, self._said = 0, False
        if outcome.gone:
            # The news of its end may be lost, and kopf makes up none for what a new listing lacks.
            self._wakeup.gone = True
            self._shared.metrics.forget(self._key)
        elif outcome.status is not None:
            self._wakeup.phase = outcome.status.phase
            self._epoch = getattr(outcome.status, "epoch", 0)
            self._shared.metrics.seen(self._key, outcome.status, outcome.observed)
        tell(self._shared.steps, self._key, outcome)
        return self._owed(after(outcome))

    async def _failed(self, error: Exception) -> Rest:
        """Tell what went wrong, once for each pass, and wait the longer the oftener it does."""
        self._failures += 1
        trouble = told(error)
        self._shared.metrics.failed(self._key.kind, trouble.kind)
        rest = _longer(backoff(self._failures), error)
        self._say(trouble, error, rest)
        if isinstance(error, ResourceUnreadable):
            said = await _refuse(self._shared, self._key, error)
            return self._owed(Rest(_spread(AT_REST), patient=True) if said else rest)
        if isinstance(error, _PERSONS):
            await _refuse(self._shared, self._key, error)
        elif not trouble.expected and self._failures >= _STAYS:
            await _refuse(self._shared, self._key, OperatorDefect(type(error).__name__))
        return rest if unanswered(error) else self._owed(rest)

    def _say(self, trouble: Told, error: Exception, rest: Rest) -> None:
        subject, trace = _subject(self._key, trouble, error), None if trouble.expected else error
        line = "pass %d in a row failed, next in %.0f s: %s"
        values: tuple[object, ...] = (self._failures, rest.seconds, trouble.line)
        if isinstance(error, ResourceUnreadable):
            line, values = "waits for a change of its spec: %s", (trouble.line,)
        level = _level(trouble, error)
        self._said |= self._shared.repeats.log(LOG, level, subject, line, *values, exc_info=trace)

    def _owed(self, rest: Rest) -> Rest:
        """The pass has come to an end, good or bad: the next is owed only after the rest."""
        ring = self._wakeup.rung.is_set() and (self._wakeup.changed or not rest.patient)
        self._wakeup.due = self._shared.clock() + (0.0 if ring else rest.seconds)
        return rest

    async def _rest(self, rest: Rest) -> None:
        """Wait until it is time, or until the bell rings; never for less than the nearest two passes may be."""
        if self._wakeup.gone:
            return
        began = self._shared.clock()
        await asyncio.sleep(self._shared.nearest)
        end = began + max(rest.seconds, self._shared.nearest)
        while not self._wakeup.gone and self._shared.clock() < end:
            if self._wakeup.rung.is_set() and (self._wakeup.changed or not rest.patient):
                return
            self._wakeup.rung.clear()
            await _ring_or(self._wakeup, end - self._shared.clock())


class Clearing:
    """The end of one resource: all that belongs to it is taken away, however long that takes."""

    def __init__(self, shared: Shared, key: Key, uid: str) -> None:
        self._shared, self._key, self._uid = shared, key, uid
        self._wakeup = shared.board.join(key, uid)
        self._failures = self._steps = 0

    async def run(self) -> None:
        """Returns only when nothing is left: the finalizer must stay until then. Errors never end it."""
        with lines_about(resource=str(self._key)):
            await self._run()

    async def _run(self) -> None:
        self._shared.metrics.clears(self._key)
        try:
            while not await self._done():
                await asyncio.sleep(self._shared.nearest)
        finally:
            self._shared.board.leave(self._wakeup)
        self._shared.metrics.forget(self._key)
        self._shared.reconciler.forget(self._key)
        LOG.info("deleted: nothing of it is left")

    async def _done(self) -> bool:
        self._wakeup.begin()
        self._wakeup.due = min(self._wakeup.due, self._shared.clock())
        try:
            if not await self._left():
                return True
        except Exception as error:  # noqa: BLE001 - told, and tried again
            await self._failed(error)
            return False
        self._failures, self._steps, self._wakeup.due = 0, self._steps + 1, math.inf
        self._shared.metrics.cleared(self._key)
        await _ring_or(self._wakeup, min(_STILL_ENDING, NEAREST * 2.0**self._steps))
        return False

    async def _left(self) -> bool:
        shared = self._shared
        async with shared.board.lock(self._key), shared.slots, asyncio.timeout(shared.pass_timeout):
            return not shared.leads() or await shared.clear(self._key, self._uid)

    async def _failed(self, error: Exception) -> None:
        self._failures += 1
        trouble, rest = told(error), _longer(backoff(self._failures), error)
        self._shared.metrics.failed(self._key.kind, trouble.kind)
        trace = None if trouble.expected else error
        subject, line = _subject(self._key, trouble, error), "not cleared yet, next try in %.0f s: %s"
        level = _level(trouble, error)
        self._shared.repeats.log(LOG, level, subject, line, rest.seconds, trouble.line, exc_info=trace)
        if isinstance(error, _PERSONS):
            await _refuse(self._shared, self._key, error)
        if not unanswered(error):
            self._wakeup.due = math.inf
        await asyncio.sleep(rest.seconds)


async def _ring_or(wakeup: Wakeup, seconds: float) -> None:
    """Wait for the bell, but not longer than that."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await wakeup.rung.wait()
    except TimeoutError:
        return
