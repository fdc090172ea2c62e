"""How many Events a resource makes, whatever happens: what flaps is counted, what differs each time is taken together.

As client-go's EventCorrelator does (tools/record/events_cache.go), but for each Event, so that one that flaps takes
nothing from a step of the cutover. Nothing is written here.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.news import MOST_ALIKE

BURST: Final = 10
"""How often the same Event is written at once; after that one more each ONE_MORE."""
ONE_MORE: Final = timedelta(minutes=5)
ALIKE: Final = MOST_ALIKE
"""Of one reason, with other messages, within WINDOW: those after it are one Event with the newest message."""
WINDOW: Final = timedelta(minutes=10)
_MOST: Final = 4096
_V = TypeVar("_V")


@dataclass(frozen=True)
class Passed:
    """What is to be written: an Event, how often it came since the last time, and whether it stands for others."""

    event: Event
    times: int = 1
    combined: bool = False


@dataclass
class _Bucket:
    filled: datetime
    left: int = BURST
    held: int = 0

    def takes(self, now: datetime) -> bool:
        """Whether one more is to be written now. A clock that is set back fills nothing."""
        whole = max(0, (now - self.filled) // ONE_MORE)
        if whole or self.left == BURST:
            self.left, self.filled = min(BURST, self.left + whole), now
        self.held += 1
        if self.left == 0:
            return False
        self.left -= 1
        return True


@dataclass
class _Messages:
    newest: datetime
    known: set[str] = field(default_factory=set)


class Flow:
    """The bounds of one process; what it forgets is written once more, and counted by the cluster."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._messages: OrderedDict[Hashable, _Messages] = OrderedDict()

    def passed(self, uid: str, event: Event, now: datetime) -> Passed | None:
        """What is to be written of an Event of the resource with that uid; None: nothing now, it is counted."""
        combined = self._are_many(uid, event, now)
        key = (uid, event.type, event.reason, "" if combined else event.message)
        bucket = _kept(self._buckets, key, _Bucket(now))
        if not bucket.takes(now):
            return None
        times, bucket.held = bucket.held, 0
        return Passed(event, times, combined)

    def _are_many(self, uid: str, event: Event, now: datetime) -> bool:
        seen = _kept(self._messages, (uid, event.type, event.reason), _Messages(now))
        if now - seen.newest > WINDOW:
            seen.known.clear()
        seen.newest = now
        if event.message not in seen.known and len(seen.known) >= ALIKE:
            return True
        seen.known.add(event.message)
        return False


def _kept(found: OrderedDict[Hashable, _V], key: Hashable, fresh: _V) -> _V:
    """The value of a key, used last; the one that was not used for longest goes where there are too many."""
    value = found.setdefault(key, fresh)
    found.move_to_end(key)
    if len(found) > _MOST:
        found.popitem(last=False)
    return value
