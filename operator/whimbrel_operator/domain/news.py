"""Events that the conditions of any resource make when they change, and only then. What else happens: its kind."""

from collections.abc import Collection, Iterable, Sequence

from whimbrel_api.base import Condition
from whimbrel_operator.domain.conditions import find, is_true
from whimbrel_operator.domain.decision import Event

LONGEST = 1024
"""Characters of an Event's message."""
MOST_ALIKE = 20
"""Events of one reason that one pass may tell with other messages, such as each thing that is not carried."""
Pairs = Collection[tuple[str, str]]
RETRYING = ("Reconciling", "Retrying")


def of_conditions(
    before: Sequence[Condition], after: Sequence[Condition], *, statuses: Pairs = (), reasons: Pairs = ()
) -> Iterable[Event]:
    """What is told of a change: what warns, by type and status or by type and reason; that it goes on; that it rests.

    What only has other figures is no news.
    """
    for condition in after:
        if warns(condition, statuses, reasons) and not _same(find(before, condition.type), condition):
            yield Event("Warning", condition.reason, condition.message)
    if _troubled(before) and _goes_on(after):
        yield Event("Normal", "Progressing", "work goes on")
    yield from _paused(before, after)


def warns(condition: Condition, statuses: Pairs, reasons: Pairs) -> bool:
    """Whether a condition is one of those that a person is warned of."""
    return (condition.type, condition.status) in statuses or (condition.type, condition.reason) in reasons


def cut(events: Iterable[Event]) -> tuple[Event, ...]:
    """With messages that fit."""
    return tuple(Event(each.type, each.reason, each.message[:LONGEST]) for each in events)


def _same(old: Condition | None, new: Condition) -> bool:
    return old is not None and (old.status, old.reason) == (new.status, new.reason)


def _troubled(conditions: Sequence[Condition]) -> bool:
    found = find(conditions, RETRYING[0])
    return is_true(conditions, "Stalled") or (found is not None and found.reason == RETRYING[1])


def _goes_on(conditions: Sequence[Condition]) -> bool:
    return is_true(conditions, "Reconciling") and not _troubled(conditions)


def _paused(before: Sequence[Condition], after: Sequence[Condition]) -> Iterable[Event]:
    was, now = is_true(before, "Paused"), is_true(after, "Paused")
    if now and not was:
        yield Event("Normal", "Paused", "held by spec.paused")
    elif was and not now and find(after, "Paused") is not None:
        yield Event("Normal", "Resumed", "spec.paused is false again")
