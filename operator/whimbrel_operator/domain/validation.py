"""The life of a Validation, as a table like that of a migration, and the decision for it. Pure."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from whimbrel_api.migration import CheckResult, Migration, Phase
from whimbrel_api.reports import CheckReport
from whimbrel_api.tasks import CheckOptions, ExitCode, Orders, TaskKind
from whimbrel_api.validation import ValidationPhase, ValidationSpec, ValidationStatus
from whimbrel_operator.domain import news
from whimbrel_operator.domain.conditions import Said, merge, yes_no
from whimbrel_operator.domain.decision import Event, ValidationDecision, WantedTask, Work
from whimbrel_operator.domain.failures import Trouble, may_start, trouble
from whimbrel_operator.domain.migration.checks import merged, share_text
from whimbrel_operator.domain.migration.figures import remaining_text
from whimbrel_operator.domain.observed import Memory, ObservedValidation, TaskRef
from whimbrel_operator.domain.progress import rate, remember_rows

INSPECT = "inspect"
_SHARED_OUT = {"workers", "tables", "source", "target"}
_SAMPLED = {"mode", "sample_rows"}
_COMPARABLE = (Phase.FOLLOWING, Phase.CUTTING_OVER, Phase.COMPLETED)


def check_id(spec: ValidationSpec) -> str:
    """The id of the comparison. Shares that were cut for another spec are not its own: they would leave tables out."""
    # Told only where it is not the default: a field that a later version adds must not restart what runs.
    asked = _SHARED_OUT | (_SAMPLED if spec.mode != "Full" else set())
    text = json.dumps(spec.model_dump(mode="json", by_alias=True, include=asked), sort_keys=True)
    return f"check-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class ValidationView:
    """An observation of a Validation at a moment."""

    observed: ObservedValidation
    now: datetime
    memory: Memory

    @property
    def spec(self) -> ValidationSpec:
        """What is asked for."""
        return self.observed.resource.spec

    @property
    def status(self) -> ValidationStatus:
        """What was last reported."""
        return self.observed.resource.status

    @property
    def migration(self) -> Migration | None:
        """The Migration named, if it is there."""
        return self.observed.migration

    @property
    def check_id(self) -> str:
        """The id of the comparison as it is asked for now."""
        return check_id(self.spec)

    @property
    def shares(self) -> tuple[CheckReport, ...]:
        """What its workers have said."""
        words = self.observed.tasks.words(self.check_id)
        return tuple(word.check for word in words if word.check is not None)

    @property
    def report(self) -> CheckReport | None:
        """The workers' shares as one, if any worker has spoken."""
        return merged(self.shares) if self.shares else None

    @property
    def waits_for(self) -> str:
        """Why nothing can be compared yet; or empty."""
        if self.spec.migration_ref is None:
            return ""
        name = self.spec.migration_ref.name
        if self.migration is None:
            return f"Migration {name} not found in namespace {self.observed.resource.metadata.namespace}; make it first"
        phase = self.migration.status.phase
        return (
            ""
            if phase in _COMPARABLE
            else f"Migration {name} is in {phase}; a comparison makes sense from Following on"
        )


@dataclass(frozen=True)
class ValidationRow:
    """A phase of a comparison: its tasks, and the one way on."""

    phase: ValidationPhase
    tasks: Callable[[ValidationView], tuple[WantedTask, ...]]
    leave: Callable[[ValidationView], bool]
    to: ValidationPhase


def work_of(observed: ObservedValidation) -> Work | None:
    """The work that a Validation describes, on its own or through its Migration; None while that is not there."""
    meta, spec, migration = observed.resource.metadata, observed.resource.spec, observed.migration
    if spec.source is not None and spec.target is not None:
        return Work(f"{meta.namespace}/{meta.name}", spec.source, spec.target, spec.tables)
    if migration is None:
        return None
    narrowed = spec.tables.include or spec.tables.exclude
    work = Work.of(migration)
    tables = work.tables.model_copy(update={"include": spec.tables.include, "exclude": spec.tables.exclude})
    return replace(work, tables=tables) if narrowed else work


def check_tasks(view: ValidationView) -> tuple[WantedTask, ...]:
    """The comparison, shared out over the workers asked for."""
    work, spec = work_of(view.observed), view.spec
    if work is None:
        return ()
    limit = spec.rate_limit.rows_per_second if spec.rate_limit is not None else None
    options = CheckOptions(
        mode=spec.mode,
        sample_rows=spec.sample_rows,
        recheck=spec.recheck,
        report=spec.report,
        rows_per_second=limit,
    )
    return (*(_task(view, work, index, options) for index in range(spec.workers)), *_inspect(view, work))


def _task(view: ValidationView, work: Work, index: int, options: CheckOptions) -> WantedTask:
    task_id = view.check_id
    state = view.observed.tasks.find(task_id, index)
    generation = view.observed.resource.metadata.generation
    ready = may_start(state, view.now, generation, again=False) and not view.observed.missing_secrets
    return WantedTask(
        kind=TaskKind.CHECK,
        ref=TaskRef(task_id, index),
        work=work,
        workers=view.spec.workers,
        epoch=_epoch(view),
        generation=generation,
        start=ready,
        check=options,
        orders=Orders(rows_per_second=options.rows_per_second or 0, workers=view.spec.workers),
    )


def _epoch(view: ValidationView) -> int:
    record = view.observed.tasks.newest_record()
    if record is not None:
        return record.epoch
    return view.migration.status.epoch if view.migration is not None else 0


def _inspect(view: ValidationView, work: Work) -> tuple[WantedTask, ...]:
    """A comparison that was fenced out: read the target's epoch anew."""
    if not any(state.exit_code == ExitCode.FENCED_OUT for state in view.observed.tasks.of(view.check_id)):
        return ()
    generation = view.observed.resource.metadata.generation
    ready = may_start(view.observed.tasks.find(INSPECT), view.now, generation, again=False)
    return (WantedTask(TaskKind.INSPECT, TaskRef(INSPECT), work, generation=generation, start=ready),)


def nothing(_: ValidationView) -> tuple[WantedTask, ...]:
    """No task."""
    return ()


def may_begin(view: ValidationView) -> bool:
    """Both ends are known and the data are far enough."""
    return not view.waits_for


def ended(view: ValidationView) -> bool:
    """Every worker has finished and said its result."""
    done = view.observed.tasks.all_done(view.check_id, view.spec.workers) and len(view.shares) == view.spec.workers
    return done and view.report is not None and view.report.result is not None


def never(_: ValidationView) -> bool:
    """Not left."""
    return False


ROWS: tuple[ValidationRow, ...] = (
    ValidationRow(ValidationPhase.PENDING, nothing, may_begin, ValidationPhase.RUNNING),
    ValidationRow(ValidationPhase.RUNNING, check_tasks, ended, ValidationPhase.COMPLETED),
    ValidationRow(ValidationPhase.COMPLETED, nothing, never, ValidationPhase.COMPLETED),
)
BY_PHASE = {row.phase: row for row in ROWS}


def decide_validation(observed: ObservedValidation, now: datetime) -> ValidationDecision:
    """What shall be so for a Validation now: at most one phase further, never further than the observation proves."""
    bare = ValidationView(observed, now, observed.memory)
    compared = bare.report.rows_compared if bare.report is not None else 0
    view = replace(bare, memory=remember_rows(observed.memory, observed.tasks.words(bare.check_id), compared))
    row = BY_PHASE[view.status.phase]
    phase = row.to if row.leave(view) else row.phase
    status = _status(view, phase)
    return ValidationDecision(status, BY_PHASE[phase].tasks(view), _events(view, status), view.memory)


def _status(view: ValidationView, phase: ValidationPhase) -> ValidationStatus:
    generation = view.observed.resource.metadata.generation
    said = _said(view, phase)
    update: dict[str, object] = {
        "phase": phase,
        "observed_generation": generation,
        "conditions": merge(view.status.conditions, said, view.now, generation),
    }
    if view.status.phase is not ValidationPhase.COMPLETED and view.report is not None:
        update |= _figures(view, view.report)
    if phase is ValidationPhase.COMPLETED and view.status.completed_at is None:
        words = view.observed.tasks.words(view.check_id)
        update |= {"completed_at": max(word.observed_at for word in words), "eta": None, "remaining": ""}
    return view.status.model_copy(update=update)


def _figures(view: ValidationView, report: CheckReport) -> dict[str, object]:
    speed = rate(view.memory, report.rows_total - report.rows_compared)
    return {
        "result": report.result if ended(view) else None,
        "tables_compared": report.tables_compared,
        "rows_compared": report.rows_compared,
        "differences": report.differences,
        "inconclusive": report.inconclusive,
        "validated_through": report.validated_through,
        "progress": "100%" if ended(view) else f"{_percent(report)}%",
        "rows_per_second": speed.rows_per_second,
        "sampled": report.sampled,
        "compared": share_text(report),
        "eta": speed.eta,
        "remaining": remaining_text(speed.eta),
        "report": report.report_file,
    }


def _percent(report: CheckReport) -> int:
    return min(99, 100 * report.rows_compared // report.rows_total) if report.rows_total else 0


def _troubles(view: ValidationView) -> list[Trouble]:
    found = [each for state in view.observed.tasks.instances if (each := trouble(state)) is not None]
    if view.observed.missing_secrets:
        names = ", ".join(view.observed.missing_secrets)
        namespace = view.observed.resource.metadata.namespace
        found.append(
            Trouble("SecretNotFound", f"Secret {names} not found in namespace {namespace}; make it", stalls=True)
        )
    return sorted(found, key=lambda each: (not each.stalls, each.message))


def _said(view: ValidationView, phase: ValidationPhase) -> list[Said]:
    if phase is ValidationPhase.COMPLETED:
        result = (view.report.result if view.report is not None else None) or view.status.result
        equal = result is CheckResult.EQUAL
        reason = result.value if result is not None else "Completed"
        return [
            yes_no("Succeeded", equal, reason),
            yes_no("Reconciling", False, reason),
            yes_no("Stalled", False, reason),
        ]
    troubles = _troubles(view)
    message = "\n".join(each.message for each in troubles)
    stalled = bool(troubles) and troubles[0].stalls
    nothing_to_compare = phase is ValidationPhase.PENDING or work_of(view.observed) is None
    waiting = view.waits_for if nothing_to_compare else ""
    reason = "Stalled" if stalled else "Retrying" if troubles else "Waiting" if waiting else phase.value
    return [
        Said("Succeeded", "Unknown", "InProgress"),
        yes_no("Reconciling", not stalled, reason, message or waiting),
        yes_no("Stalled", stalled, troubles[0].reason if stalled else "Progressing", message if stalled else ""),
    ]


def _events(view: ValidationView, after: ValidationStatus) -> tuple[Event, ...]:
    before, found = view.status, []
    if after.phase is not before.phase:
        summary = (
            f"{after.differences.total} differences, {after.inconclusive} inconclusive in {after.rows_compared} rows"
        )
        ended_now = after.phase is ValidationPhase.COMPLETED
        good = not ended_now or after.result is CheckResult.EQUAL
        reason = f"Validation{after.result}" if ended_now else after.phase.value
        found.append(
            Event("Normal" if good else "Warning", reason, summary if ended_now else f"{before.phase} → {after.phase}")
        )
    warned = {"statuses": (("Stalled", "True"),), "reasons": (news.RETRYING,)}
    return news.cut([*found, *news.of_conditions(before.conditions, after.conditions, **warned)])
