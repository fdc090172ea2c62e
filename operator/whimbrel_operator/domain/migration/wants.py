"""The tasks that rows of the tables ask for, each a function of the view. Who asks for which: see phases, cutover."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

from whimbrel_api.acknowledgements import POSITION_LENGTH, Proof
from whimbrel_api.durations import seconds
from whimbrel_api.reports import ROLLED_BACK, SEALED, SWITCHED
from whimbrel_api.tasks import (
    CheckOptions,
    CheckScope,
    ExitCode,
    FenceOptions,
    FreezeOptions,
    Orders,
    SchemaStage,
    TaskKind,
)
from whimbrel_operator.domain.cutover import exclusive
from whimbrel_operator.domain.cutover.gates import gates
from whimbrel_operator.domain.cutover.way_back_look import LOOK, look_due, look_work
from whimbrel_operator.domain.decision import WantedTask, Work
from whimbrel_operator.domain.failures import may_start
from whimbrel_operator.domain.migration import view as ids
from whimbrel_operator.domain.migration.checks import check_due, check_id, last_validation
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import TaskRef, TaskState

QUIET_SECONDS = 3.0
CONFIRM_SECONDS = 0.5
SHARDS_QUIET_SECONDS = 10.0
SHARDS_CONFIRM_SECONDS = 5.0
"""Longer: a change reaches its shard some time after it was made, and an empty page proves nothing."""
SHARDS_LAST_LOOK_SECONDS = 1.0
"""Of the fence itself, right before the epoch is raised: within about a second a change has reached its shard."""

Wanted = tuple[WantedTask, ...]
_FORWARD = (TaskKind.SNAPSHOT, TaskKind.STREAM)


def task(
    view: View,
    kind: TaskKind,
    task_id: str,
    *,
    index: int = 0,
    again: bool = False,
    work: Work | None = None,
    **options: Any,
) -> WantedTask:
    """One wanted instance, held back while a backoff runs, a Secret is missing or its epoch is being read."""
    state = view.tasks.find(task_id, index)
    allowed = may_start(state, view.now, view.generation, again=again) and not (
        kind in _FORWARD and view.closed_forward
    )
    ready = allowed and not view.observed.missing_secrets and _epoch_known(view, state)
    return WantedTask(
        kind=kind,
        ref=TaskRef(task_id, index),
        work=work or Work.of(view.observed.resource),
        epoch=view.epoch,
        generation=view.generation,
        start=ready,
        again=again,
        **options,
    )


def _epoch_known(view: View, state: TaskState | None) -> bool:
    """A fenced-out task waits until the target's epoch has been read after its end."""
    if state is None or state.exit_code != ExitCode.FENCED_OUT:
        return True
    inspected = view.tasks.find(ids.INSPECT_FENCE)
    return inspected is not None and inspected.done and _after(inspected, state)


def _after(one: TaskState, other: TaskState) -> bool:
    return other.finished_at is None or one.started_at >= other.finished_at


def preflight(view: View) -> Wanted:
    """Everything that must be right before the first write."""
    stop_writes = view.spec.cutover.freeze if view.operator_freezes else None
    return (task(view, TaskKind.PREFLIGHT, ids.PREFLIGHT, freeze=FreezeOptions(stop_writes=stop_writes)),)


def schema(view: View) -> Wanted:
    """Control tables and target tables."""
    return (task(view, TaskKind.SCHEMA, ids.SCHEMA),)


def snapshot(view: View) -> Wanted:
    """The copy, shared out over the workers asked for."""
    workers, limit = view.spec.snapshot.workers, view.spec.snapshot.rate_limit
    orders = Orders(rows_per_second=limit.rows_per_second if limit else 0, workers=workers)
    indexes = range(workers)
    return tuple(
        task(view, TaskKind.SNAPSHOT, ids.SNAPSHOT, index=index, workers=workers, orders=orders) for index in indexes
    )


def indexes(view: View) -> Wanted:
    """Secondary indexes, when the target has passed the end of the copy: during it a unique value may stand twice."""
    if view.indexes_ready:
        return ()
    return (task(view, TaskKind.SCHEMA, ids.INDEXES, schema_stage=SchemaStage.INDEXES),)


def after_copy(view: View) -> Wanted:
    """A copy without a stream ends with its indexes and the fence, so that no late worker can write."""
    if view.streaming or not view.snapshot_done:
        return ()
    return fence_switched(view) if view.indexes_ready else indexes(view)


def _following(view: View, orders: Orders, *, again: bool, collect: bool = False) -> Wanted:
    """The change stream's workers: one for a log, as many as asked for where it is divided into shards."""
    workers = view.spec.stream.workers
    told = orders.model_copy(update={"workers": workers}) if view.sharded else orders
    return tuple(
        task(view, TaskKind.STREAM, ids.STREAM, index=index, workers=workers, again=again, orders=told, collect=collect)
        for index in range(workers)
    )


def collect(view: View) -> Wanted:
    """The change stream beside the copy, into the volume that was given for it. What it read is applied afterwards."""
    if not view.streaming or view.spec.stream.spool is None or view.snapshot_done:
        return ()
    return _following(view, Orders(), again=True, collect=True)


def stream(view: View) -> Wanted:
    """The change stream, without an end."""
    return _following(view, Orders(), again=True)


def stream_draining(view: View) -> Wanted:
    """The change stream, told to reach the freeze position."""
    return _following(view, Orders(drain_to=view.freeze_position, proof=proof(view, "Drain")), again=True)


def stream_retiring(view: View) -> Wanted:
    """The change stream, told to end at the freeze position."""
    orders = Orders(drain_to=view.freeze_position, proof=proof(view, "Drain"), retire=True)
    return _following(view, orders, again=False)


def check(view: View) -> Wanted:
    """A comparison, when one is due. The seam for a cluster: the same as an owned Validation.

    One that has finished and does not count is made again: by a clock that runs behind it ended before the copy did.
    """
    last = last_validation(view)
    if not check_due(view, last):
        return ()
    task_id = check_id(view.status.validation)
    policy = view.spec.validation
    options = CheckOptions(mode=policy.mode, sample_rows=policy.sample_rows)
    again = view.done(task_id) and last.name != task_id
    return (task(view, TaskKind.CHECK, task_id, again=again, check=options),)


def way_back_look(view: View) -> Wanted:
    """A look at what the way back needs on its server, when one is due. It makes nothing there."""
    told = look_work(view)
    if told is None or not look_due(view):
        return ()
    work, rules = told
    again = view.done(LOOK)
    told_too = exclusive.options(view)
    return (
        task(view, TaskKind.REVERSE, LOOK, again=again, work=work, look_only=True, reverse=rules, writers=told_too),
    )


def target_look(view: View) -> Wanted:
    """A look at who else may write to the target, when one is due."""
    if not exclusive.look_due(view):
        return ()
    again = view.done(exclusive.TARGET_LOOK)
    return (task(view, TaskKind.INSPECT, exclusive.TARGET_LOOK, again=again, writers=exclusive.options(view)),)


def inspect_plan(view: View) -> Wanted:
    """With an approval and all gates open, the target is asked whether the plan's attempt still is what status says.

    And who else may write to it: a grant that was made a moment ago counts.
    """
    ready = view.approved and all(gate.open for gate in gates(view, last_validation(view)))
    return (task(view, TaskKind.INSPECT, ids.INSPECT_PLAN, writers=exclusive.options(view)),) if ready else ()


def inspect_fence(view: View) -> Wanted:
    """A fenced-out task: ask the target who holds the epoch now, and whether all is over already.

    An answer from before its end is asked for anew: a task may be fenced out again before anybody saw it run.
    """
    fenced = [state for state in view.tasks.instances if state.exit_code == ExitCode.FENCED_OUT and not state.stopping]
    if not fenced:
        return ()
    answer = view.tasks.find(ids.INSPECT_FENCE)
    old = answer is not None and answer.done and not all(_after(answer, state) for state in fenced)
    return (task(view, TaskKind.INSPECT, ids.INSPECT_FENCE, again=old),)


def freeze(view: View) -> Wanted:
    """Wait for the source to come to rest, after its writers were stopped where that is asked of Whimbrel.

    Those are stopped only once a status that was written says so: else nobody might know of it after a crash.
    """
    if view.source_frozen and view.status.cutover.started_at == view.now:
        return ()
    options = _freeze_options(view, quiet_seconds(view))
    return (task(view, TaskKind.FREEZE, ids.FREEZE, freeze=options, proof=proof(view, "Freeze")),)


def _freeze_options(view: View, quiet: float, since: str = "") -> FreezeOptions:
    stop_writes = view.spec.cutover.freeze if view.source_frozen and view.operator_freezes else None
    attempt = view.status.plan.attempt if stop_writes is not None else 0
    return FreezeOptions(quiet_seconds=quiet, stop_writes=stop_writes, since=since, plan_attempt=attempt)


def proof(view: View, step: str, *before: str, position: str | None = None) -> Proof:
    """What the target's journal is told once the step is proven, with steps `before` it that no task tells of."""
    where = view.freeze_position if position is None else position
    return Proof(
        step=step,
        plan=view.plan.hash,
        attempt=view.plan.attempt,
        position=where[:POSITION_LENGTH],
        before=list(before),
        differences=view.spec.thresholds.differences,
    )


def unfreeze_id(view: View) -> str:
    """The id of the task that lets the writes to the source go on after this cutover."""
    began = view.status.cutover.started_at
    return f"unfreeze-{_digest(began.isoformat())}" if began is not None else "unfreeze"


def unfreeze(view: View) -> Wanted:
    """Let the writes to the source go on, where Whimbrel has stopped them. What it found is kept while it counts."""
    task_id = unfreeze_id(view)
    if not view.source_frozen and view.tasks.find(task_id) is None:
        return ()
    return (task(view, TaskKind.UNFREEZE, task_id, freeze=FreezeOptions(plan_attempt=_next_attempt(view))),)


def thaw(view: View) -> Wanted:
    """The same outside of a cutover: its status was lost, and the target's journal tells of it."""
    return unfreeze(view) if view.source_frozen else ()


def open_source(view: View) -> Wanted:
    """The same after a rollback that the journal has: its attempt, and no earlier one, counts from there already."""
    return (task(view, TaskKind.UNFREEZE, unfreeze_id(view)),)


def _next_attempt(view: View) -> int:
    """The plan's attempt after this cutover is given up. An unfreeze that has ended has raised it already."""
    return view.status.plan.attempt + (0 if view.done(unfreeze_id(view)) else 1)


def quiet_seconds(view: View) -> float:
    """How long the source must have given no change before it counts as frozen."""
    return SHARDS_QUIET_SECONDS if view.sharded else QUIET_SECONDS


def final_id(view: View) -> str:
    """The id of the final check at the freeze position."""
    return f"final-{_digest(view.freeze_position)}"


def confirm_id(view: View) -> str:
    """The id of the second look at the source after the final check at the freeze position."""
    return f"confirm-{_digest(view.freeze_position)}"


def _digest(position: str) -> str:
    return hashlib.sha256(position.encode()).hexdigest()[:8]


def final_check(view: View) -> Wanted:
    """Compare the keys changed since the last comparison, and counts, at the freeze position.

    Where the log cannot prove that all changes have been read, everything is compared: that alone proves it.
    """
    since = view.status.validation.validated_through
    scope = CheckScope.FULL if view.sharded else CheckScope.FINAL
    options = CheckOptions(scope=scope, since=since, through=view.freeze_position)
    return (task(view, TaskKind.CHECK, final_id(view), check=options, proof=proof(view, "FinalCheck")),)


def confirm(view: View) -> Wanted:
    """Look at the source once more: nothing may have been written after the freeze position."""
    quiet = SHARDS_CONFIRM_SECONDS if view.sharded else CONFIRM_SECONDS
    options = _freeze_options(view, quiet, since=view.freeze_position)
    told = proof(view, "Confirm", "Retire")
    return (task(view, TaskKind.FREEZE, confirm_id(view), freeze=options, proof=told),)


def fence_switched(view: View) -> Wanted:
    """Raise the epoch and journal the switch, unless this attempt has been given up: orders may be carried out late."""
    told = proof(view, "Fence", *(["Arm"] if view.has_way_back else [])) if view.streaming else Proof()
    return (_concluding(view, SWITCHED, ids.FENCE_SWITCHED, told),)


def _concluding(view: View, step: str, task_id: str, told: Proof) -> WantedTask:
    """A fence that is refused where the source has been written to, or cannot be looked at until the time is up.

    Where the freeze position was lost with the status there is nothing to compare with, and none is started.
    """
    position, began = view.freeze_position, view.status.cutover.started_at
    until = began + timedelta(seconds=seconds(view.spec.cutover.timeout)) if began is not None and position else None
    fence = FenceOptions(step=step, detail=position[:1024], plan_attempt=view.status.plan.attempt, look_until=until)
    look = FreezeOptions(quiet_seconds=SHARDS_LAST_LOOK_SECONDS, since=position) if position else FreezeOptions()
    found = task(view, TaskKind.FENCE, task_id, fence=fence, freeze=look, proof=told)
    return replace(found, start=found.start and (bool(position) or not view.streaming))


def inspect_switched(view: View) -> Wanted:
    """Read what became of the switch where the fence has ended and nobody knows what it said."""
    word = view.result(ids.FENCE_SWITCHED)
    ended = view.done(ids.FENCE_SWITCHED) and (word is None or word.record is None)
    return (task(view, TaskKind.INSPECT, ids.INSPECT_SWITCHED),) if ended else ()


def fence_sealed(view: View) -> Wanted:
    """Raise the epoch before anything flows back: no forward worker can write any more, and the target is not open yet.

    What was proven at the freeze position needs no proof any more once the journal has it.
    """
    return (_concluding(view, SEALED, ids.FENCE_SEALED, proof(view, "Seal")),)


def inspect_sealed(view: View) -> Wanted:
    """Read whether the target is sealed, where nobody remembers."""
    return (task(view, TaskKind.INSPECT, ids.INSPECT_SEALED),)


def unseal(view: View) -> Wanted:
    """A seal of a cutover that nobody knows of any more: it was given up, and only then the stream goes on."""
    return fence_timed_out(view) if view.traffic == SEALED else ()


def inspect_completed(view: View) -> Wanted:
    """Read where the target says that the traffic is: a status from before a rollback must not be believed."""
    return (task(view, TaskKind.INSPECT, ids.INSPECT_COMPLETED),) if view.has_way_back else ()


def inspect_way_back(view: View) -> Wanted:
    """Read where the traffic is, before a ReverseSync of which the status knows nothing is ended."""
    return (task(view, TaskKind.INSPECT, ids.INSPECT_WAY_BACK),)


def check_back_id(view: View) -> str:
    """The id of the comparison before a rollback, at the position at which the target came to rest."""
    return f"final-back-{_digest(view.status.cutover.rollback.position)}"


def check_back(view: View) -> Wanted:
    """Compare every item of both sides, once what was written to the target has come back."""
    told = proof(view, "CheckBack", "FreezeTarget", "DrainBack", position=view.status.cutover.rollback.position)
    return (task(view, TaskKind.CHECK, check_back_id(view), check=CheckOptions(), proof=told),)


def fence_rolled_back(view: View) -> Wanted:
    """Journal the rollback as the plan's next attempt, with positions of the source from which the stream goes on."""
    detail, attempt = view.status.cutover.rollback.position[:1024], view.status.plan.attempt + 1
    options = FenceOptions(step=ROLLED_BACK, detail=detail, plan_attempt=attempt)
    told = proof(view, "Reopen", "ConfirmBack", "Hold", position=detail)
    return (task(view, TaskKind.FENCE, ids.FENCE_ROLLED_BACK, fence=options, proof=told),)


def fence_timed_out(view: View) -> Wanted:
    """Journal that the cutover was given up, with the next attempt of the plan, so that no old approval counts.

    Only once the writes to the source may go on, where Whimbrel had stopped them, and nothing can flow back any more.
    """
    if view.source_frozen or view.way_back is not None:
        return ()
    detail = view.status.cutover.message[:1024]
    options = FenceOptions(step="timed-out", detail=detail, plan_attempt=_next_attempt(view))
    return (task(view, TaskKind.FENCE, ids.FENCE_TIMED_OUT, fence=options),)


def cancel(view: View) -> Wanted:
    """Fence every worker out, if there is anything to fence; before that the writes to the source may go on."""
    if view.source_frozen:
        return unfreeze(view)
    if view.status.epoch == 0 and not _exists(view):
        return (task(view, TaskKind.INSPECT, ids.INSPECT_CANCEL),)
    return (*unfreeze(view), task(view, TaskKind.FENCE, ids.FENCE_CANCELLED, fence=FenceOptions(step="cancelled")))


def _exists(view: View) -> bool:
    word = view.result(ids.INSPECT_CANCEL)
    return word is not None and word.record is not None and word.record.exists


def nothing_to_cancel(view: View) -> bool:
    """Whether the target was read and holds nothing of this migration."""
    word = view.result(ids.INSPECT_CANCEL)
    return view.status.epoch == 0 and word is not None and word.record is not None and not word.record.exists
