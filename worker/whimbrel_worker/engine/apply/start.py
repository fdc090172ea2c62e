"""Where a stream goes on: takes the control rows, finds the least position, and settles a change in the lanes' number.

Row 0 is the ordered lane's, rows 1 to N those of the hashed lanes. A row's position speaks of the keys that hashed to
its lane among the number of lanes at that time. When N changes, keys change lanes, and a row may say more than is true
for its new keys. So before any lane writes: every hashed row goes down to the least position of all, then rows beyond N
are removed, then new ones are made at the least position. A crash between these steps leaves rows that are true, or
lower than true. The ordered lane's row stays: which tables are its own does not depend on N. Removing a row also fences
a predecessor that still holds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whimbrel_worker.engine.apply.plan import ORDERED_LANE
from whimbrel_worker.engine.ports import Session, Source, Target

TASK = "stream"


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where to read on, and the lanes' sessions with the position that each row holds, by lane."""

    since: str
    sessions: list[Session]
    held: list[str]
    epoch: int
    attempt: int


def resume(source: Source, target: Target, start: str, hashed_lanes: int) -> Resumption:
    """Take the control rows of one ordered and `hashed_lanes` hashed lanes.

    `start` is the position from before the snapshot's first read. Raises FencedOut where a successor holds the rows.
    """
    known = {index: position for index, position in target.control().positions(TASK).items() if position}
    sessions = [target.session(TASK, index) for index in range(hashed_lanes + 1)]
    states = [session.take() for session in sessions]
    known |= {index: states[index].position for index in known if index < len(states)}
    since = source.least([*known.values(), *([] if ORDERED_LANE in known else [start])])
    held = _settle(target, sessions, known, since)
    return Resumption(since, sessions, held, states[0].epoch, max(state.attempt for state in states))


def _settle(target: Target, sessions: Sequence[Session], known: Mapping[int, str], since: str) -> list[str]:
    lanes = range(len(sessions))
    hashed = [index for index in lanes if index != ORDERED_LANE]
    held = [known.get(index, since) for index in lanes]
    if {*known} - {ORDERED_LANE} != {*hashed}:
        for index in hashed:
            held[index] = since
        for index in filter(known.__contains__, hashed):
            sessions[index].commit([], position=since)
        target.control().drop_positions(TASK, len(sessions))
    for index in lanes:
        if index not in known:
            sessions[index].commit([], position=since)
    return held
