"""Events as lines of the operator's log: an Event is gone after an hour, a log may be kept. Which there are: domain."""

import logging
from collections.abc import Sequence
from typing import Final

from whimbrel_api.base import Condition
from whimbrel_api.repeats import Repeats
from whimbrel_operator.domain.conditions import TABLE_STOPPED, find
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.reconcile import Outcome
from whimbrel_operator.runtime.port import Key

LOG: Final = logging.getLogger("whimbrel.reconcile")
MINUTE: Final = 60.0
"""Seconds in which the same Event of the same resource is one line: what flaps does not flood."""


def tell(repeats: Repeats, key: Key, outcome: Outcome) -> None:
    """Log the Events of a pass."""
    for event in outcome.events:
        level = level_of(event, outcome.status.conditions if outcome.status is not None else ())
        repeats.log(LOG, level, (key, event), "%s: %s", event.reason, event.message)


def level_of(event: Event, conditions: Sequence[Condition]) -> int:
    """ERROR where work has stopped until a person acts, WARNING for what needs an eye, INFO for a step."""
    if event.type == "Normal":
        return logging.INFO
    stalled = find(conditions, "Stalled")
    halted = stalled is not None and (stalled.status, stalled.reason) == ("True", event.reason)
    return logging.ERROR if halted or event.reason == TABLE_STOPPED else logging.WARNING
