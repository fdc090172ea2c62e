"""What a cutover would do now, from the resource alone: gates as reported, its steps, its pause. Nothing is changed.

The status may be old: what can be judged anew from its figures and the time is, and the stricter of both counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from whimbrel_api.cutover import CutoverMode, CutoverState
from whimbrel_api.durations import seconds, text
from whimbrel_api.migration import Migration, Phase
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.domain.cutover import exclusive, hooks
from whimbrel_operator.domain.cutover.course import Step
from whimbrel_operator.domain.cutover.frozen_source import how_frozen
from whimbrel_operator.domain.cutover.gate import Gate
from whimbrel_operator.domain.cutover.gates import approval_gate, gates, validation_gate
from whimbrel_operator.domain.cutover.retention import judge_retention
from whimbrel_operator.domain.cutover.steps import steps_of
from whimbrel_operator.domain.cutover.window import earliest
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, is_fresh

REPORT_SECONDS: Final = 2.0
"""The interval at which a stream reports and takes orders: so long a drained position may wait to be seen."""
_STARTS_A_WORKER: Final = ("Freeze", "Confirm", "Seal", "Arm", "Fence")
"""Besides FinalCheck, whose figure holds the start already."""
_STATUS_SECONDS: Final = 10.0
"""A status is written with each report that says something new; three of these without one, and nobody speaks."""


@dataclass(frozen=True)
class Estimate:
    """How long a step keeps the writes stopped, and from what that was measured. `seconds` is None where it was not.

    `at_most`: it is no longer than that. `small`: where it is not measured, it is left out of the sum, which says so.
    """

    seconds: float | None
    basis: str
    at_most: bool = False
    small: bool = False


@dataclass(frozen=True)
class Stage:
    """A step of the cutover, with what happens in it."""

    name: str
    state: CutoverState
    says: str
    takes: Estimate


@dataclass(frozen=True)
class Rehearsal:
    """What a cutover would do. `approval` stands apart: it is what a person gives after reading this.

    `obstacles`: what else keeps it from beginning. `notices`: conditions that keep nothing from anything, as reported.
    `begins`: when it may, by notBefore and window; None for never.
    """

    plan: str
    attempt: int
    gates: tuple[Gate, ...]
    approval: Gate
    obstacles: tuple[str, ...]
    notices: tuple[Gate, ...]
    begins: datetime | None
    stages: tuple[Stage, ...]
    freezes: str
    way_back: str
    timeout: str

    @property
    def ready(self) -> bool:
        """Whether only the approval is missing."""
        return all(gate.open for gate in self.gates) and not self.obstacles

    @property
    def pause(self) -> Estimate:
        """How long the writes are stopped in all, as far as it was measured."""
        unknown = [each.name for each in self.stages if each.takes.seconds is None and not each.takes.small]
        if unknown:
            return Estimate(None, f"not measured: {', '.join(unknown)}")
        left_out = [each.name for each in self.stages if each.takes.seconds is None]
        basis = "the sum of the steps below"
        basis += f"; not measured: {', '.join(left_out)}" if left_out else ""
        return Estimate(sum(each.takes.seconds or 0.0 for each in self.stages), basis)

    @property
    def too_long(self) -> bool:
        """Whether the pause that is expected is longer than the cutover may take."""
        return (self.pause.seconds or 0.0) > seconds(self.timeout)


def rehearse(resource: Migration, now: datetime) -> Rehearsal:
    """What a cutover of this Migration would do, by its spec and its status as it was last written."""
    view = View(Observed(resource), now, Memory())
    return Rehearsal(
        plan=view.plan.hash,
        attempt=view.plan.attempt,
        gates=_gates(view),
        approval=approval_gate(view),
        obstacles=tuple(_obstacles(view)),
        notices=tuple(_reported(view, each.type) for each in exclusive.exclusive_said(view, Phase.FOLLOWING)),
        begins=earliest(view.spec.cutover, now),
        stages=tuple(_stage(step, view) for step in steps_of(view)),
        freezes=_freezes(view),
        way_back=_way_back(view),
        timeout=view.spec.cutover.timeout,
    )


def _stage(step: Step, view: View) -> Stage:
    return Stage(step.name, step.state, step.waits_for(view), _takes(step.name, view))


def _gates(view: View) -> tuple[Gate, ...]:
    """Each gate as it was reported, unless it is shut by what is known here."""
    return tuple(_stricter(_reported(view, each.type), each, view) for each in gates(view, view.status.validation))


def _reported(view: View, kind: str) -> Gate:
    found = find(view.status.conditions, kind)
    if found is None:
        return Gate(kind, "Unknown", "NoFreshReport", "no status says anything of it yet")
    return Gate(found.type, found.status, found.reason, found.message)


def _stricter(reported: Gate, judged: Gate, view: View) -> Gate:
    """`judged` is by spec and time alone where no task is seen, as here; what it cannot tell is as reported."""
    if reported.type == "CutoverDue":
        return judged
    again = {
        "LagWithinThreshold": _lag_is_known,
        "ValidationPassed": _comparison,
        "RetentionSafe": _log_is_kept,
        exclusive.TYPE: _exclusive,
    }.get(reported.type)
    anew = again(view, reported) if again is not None and reported.open else reported
    return reported if anew.open else anew


def _lag_is_known(view: View, reported: Gate) -> Gate:
    at = view.status.stream.lag_observed_at
    if at is None or not is_fresh(at, view.now, _STATUS_SECONDS):
        when = at.isoformat(timespec="seconds") if at is not None else "never"
        return Gate(reported.type, "Unknown", "LagUnknown", f"read last: {when}; is anybody at work on it?")
    return reported


def _comparison(view: View, _: Gate) -> Gate:
    allowed, tables = view.spec.thresholds.differences, view.status.snapshot.tables_total
    return validation_gate(view.status.validation, view.spec.validation, allowed, view.now, tables=tables)


def _exclusive(view: View, _: Gate) -> Gate:
    return exclusive.judged(view)


def _log_is_kept(view: View, _: Gate) -> Gate:
    return judge_retention(view.status.stream, view.spec, view.now, reported=True)


def _obstacles(view: View) -> Iterator[str]:
    """What is no gate and holds the cutover back all the same."""
    status, stalled = view.status, find(view.status.conditions, "Stalled")
    if status.observed_generation != view.generation:
        yield f"the status speaks of generation {status.observed_generation}, the spec is {view.generation}: look again"
    if status.phase is not Phase.FOLLOWING:
        yield f"the phase is {status.phase.value}: a cutover begins in Following"
    if view.spec.paused:
        yield "spec.paused is true"
    if view.spec.cancel:
        yield "spec.cancel is true"
    if view.source_frozen and status.phase is Phase.FOLLOWING:
        yield "Whimbrel had frozen the source for a cutover that was given up: that is undone first"
    if view.spec.cutover.mode is CutoverMode.AUTOMATIC and view.cutting_over is CutoverState.TIMED_OUT:
        wait = text(hooks.RETRY_AFTER.total_seconds())
        yield f"the last cutover was given up: an automatic one begins {wait} after that at the earliest"
    if view.unsupported:
        yield view.unsupported
    elif stalled is not None and stalled.status == "True":
        yield f"it is Stalled ({stalled.reason}): {stalled.message}"


def _takes(step: str, view: View) -> Estimate:
    known = {"Freeze": _freeze, "Drain": _drain, "FinalCheck": _final_check, "Confirm": _confirm}
    found = (known | {"Seal": _last_look, "Fence": _last_look} if view.sharded else known).get(step)
    takes = found(view) if found is not None else Estimate(None, "not measured, mostly a second or two", small=True)
    return _with_start(takes, view) if step in _STARTS_A_WORKER else takes


def _with_start(takes: Estimate, view: View) -> Estimate:
    """Each step's worker takes about as long to start as that of the last comparison did."""
    start = view.status.validation.start_seconds
    if start is None:
        return replace(takes, basis=f"{takes.basis}; the start of its worker is not measured")
    basis = f"{takes.basis}; its worker takes {text(start)} to start, as the last comparison's did"
    return replace(takes, seconds=(takes.seconds or 0.0) + start, basis=basis)


def _freeze(view: View) -> Estimate:
    quiet = wants.quiet_seconds(view)
    return Estimate(quiet, f"the source must have been quiet for {quiet:g} s, from the last write on")


def _drain(view: View) -> Estimate:
    stream = view.status.stream
    seen = f"and the report of it, every {REPORT_SECONDS:g} s"
    if stream.lag_seconds is not None:
        return Estimate(stream.lag_seconds + REPORT_SECONDS, f"the lag, {text(stream.lag_seconds)} now, {seen}")
    if stream.quiet:
        return Estimate(REPORT_SECONDS, f"every shard is quiet, so nothing is on its way; {seen}")
    return Estimate(None, "the lag is not known")


def _final_check(view: View) -> Estimate:
    last = view.status.validation
    if last.took_seconds is None or last.sampled:
        why = "the last comparison was of a sample" if last.sampled else "no whole comparison was timed"
        return Estimate(None, f"{why}; a whole one tells")
    measured = f"the last comparison took {text(last.took_seconds)} for {last.rows_compared:,} rows"
    if view.sharded:
        return Estimate(last.took_seconds, f"{measured}; the final one reads as much")
    return Estimate(last.took_seconds, f"{measured}; the final one counts rows, and compares only changed keys", True)


def _confirm(view: View) -> Estimate:
    quiet = wants.SHARDS_CONFIRM_SECONDS if view.sharded else wants.CONFIRM_SECONDS
    return Estimate(quiet, f"the source is looked at for {quiet:g} s once more")


def _last_look(_: View) -> Estimate:
    quiet = wants.SHARDS_LAST_LOOK_SECONDS
    return Estimate(quiet, f"every shard is watched for {quiet:g} s, right before the epoch is raised")


def _freezes(view: View) -> str:
    if not view.operator_freezes:
        return "you: stop the application's writes to the source when the state is Freezing, and keep them stopped"
    return f"Whimbrel, by {how_frozen(view)}: undone if the cutover is given up; after the switch the source stays so"


def _way_back(view: View) -> str:
    if view.spec.reverse_sync.enabled:
        return "armed before the target is opened (ArmingReverse): changes flow back from the switch on"
    return "none is armed: what is written after the switch is in the target alone"
