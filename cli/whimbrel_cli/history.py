"""The record of a whole migration as one value: plan, times, rows, comparisons, cutover, write pause, events.

It is made of what is kept: the resource, those that belong to it, their events. How it is written stands in markdown.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from whimbrel_api.cutover import CutoverStatus
from whimbrel_api.migration import Migration, MigrationStatus, MigrationValidationStatus, Phase
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation, ValidationStatus
from whimbrel_cli.figures import source_name, target_name
from whimbrel_cli.guidance import Caller, Resource, condition, next_step
from whimbrel_cli.output import stamp
from whimbrel_operator.domain.migration.phases import ENDS
from whimbrel_operator.runtime.events import RecordedEvent

JSON = dict[str, Any]
_PHASES: Final = {phase.value for phase in Phase}
_COMPARED: Final = {
    "result", "differences", "inconclusive", "rows_compared", "compared", "sampled", "validated_through",
    "completed_at",
}  # fmt: skip
_REST: Final = "Freeze"
_OPEN: Final = "Fence"


def record(
    migration: Migration,
    relatives: Sequence[Resource],
    events: Sequence[RecordedEvent],
    now: datetime,
    *,
    caller: Caller,
    hidden: Sequence[str] = (),
) -> JSON:
    """The record as plain JSON types; moments in UTC, lengths in seconds, null where something is not known."""
    status = migration.status
    return {
        "kind": "MigrationReport",
        "migration": {"namespace": migration.metadata.namespace, "name": migration.metadata.name},
        "writtenAt": stamp(now),
        "phase": status.phase.value,
        "next": next_step(migration, caller),
        "plan": _plan(migration),
        "times": times(migration, events, now),
        "snapshot": _snapshot(status),
        "stream": _stream(status),
        "tables": [table.model_dump(mode="json", by_alias=True) for table in status.tables],
        "comparisons": list(_comparisons(status, relatives)),
        "cutover": _cutover(status.cutover, events),
        "writePause": write_pause(status.cutover),
        "wayBack": [_way_back(each) for each in relatives if isinstance(each, ReverseSync)],
        "conditions": [each.model_dump(mode="json", by_alias=True) for each in status.conditions],
        "events": [_event(each) for each in events],
        "notKnown": list(_gaps(migration, events, hidden)),
    }


def _plan(migration: Migration) -> JSON:
    spec, status = migration.spec, migration.status
    approved = condition(status, "CutoverApproved")
    return {
        "source": source_name(spec.source),
        "target": target_name(spec.target),
        "mode": spec.mode.value,
        "tables": spec.tables.model_dump(mode="json", by_alias=True, include={"include", "exclude"}),
        "thresholds": spec.thresholds.model_dump(mode="json", by_alias=True),
        "hash": status.plan.hash,
        "attempt": status.plan.attempt,
        "approvedPlan": spec.cutover.approved_plan,
        "approvedAt": stamp(approved.last_transition_time) if approved is not None else None,
        "cutoverMode": spec.cutover.mode.value,
        "sourceFreeze": spec.cutover.source_freeze.value,
        "timeout": spec.cutover.timeout,
        "wayBack": spec.reverse_sync.enabled,
        "epoch": status.epoch,
        "writePath": status.write_path,
    }


def times(migration: Migration, events: Sequence[RecordedEvent], now: datetime) -> list[JSON]:
    """The phases that were entered, by the events that say so, each with how long it lasted; the last until `now`."""
    entered = [(event.at, phase) for event in events if (phase := _entered(event.message))]
    ends = [at for at, _ in entered[1:]]
    last: list[datetime | None] = [None if migration.status.phase in ENDS else now]
    return [
        {"phase": phase, "at": stamp(at), "seconds": None if end is None else round((end - at).total_seconds(), 1)}
        for (at, phase), end in zip(entered, [*ends, *last][: len(entered)], strict=True)
    ]


def _entered(message: str) -> str:
    """The phase that an event of a change of phases names (`Schema → Snapshot`); empty for another event."""
    before, arrow, after = message.partition(" → ")
    return after if arrow and before in _PHASES and after in _PHASES else ""


def _snapshot(status: MigrationStatus) -> JSON:
    return status.snapshot.model_dump(mode="json", by_alias=True, exclude={"eta", "rows_per_second"})


def _stream(status: MigrationStatus) -> JSON:
    found = status.stream
    return {
        "changesApplied": found.changes_applied,
        "lastChangeTime": stamp(found.last_change_time),
        "lagSeconds": found.lag_seconds,
        "lagObservedAt": stamp(found.lag_observed_at),
        "position": found.position,
    }


def _comparisons(status: MigrationStatus, relatives: Sequence[Resource]) -> Iterator[JSON]:
    """The last one that counts for the cutover, and those of every Validation."""
    if status.validation.result is not None:
        yield {"by": status.validation.name, "last": True, **_compared(status.validation)}
    for each in relatives:
        if isinstance(each, Validation) and each.metadata.name != status.validation.name:
            yield {"by": each.metadata.name, "last": False, **_compared(each.status)}


def _compared(found: MigrationValidationStatus | ValidationStatus) -> JSON:
    return found.model_dump(mode="json", by_alias=True, include=_COMPARED)


def _cutover(found: CutoverStatus, events: Sequence[RecordedEvent]) -> JSON:
    told = [each for each in events if each.reason.startswith("Cutover")]
    return {
        "state": found.state.value,
        "startedAt": stamp(found.started_at),
        "completedAt": stamp(found.completed_at),
        "freezePosition": found.freeze_position,
        "message": found.message,
        "steps": [
            {"name": step.name, "at": stamp(step.at), "by": step.by, "position": step.position, "detail": step.detail}
            for step in found.steps
        ],
        "hooks": [each.model_dump(mode="json", by_alias=True) for each in found.hooks],
        "rolledBackAt": stamp(found.rolled_back_at),
        "events": [_event(each) for each in told],
    }


def write_pause(found: CutoverStatus) -> JSON | None:
    """For how long nobody could write, as far as it is proven; None before a cutover has ended.

    `atMostSeconds`: from the request to stop the writes until the target was open, by the operator's clock.
    `atLeastSeconds`: from the source's rest until the target was opened, by the target's. The application's own pause
    lies between them, plus what it needs to turn to the target.
    """
    if found.started_at is None or found.completed_at is None:
        return None
    steps = {step.name: step.at for step in found.steps}
    rest, opened = steps.get(_REST), steps.get(_OPEN)
    proven = round((opened - rest).total_seconds(), 1) if rest is not None and opened is not None else None
    return {
        "from": stamp(found.started_at),
        "to": stamp(found.completed_at),
        "atMostSeconds": round((found.completed_at - found.started_at).total_seconds(), 1),
        "atLeastSeconds": proven,
    }


def _way_back(found: ReverseSync) -> JSON:
    status = found.status
    told = {"name": found.metadata.name, "phase": status.phase.value, "slot": status.slot.name}
    return {**told, "changesApplied": status.changes_applied, "lagSeconds": status.lag_seconds}


def _event(event: RecordedEvent) -> JSON:
    told = {"at": stamp(event.at), "type": event.type, "reason": event.reason, "message": event.message}
    return {**told, "count": event.count}


def _gaps(migration: Migration, events: Sequence[RecordedEvent], hidden: Sequence[str]) -> Iterator[str]:
    """What the record cannot say, and why."""
    if hidden:
        yield f"not readable with these rights: {', '.join(sorted({*hidden}))}"
    entered = [(event, phase) for event in events if (phase := _entered(event.message))]
    if migration.status.phase is not Phase.PENDING and (not entered or entered[0][1] != Phase.PREFLIGHT):
        yield "the times of early phases: their events are not kept any more (an API server keeps them for an hour)"
    if again := [phase for event, phase in entered if event.count > 1]:
        yield f"the first time of phases that were entered more than once: {', '.join(again)}"
    if migration.status.cutover.completed_at is not None and not migration.status.cutover.steps:
        yield "who proved the steps of the cutover: the status has none"
