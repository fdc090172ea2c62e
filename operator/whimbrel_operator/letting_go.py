"""A deleted resource's way out: a ReverseSync goes only after what it made on the server. What it takes is domain's."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from whimbrel_api.repeats import Repeats
from whimbrel_operator.domain.observed import Memory, ObservedReverseSync
from whimbrel_operator.domain.reverse.end import by_hand, is_released
from whimbrel_operator.domain.reverse.view import ReverseView
from whimbrel_operator.errors import NamespaceEnding
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key, Observation, Status
from whimbrel_operator.telling import MINUTE, tell

LOG: Final = logging.getLogger("whimbrel.reconcile")
PATIENCE: Final = 20.0
"""Seconds that a namespace which is being deleted is held up by what no pod can take away any more."""


def _unseen(_key: Key, _status: Status) -> None:
    """Nobody is told."""


class Place(Protocol):
    """What of a runtime is needed here."""

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to a resource; None when it is gone."""

    async def clear(self, key: Key, uid: str) -> bool:
        """Take a step towards nothing of a resource being left; whether something still is."""


class LettingGo:
    """Clears resources that are being deleted. `clock` in seconds; `seen` is told each status that was decided."""

    def __init__(
        self,
        reconciler: Reconciler,
        place: Place,
        clock: Callable[[], float],
        seen: Callable[[Key, Status], None] = _unseen,
        patience: float = PATIENCE,
    ) -> None:
        self._reconciler, self._place, self._clock, self._seen = reconciler, place, clock, seen
        self._patience = patience
        self._refused_since: dict[str, float] = {}
        self._repeats = Repeats(MINUTE)

    async def clear(self, key: Key, uid: str) -> bool:
        """Take a step; whether something of it is left, on a server or on the cluster. Raises OperatorError."""
        if key.kind == "ReverseSync" and await self._holds(key, uid):
            return True
        self._refused_since.pop(uid, None)
        return await self._place.clear(key, uid)

    async def _holds(self, key: Key, uid: str) -> bool:
        """Whether what it made on the server is still to be taken away. One of the same name made later does not."""
        found = await self._place.observe(key, Memory())
        if not isinstance(found, ObservedReverseSync) or found.resource.metadata.uid != uid:
            return False
        if is_released(found.resource.status) is not None:
            return False
        try:
            outcome = await self._reconciler.reconcile(key)
        except NamespaceEnding:
            return not self._given_up(uid, found)
        tell(self._repeats, key, outcome)
        if outcome.status is not None:
            self._seen(key, outcome.status)
        return not (outcome.released or outcome.gone)

    def _given_up(self, uid: str, found: ObservedReverseSync) -> bool:
        """No pod can be made any more in a namespace that ends: after a while it is let go.

        The log says what stays, as no event can be written there either.
        """
        since = self._refused_since.setdefault(uid, self._clock())
        if self._clock() - since < self._patience:
            return False
        stays = by_hand(ReverseView(found, datetime.now(UTC)))
        line = "let go with its namespace; its server still has, to be dropped by hand: %s"
        self._repeats.log(LOG, logging.ERROR, uid, line, stays)
        return True
