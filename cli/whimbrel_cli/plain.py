"""The same view as lines, for a file or a pipe: one whenever something of note changes, figures now and then. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from whimbrel_api.migration import Migration, Phase, TableStatus
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncStatus
from whimbrel_api.validation import Validation, ValidationPhase, ValidationStatus
from whimbrel_cli.figures import clock, count, lag, one_line, percent, size, span
from whimbrel_cli.guidance import next_step
from whimbrel_cli.observed import Happening, Observed

QUIET: Final = 2.0


class PlainView:
    """Turns successive observations of one resource into lines."""

    def __init__(self) -> None:
        self._state = self._figures = self._step = ""
        self._last_line = 0.0
        self._events: set[tuple[str, str, str]] = set()

    def lines(self, observed: Observed, now: float) -> list[str]:
        """The lines that this observation adds. `now` in seconds, of a clock that never goes back.

        A new state, event or thing to do is said at once; figures that have changed at most every two seconds. An event
        stands under the time at which it happened, which may be that of an earlier run.
        """
        name = observed.resource.metadata.name
        head = f"{clock(observed.now)} {name}"
        lines = [f"{clock(at)} {name}  {text}" for at, text in self._new_events(observed)]
        state, figures, step = _state(observed), _figures(observed), next_step(observed.resource, observed.caller)
        due = figures != self._figures and now - self._last_line >= QUIET
        if state != self._state or due:
            lines.append(f"{head}  " + "  ".join(part for part in (state, figures) if part))
            self._state, self._figures, self._last_line = state, figures, now
        if step and step != self._step:
            lines.append(f"{head}  Next: {one_line(step)}")
        self._step = step
        return lines

    def _new_events(self, observed: Observed) -> list[tuple[datetime, str]]:
        texts = []
        for event in observed.events:
            key = _identity(event)
            if key not in self._events:
                self._events.add(key)
                text = f"{'Warning ' if event.warning else ''}{event.reason}: {one_line(event.message)}"
                texts.append((event.at, text))
        return texts


def _identity(event: Happening) -> tuple[str, str, str]:
    return event.at.isoformat(), event.reason, event.message


def _state(observed: Observed) -> str:
    """What is of note: phase, cutover, conditions that hold a person up, stopped tables, the comparison's result."""
    resource = observed.resource
    flags = [entry.type for entry in resource.status.conditions if entry.status == "True" and entry.type in _HOLDING]
    if isinstance(resource, Validation):
        result = resource.status.result
        return " ".join([resource.status.phase.value, *([result.value] if result else []), *flags])
    if isinstance(resource, ReverseSync):
        return " ".join([resource.status.phase.value, *flags, *_stopped(resource.status.tables)])
    status = resource.status
    cutover = f"/{status.cutover.state.value}" if status.phase in (Phase.FOLLOWING, Phase.CUTTING_OVER) else ""
    return " ".join([status.phase.value + cutover, *flags, *_stopped(status.tables)])


def _stopped(tables: Sequence[TableStatus]) -> list[str]:
    return [f"stopped: {one_line(table.name)}" for table in tables if table.state == "Stopped"]


_HOLDING: Final = ("Stalled", "Paused")


def _figures(observed: Observed) -> str:
    resource = observed.resource
    if isinstance(resource, Migration):
        return _migration_figures(resource)
    if isinstance(resource, ReverseSync):
        return way_back_figures(resource.status)
    return _validation_figures(resource.status)


def _validation_figures(status: ValidationStatus) -> str:
    parts = [
        f"{status.progress} {count(status.rows_compared)} rows".strip(),
        f"{status.differences.total} differences",
        status.compared,
    ]
    if status.phase is ValidationPhase.RUNNING and status.eta is not None:
        parts += [f"{count(round(status.rows_per_second))} rows/s", f"ETA {span(status.eta)}"]
    return ", ".join(part for part in parts if part)


def way_back_figures(status: ReverseSyncStatus) -> str:
    """How far a way back is behind, what it has brought back, and what its slot holds back; empty before it streams."""
    if not status.slot.name:
        return ""
    kept = status.slot.retained_bytes
    held = f"slot holds back {size(kept)}" if kept is not None else "what the slot holds back is not known"
    return f"lag {status.lag or 'unknown'}, {count(status.changes_applied)} changes, {held}"


def _migration_figures(migration: Migration) -> str:
    status = migration.status
    copy, stream, check = status.snapshot, status.stream, status.validation
    if status.phase is Phase.SNAPSHOT:
        part = (
            f"{percent(copy.rows_copied, copy.rows_total)}% {count(copy.rows_copied)} of {count(copy.rows_total)} rows"
        )
        return f"{part}, {count(copy.rows_per_second)} rows/s, ETA {span(copy.eta)}"
    if status.phase in (Phase.PENDING, Phase.PREFLIGHT, Phase.SCHEMA, Phase.CANCELLED):
        return ""
    parts = [] if status.phase is Phase.COMPLETED else [f"lag {lag(stream)}"]
    parts.append(f"{count(stream.changes_applied)} changes")
    if check.result:
        parts.append(f"check {check.result.value}, {count(check.differences.total)} differences")
    return ", ".join(parts)
