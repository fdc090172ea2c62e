"""When a cutover may begin: notBefore, and a window that a cron expression opens in a time zone. Pure.

A cutover that has begun is not asked again. Where the clocks change it is as in Debian's cron, by cronsim: a window
that would open in an hour that is left out opens at its end; one that would open in an hour that comes twice, when that
comes first. Its length is time that passes, whatever the clocks show.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from whimbrel_api.base import ConditionStatus
from whimbrel_api.cutover import Cutover, Window
from whimbrel_api.durations import seconds
from whimbrel_operator.domain.cutover.gate import Gate, clock

DUE: Final = "CutoverDue"
_FIELDS: Final = 5
_ANY_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Opening:
    """From when until when a window is open, in its own time zone; `end` is outside."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Fault:
    """What is wrong with a field, as the manifest writes it: `spec.cutover.window.schedule`."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@lru_cache(maxsize=1024)
def faults(window: Window | None) -> tuple[Fault, ...]:
    """What no schema can tell of a window: whether the cron expression is one, and whether the time zone is known."""
    if window is None:
        return ()
    told = (("schedule", _schedule_fault(window.schedule)), ("timeZone", _zone_fault(window.time_zone)))
    return tuple(Fault(f"spec.cutover.window.{name}", what) for name, what in told if what)


def _schedule_fault(schedule: str) -> str:
    if len(schedule.split()) != _FIELDS:
        return f"{schedule!r} has not five fields; write minute hour day month weekday, such as 0 2 * * SUN"
    try:
        opens = next(CronSim(schedule, _ANY_DAY), None)
    except CronSimError as error:
        return f"{schedule!r} is no cron expression ({error}); write it like 0 2 * * SUN"
    return "" if opens is not None else f"{schedule!r} never opens: no day is like that"


def _zone_fault(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return f"{name!r} is no time zone that is known here; write it like Europe/Berlin, or UTC"
    return ""


def opening(window: Window, now: datetime) -> Opening | None:
    """The opening that holds now, or else the next one; None where none comes in fifty years. Only without faults."""
    zone, length = ZoneInfo(window.time_zone), timedelta(seconds=seconds(window.duration))
    starts = _starts(window.schedule, (now.astimezone(UTC) - length).astimezone(zone))
    start = next((each for each in starts if each + length > now), None)
    return Opening(start.astimezone(zone), (start + length).astimezone(zone)) if start is not None else None


def _starts(schedule: str, since: datetime) -> Iterator[datetime]:
    """The moments at which it opens, in UTC: a sum in a zone of its own would count the clock, not the time."""
    return (each.astimezone(UTC) for each in CronSim(schedule, since))


def earliest(policy: Cutover, now: datetime) -> datetime | None:
    """When a cutover may begin at the earliest, from now on; None where that is never, or not to be told."""
    since = max(now, policy.not_before) if policy.not_before is not None else now
    if policy.window is None:
        return since
    found = opening(policy.window, since) if not faults(policy.window) else None
    return max(since, found.start) if found is not None else None


def due_gate(policy: Cutover, now: datetime) -> Gate:
    """It is not before `notBefore`, and the window is open."""
    if wrong := faults(policy.window):
        return _due("False", "InvalidSpec", "; ".join(map(str, wrong)))
    begins = earliest(policy, now)
    if begins is None:
        return _due("False", "OutsideWindow", f"{_named(policy.window)} does not open any more")
    if begins > now:
        early = policy.not_before is not None and now < policy.not_before
        return _due("False", "NotBefore" if early else "OutsideWindow", _waits(policy, begins))
    return _due("True", "Due", _allows(policy, now))


def _due(status: ConditionStatus, reason: str, message: str) -> Gate:
    return Gate(DUE, status, reason, message)


def _waits(policy: Cutover, begins: datetime) -> str:
    first = f"notBefore is {clock(policy.not_before)}" if policy.not_before is not None else ""
    second = _named(policy.window)
    return f"no cutover begins before {clock(begins)}: " + ", ".join(part for part in (first, second) if part)


def _named(window: Window | None) -> str:
    if window is None:
        return ""
    return f"the window is {window.schedule} in {window.time_zone}, for {window.duration}"


def _allows(policy: Cutover, now: datetime) -> str:
    found = opening(policy.window, now) if policy.window is not None else None
    if found is not None:
        return f"the window is open from {clock(found.start)} to {clock(found.end)}"
    return f"notBefore was {clock(policy.not_before)}" if policy.not_before is not None else "at any time"
