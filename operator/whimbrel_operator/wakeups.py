"""Who is to be looked at, and since when: the board on which events ring and daemons wait. Nothing is reconciled here.

All of it lives in one event loop; times are that loop's, in seconds.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_api.cutover import CutoverState
from whimbrel_operator.runtime.port import Key

_WITH_IT: Final = (CutoverState.ARMING_REVERSE.value, CutoverState.ROLLING_BACK.value)


@dataclass(eq=False)
class Wakeup:
    """One resource's bell. `due` is the time from which a pass is owed; `gone` that none will be any more.

    `phase` is the one that its daemon has decided last, empty before there is one.
    """

    key: Key
    uid: str
    due: float
    refers_to: str = ""
    gone: bool = False
    changed: bool = False
    phase: str = ""
    rung: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """A pass begins: what rings from now on is for the next one."""
        self.rung.clear()
        self.changed = False


class Board:
    """All resources that have a daemon, by uid and by key."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_uid: dict[str, Wakeup] = {}
        self._seen: dict[str, str] = {}
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    def join(self, key: Key, uid: str, refers_to: str = "") -> Wakeup:
        """A daemon begins. `refers_to`: the Migration that the resource names in its own namespace, or empty."""
        wakeup = Wakeup(key, uid, due=self._clock(), refers_to=refers_to)
        self._by_uid[uid] = wakeup
        return wakeup

    def leave(self, wakeup: Wakeup) -> None:
        """A daemon has ended."""
        if self._by_uid.get(wakeup.uid) is wakeup:
            del self._by_uid[wakeup.uid]
        if not any(each.key == wakeup.key for each in self._by_uid.values()):
            self._locks.pop(wakeup.key, None)

    def lock(self, key: Key) -> asyncio.Lock:
        """Held by whoever works on that name: a resource made anew may meet what is left of the former one's daemon."""
        return self._locks[key]

    def child(self, uid: str) -> None:
        """Something that belongs to the resource has changed."""
        self._ring(self._by_uid.get(uid))

    def changed(self, uid: str, body: Mapping[str, Any]) -> bool:
        """The resource was written. Its daemon is woken if that concerns it: what it wrote itself does not.

        A phase that it did not write does: somebody has wiped or rewound the status.

        True if those that refer to it are concerned as well.
        """
        before, now = self._seen.get(uid), signature(body)
        self._seen[uid] = now
        known = self._by_uid.get(uid)
        if known is not None:
            known.refers_to = referred(body)
        if before is None or asked(before) != asked(now):
            self._ring(known, changed=True)
        elif known is not None and known.phase and known.phase != phase_of(body):
            self._ring(known)
        return before != now

    def deleted(self, uid: str) -> None:
        """The resource is no more."""
        self._seen.pop(uid, None)
        known = self._by_uid.get(uid)
        if known is not None:
            known.gone = True
            self._ring(known, changed=True)

    def around(self, key: Key, body: Mapping[str, Any]) -> None:
        """Wake those that refer to this resource, and the Migration that it refers to."""
        name = referred(body)
        for each in self._by_uid.values():
            if each.key.namespace != key.namespace or each.key == key:
                continue
            is_named = name and (each.key.kind, each.key.name) == ("Migration", name)
            if is_named or (key.kind == "Migration" and each.refers_to == key.name):
                self._ring(each)

    def overdue(self, limit: float) -> list[tuple[Key, float]]:
        """Resources whose pass is owed for longer than `limit` seconds, with how long; the longest first."""
        now = self._clock()
        found = [(each.key, now - each.due) for each in self._by_uid.values() if now - each.due > limit]
        return sorted(found, key=lambda pair: -pair[1])

    def _ring(self, wakeup: Wakeup | None, *, changed: bool = False) -> None:
        if wakeup is not None:
            wakeup.due = min(wakeup.due, self._clock())
            wakeup.changed = wakeup.changed or changed
            wakeup.rung.set()

    def __len__(self) -> int:
        return len(self._by_uid)


def signature(body: Mapping[str, Any]) -> str:
    """What of a resource concerns daemons, its own and others', as text; figures in its status do not."""
    meta, status = body.get("metadata", {}), body.get("status") or {}
    told = (meta.get("generation"), bool(meta.get("deletionTimestamp")), meta.get("annotations"))
    said = [status.get(name) for name in ("phase", "result", "completedAt")]
    said += _between(status)
    return json.dumps([told, said], sort_keys=True, default=str)


def _between(status: Mapping[str, Any]) -> list[Any]:
    """What a Migration and its way back tell each other while one is armed, or drained and held for a rollback."""
    cutover = status.get("cutover") or {}
    back = cutover.get("rollback") or {}
    told = [cutover["state"], back.get("position"), back.get("hold")] if cutover.get("state") in _WITH_IT else []
    told += [cutover["leftUnread"]] if cutover.get("leftUnread") else []
    return told + [status[name] for name in ("drainedTo", "held", "unread") if status.get(name)]


def phase_of(body: Mapping[str, Any]) -> str:
    """The phase in the resource's status, or empty."""
    return str((body.get("status") or {}).get("phase", ""))


def asked(seen: str) -> Any:
    """The part of a signature that its own daemon does not write."""
    return json.loads(seen)[0]


def referred(body: Mapping[str, Any]) -> str:
    """The name of the Migration that a resource refers to, or empty."""
    ref = (body.get("spec") or {}).get("migrationRef") or {}
    return str(ref.get("name", ""))
