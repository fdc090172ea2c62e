"""The decision for a Migration: one step along the table of phases, what is wanted then, what is said of it. Pure."""

from dataclasses import replace
from datetime import datetime

from whimbrel_api.cutover import CutoverState
from whimbrel_api.hooks import HookPoint
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.domain.cutover import hooks, setbacks, steps, way_back
from whimbrel_operator.domain.cutover.gates import remember_lag
from whimbrel_operator.domain.decision import Decision
from whimbrel_operator.domain.migration import phases, wants
from whimbrel_operator.domain.migration.events import events_of
from whimbrel_operator.domain.migration.figures import rows_done
from whimbrel_operator.domain.migration.status import Move, next_status
from whimbrel_operator.domain.migration.view import SNAPSHOT, View
from whimbrel_operator.domain.observed import Observed
from whimbrel_operator.domain.progress import remember_rows


def decide(observed: Observed, now: datetime) -> Decision:
    """What shall be so for a Migration now: at most one phase further, never further than the observation proves."""
    view = _view(observed, now)
    move = _move(view)
    status = next_status(view, move)
    told, ahead = events_of(view, move, status), _ahead(view, status)
    asked = hooks.wanted(ahead, _points(ahead))
    return Decision(
        status,
        wanted_in(ahead),
        told,
        view.memory,
        hooks=asked,
        unwanted_hooks=hooks.unwanted(ahead, asked),
        ways_back=way_back.wanted(ahead),
    )


def _view(observed: Observed, now: datetime) -> View:
    bare = View(observed, now, observed.memory)
    memory = remember_lag(observed.memory, bare.stream_state, now)
    return View(observed, now, remember_rows(memory, observed.tasks.words(SNAPSHOT), rows_done(bare)))


def _move(view: View) -> Move:
    leave = phases.exit_of(view)
    cutting = view.status.phase is Phase.CUTTING_OVER and phases.row_of(view).phase is Phase.CUTTING_OVER
    setback = setbacks.setback_of(view) if cutting else None
    if leave is not None and (setback is None or leave.to is not setback.to[0]):
        setback = None
    return Move(leave, setback)


def wanted_in(ahead: View) -> wants.Wanted:
    """The tasks that a status asks for."""
    row = phases.row_of(ahead)
    asked = tuple(task for want in row.tasks for task in want(ahead))
    doubt = wants.inspect_way_back(ahead) if way_back.in_doubt(ahead) else ()
    return (*asked, *doubt, *(wants.inspect_fence(ahead) if asked else ()))


def _points(view: View) -> tuple[HookPoint, ...]:
    """Where hooks or switches may run now. One that is held goes on to its end, and none is started."""
    if view.status.phase is Phase.COMPLETED:
        return hooks.points_completed(view)
    if view.cutting_over is CutoverState.ROLLED_BACK:
        return () if view.source_frozen else (HookPoint.PUT_BACK,)
    if view.status.phase is not Phase.CUTTING_OVER or phases.row_of(view) is phases.CANCELLING:
        return ()
    point = steps.step_of(view).hooks
    return (point,) if point is not None else ()


def _ahead(view: View, status: MigrationStatus) -> View:
    """The same observation under the next status."""
    resource = view.observed.resource.model_copy(update={"status": status})
    return View(replace(view.observed, resource=resource), view.now, view.memory)
