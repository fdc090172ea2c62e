"""Which records of a Kinesis data stream still count, although they may come twice and out of order. Pure.

What is promised is the time in each record, not the order of the records (Amazon DynamoDB Developer Guide, "Using
Kinesis Data Streams to capture changes to DynamoDB"). So the newest change of a key wins: the memory knows the newest
time of each key that arrived lately, and whatever comes after a newer change of its key is left out. Records are never
held back, and what has been applied is never taken back to an earlier moment. Decision 11 says why, and the limits.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from whimbrel_worker.endpoints.dynamodb.kinesis.records import MICROSECONDS, Told
from whimbrel_worker.values.columns import Cell

REMEMBERED_SECONDS: Final = 60.0
"""How long after a key's newest change arrived an older one that comes late is known as such."""
_MOST_KEYS: Final = 50_000
"""Some 30 MB for one shard; a shard takes 1,000 records a second."""

Key = tuple[Cell, ...]


class _Step(NamedTuple):
    """A change of a key, from one image to the next, and the sequence number of its record."""

    before: bytes
    after: bytes
    number: int


@dataclass(slots=True)
class _Newest:
    """A key's newest moment (microseconds, exact to `unit`), and all changes of that moment as steps of its image.

    `shown`: the image that was applied last. `began`: the image before this moment; None where that is not known.
    """

    moment: int
    unit: int
    arrived: float
    steps: list[_Step]
    shown: bytes
    began: bytes | None = None
    place: str = ""

    def holds(self, step: _Step) -> bool:
        """Whether this very change was there before, by the same record or by another."""
        return any(each[:2] == step[:2] for each in self.steps)


@dataclass(slots=True)
class Memory:
    """The newest change of each key that arrived after `horizon` (seconds since 1970, Kinesis' clock).

    A change made after the horizon is judged rightly in whatever order it comes: a newer one of its key would have
    arrived after the horizon too, and is remembered. `unjudged` counts the changes of keys that are not remembered and
    that were made before it: they are applied, and only a comparison can tell whether a newer one came first.
    `circles` counts the changes that made an item again what it was before, all within one moment. `again`: numbers of
    records that were applied, then hidden by another of the same moment, and turned out to be the last: to be applied
    once more; whoever does so empties it. `scattered`: a key came with two partition keys, so it may lie in two shards.
    With `keep_ttl` false the service's own deletes count for nothing, because they are not applied.
    """

    horizon: float = 0.0
    keep_ttl: bool = True
    seconds: float = REMEMBERED_SECONDS
    most: int = _MOST_KEYS
    unjudged: int = 0
    circles: int = 0
    scattered: bool = False
    again: list[int] = field(default_factory=list)
    _newest: OrderedDict[Key, _Newest] = field(default_factory=OrderedDict)
    _late: float = 0.0
    _late_at: float = 0.0

    @property
    def late(self) -> float:
        """The longest time in seconds that a change took lately to arrive."""
        return self._late

    def counts(self, told: Told) -> bool:
        """Whether this change is to be applied, after all that was shown before. It is remembered."""
        self._measure(told)
        self._forget(told.arrived)
        if told.change.by_ttl and not self.keep_ttl:
            return False
        return self._judged(told)

    def _judged(self, told: Told) -> bool:
        key = tuple(told.change.key)
        newest, step = self._newest.get(key), _step(told)
        if newest is None:
            self.unjudged += told.moment < self.horizon * MICROSECONDS
            self._newest[key] = _first(told, None)
            return True
        self.scattered |= newest.place != told.place
        unit = max(newest.unit, told.unit)
        distance = told.moment // unit - newest.moment // unit
        if distance < 0 or (distance == 0 and newest.holds(step)):
            return False
        self._newest.move_to_end(key)
        if distance > 0:
            self._newest[key] = _first(told, newest.shown, newest.arrived)
            return True
        newest.arrived = max(newest.arrived, told.arrived)
        newest.moment, newest.unit = max(newest.moment, told.moment), unit
        newest.steps.append(step)
        return self._joined(newest, told.after)

    def _joined(self, newest: _Newest, image: bytes) -> bool:
        """Whether the newest change of a moment with several, which leads to this image, is to be applied."""
        ends = _ends(newest.steps)
        if not ends:
            self.circles += 1
            ends = {step.after for step in newest.steps if step.after == newest.began} or {image}
        if image in ends:
            newest.shown = image
            return True
        if newest.shown not in ends:
            step = next(step for step in newest.steps if step.after in ends)
            newest.shown = step.after
            self.again.append(step.number)
        return False

    def _measure(self, told: Told) -> None:
        late = max(0.0, told.arrived - told.moment / MICROSECONDS)
        if late >= self._late or told.arrived - self._late_at > self.seconds:
            self._late, self._late_at = late, told.arrived

    def _forget(self, now: float) -> None:
        while self._newest:
            oldest = next(iter(self._newest.values()))
            if oldest.arrived >= now - self.seconds and len(self._newest) < self.most:
                return
            self.horizon = max(self.horizon, oldest.arrived)
            self._newest.popitem(last=False)


def _first(told: Told, began: bytes | None, arrived: float = 0.0) -> _Newest:
    """What is known of a key after the first change of a moment; `arrived`: when one of its changes did before."""
    return _Newest(told.moment, told.unit, max(arrived, told.arrived), [_step(told)], told.after, began, told.place)


def _step(told: Told) -> _Step:
    return _Step(told.before, told.after, int(told.change.sequence))


def _ends(steps: Iterable[_Step]) -> set[bytes]:
    """The images with which steps of the same moment, each from one image to the next, may end.

    They form one trail, so its end is entered once more than it is left. Where steps are still missing there are
    several such ends, and in a circle none.
    """
    balance: Counter[bytes] = Counter()
    for before, after, _ in steps:
        balance[after] += 1
        balance[before] -= 1
    return {end for end, surplus in balance.items() if surplus > 0}
