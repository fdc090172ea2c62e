"""Conditions: what is said, and how it joins what was said before. Which conditions there are stands in status."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.base import Condition, ConditionStatus

_LONGEST = 32768
TABLE_STOPPED = "TableStopped"
"""The reason of a Ready that is False because a table has stopped; its message says which and why."""


@dataclass(frozen=True)
class Said:
    """A condition without its times."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def yes_no(kind: str, holds: bool, reason: str, message: str = "") -> Said:
    """A condition that is either True or False."""
    return Said(kind, "True" if holds else "False", reason, message)


def merge(before: Sequence[Condition], said: Iterable[Said], now: datetime, generation: int) -> list[Condition]:
    """The conditions said, in their order. `lastTransitionTime` is kept where the status is unchanged.

    Conditions of a type nobody speaks of any more are dropped.
    """
    known = {condition.type: condition for condition in before}
    return [_joined(known.get(each.type), each, now, generation) for each in said]


def _joined(old: Condition | None, said: Said, now: datetime, generation: int) -> Condition:
    unchanged = old is not None and old.status == said.status
    return Condition(
        type=said.type,
        status=said.status,
        reason=said.reason,
        message=said.message[:_LONGEST],
        last_transition_time=old.last_transition_time if old is not None and unchanged else now,
        observed_generation=generation,
    )


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of that type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether the condition of that type is True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"
