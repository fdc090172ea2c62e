"""What the demo plays from the switch on: the application at the target, and, with a way back, the return.

An act yields what it waits for, and goes on once that holds.
"""

import time
from collections.abc import Iterator
from typing import Final

from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_cli.demo.comparison import Comparison
from whimbrel_cli.demo.director import AT_THE_SWITCH, Director, Waiting
from whimbrel_cli.demo.stage import Side
from whimbrel_cli.guidance import condition

_STAY: Final = 5.0
"""Seconds that the application writes on a side at least before it moves on."""
_SETTLE: Final = 60.0
"""Seconds within which the last changes must have reached the other side once nobody writes any more."""
_COMPARE_AGAIN: Final = 1.0


def one_way(director: Director) -> Iterator[Waiting]:
    """A cutover under traffic, and the application at the target."""
    yield lambda: _status(director).phase is Phase.COMPLETED
    yield from _at_the_target(director)
    yield _stayed(_STAY)
    yield director.comparisons[-1].ready
    director.stop()


def there_and_back(director: Director) -> Iterator[Waiting]:
    """The same, changes that flow back, a rollback, and the forward stream again."""
    yield lambda: _status(director).phase is Phase.COMPLETED
    yield from _at_the_target(director)
    yield _stayed(_STAY)
    yield lambda: condition(_status(director), "RollbackReady") is not None and _came_back(director)
    director.say("What was written to the target flows back; it could be gone back now:")
    director.orders.show()
    yield from _go_back(director)
    if not director.failure:
        yield from _at_the_source_again(director)


def _at_the_target(director: Director) -> Iterator[Waiting]:
    """The application moves; what it left is compared as it was then."""
    switched = time.monotonic()
    director.say("The traffic may move: the target has everything, and no worker of the migration can write.")
    if director.stage.must_rest:
        yield lambda: all(each.ready() for each in director.comparisons)
        director.start(Side.TARGET, held=time.monotonic() - switched)
        yield director.traveller.writes
        return
    as_they_were = director.stage.as_they_are()
    director.start(Side.TARGET)
    yield director.traveller.writes
    director.compare(AT_THE_SWITCH, "plain reads compare both as they were before the first write there", as_they_were)


def _go_back(director: Director) -> Iterator[Waiting]:
    """The rollback, with what people do for it: the writes stop, and go on at the source."""
    director.orders.roll_back()
    yield lambda: _status(director).cutover.state is CutoverState.ROLLING_BACK
    director.stop()
    yield lambda: _drained_back(director) or _given_up(director) or director.rolled_back
    if _given_up(director):
        director.failure = _status(director).cutover.message
        return
    seen = director.compare("at the rollback", "the source has everything, so plain reads compare all of both")
    yield lambda: director.rolled_back or _given_up(director)
    if _given_up(director):
        director.failure = _status(director).cutover.message
        return
    done = time.monotonic()
    director.say("Rolled back: the traffic may move to the source again.")
    yield seen.ready
    director.start(Side.SOURCE, held=time.monotonic() - done)


def _at_the_source_again(director: Director) -> Iterator[Waiting]:
    """The forward stream follows again, and both are compared at the end."""
    yield director.traveller.writes
    yield lambda: director.back is None
    director.say(f"The way back is gone. On the target's server is left: {_left(director)}.")
    yield lambda: _status(director).phase is Phase.FOLLOWING
    director.say(f"{director.stage.target} follows {director.stage.source} again.")
    yield _stayed(_STAY)
    director.stop()
    yield from _settled(director)


def _settled(director: Director) -> Iterator[Waiting]:
    """Compares until nothing differs any more: the last changes are still on their way. The last one counts."""
    deadline = time.monotonic() + _SETTLE
    last = director.compare("at the end", "the last changes arrive, then plain reads compare all of both")
    yield last.ready
    while last.differences and time.monotonic() < deadline:
        director.comparisons.remove(last)
        yield _stayed(_COMPARE_AGAIN)
        last = Comparison(last.when, director.stage.as_they_are())
        director.comparisons.append(last)
        yield last.ready


def _left(director: Director) -> str:
    return ", ".join(director.stage.left_behind()) or "no replication slot, no publication"


def _stayed(seconds: float) -> Waiting:
    """So long from now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def _status(director: Director) -> MigrationStatus:
    return director.migration.status if director.migration is not None else MigrationStatus()


def _came_back(director: Director) -> bool:
    """Something that was written at the target has reached the source."""
    return director.back is not None and director.back.status.changes_applied > 0


def _drained_back(director: Director) -> bool:
    """The target is at rest, and the source has everything of it."""
    position, back = _status(director).cutover.rollback.position, director.back
    return bool(position) and back is not None and back.status.drained_to == position


def _given_up(director: Director) -> bool:
    return _status(director).cutover.rollback.given_up
