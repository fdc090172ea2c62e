"""The end of a Migration that is deleted on its way: its worker leaves nothing behind in the source, then it goes.

What that is says domain.aftermath. It is tried for a while only: whoever deletes a migration may have lost its source.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from whimbrel_operator.domain.migration import aftermath
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed
from whimbrel_operator.errors import NamespaceEnding, ResourceUnreadable
from whimbrel_operator.runtime.port import Key, Observation, Runtime

LOG: Final = logging.getLogger("whimbrel.reconcile")
PATIENCE: Final = timedelta(minutes=5)
NO_POD: Final = timedelta(minutes=1)
"""How long a namespace that is being deleted, in which no pod can be made any more, is held up."""


class ClearingRuntime(Runtime, Protocol):
    """A runtime that takes away all that belongs to a resource."""

    async def clear(self, key: Key, uid: str) -> bool:
        """Take a step towards nothing of a resource being left; whether something still is."""


class Abandoning:
    """Clears resources that are being deleted. What is kept here may be lost: the task is safe to repeat."""

    def __init__(
        self, runtime: ClearingRuntime, clock: Callable[[], datetime], *, patience: timedelta = PATIENCE
    ) -> None:
        self._runtime, self._clock, self._patience = runtime, clock, patience
        self._begun: dict[str, datetime] = {}
        self._left: set[str] = set()

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to a resource; None when it is gone."""
        return await self._runtime.observe(key, memory)

    async def clear(self, key: Key, uid: str) -> bool:
        """Take a step; whether something of it is left, in its source or on the cluster. Raises OperatorError."""
        if key.kind == "Migration" and uid not in self._left:
            if await self._holds(key, uid):
                return True
            self._left.add(uid)
        found = await self._runtime.clear(key, uid)
        if not found:
            self._left.discard(uid)
            self._begun.pop(uid, None)
        return found

    async def _holds(self, key: Key, uid: str) -> bool:
        """Whether something is still to be put back. First all its other workers end: they would need what goes."""
        try:
            found = await self._runtime.observe(key, Memory())
        except ResourceUnreadable as error:
            LOG.error("deleted, but it cannot be read, so nothing is put back in its source: %s", error)
            return False
        if not isinstance(found, Observed) or found.resource.metadata.uid != uid:
            return False
        if not aftermath.may_retain(found.resource):
            return False
        others = sorted({state.ref.task_id for state in found.tasks.instances} - {aftermath.ABANDON})
        for task_id in others:
            await self._runtime.remove(key, task_id)
        return bool(others) or await self._abandons(key, uid, found)

    async def _abandons(self, key: Key, uid: str, found: Observed) -> bool:
        state, now = found.tasks.find(aftermath.ABANDON), self._clock()
        if state is not None and state.done:
            return False
        waited = now - self._begun.setdefault(uid, now)
        if waited > self._patience:
            return await self._gives_up(key, found)
        try:
            await self._runtime.apply(key, aftermath.abandon(View(found, now, found.memory)))
        except NamespaceEnding:
            return waited <= NO_POD or await self._gives_up(key, found)
        return True

    async def _gives_up(self, key: Key, found: Observed) -> bool:
        told = aftermath.by_hand(found.resource)
        LOG.error("let go: %s", told.message)
        await self._runtime.event(key, told)
        return False
