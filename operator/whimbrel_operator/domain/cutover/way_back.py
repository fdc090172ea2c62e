"""The ReverseSync of a Migration's own: when it is there, whether it is armed, what keeps it from that. Pure.

How it lives stands in reverse_sync, what leads back through it in rollback.
"""

from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Migration, Phase
from whimbrel_api.reports import SEALED, SWITCHED
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncPhase, ReverseSyncSpec
from whimbrel_operator.domain.conditions import find, is_true
from whimbrel_operator.domain.decision import WantedWayBack
from whimbrel_operator.domain.migration.view import View

_FORWARD = (Phase.SCHEMA, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER)


def wanted(view: View) -> tuple[WantedWayBack, ...]:
    """The ReverseSync that may be there in this state; made in one alone, so that no gap is ever passed over.

    A status that was lost says nothing: until the target has been read, it stays, and none is made.
    """
    if not _may_be_there(view):
        return ()
    sealed = view.truth is not None and view.traffic == SEALED
    make = view.cutting_over is CutoverState.ARMING_REVERSE and sealed and not view.spec.paused
    return (_own(view.observed.resource, make=make and view.status.phase is Phase.CUTTING_OVER),)


def _own(migration: Migration, *, make: bool) -> WantedWayBack:
    name = migration.metadata.name
    return WantedWayBack(name, ReverseSyncSpec(migration_ref=SecretRef(name=name)), make)


def _may_be_there(view: View) -> bool:
    phase, asked = view.status.phase, view.has_way_back
    if phase is Phase.COMPLETED:
        return asked
    if phase is Phase.CUTTING_OVER and view.cutting_over is CutoverState.ARMING_REVERSE:
        return asked and not _cancelled(view)
    return phase in (Phase.PENDING, Phase.PREFLIGHT) or (asked and in_doubt(view))


def in_doubt(view: View) -> bool:
    """Whether it is there though the status knows of no switch, lost or restored: the target is asked before."""
    forward = view.status.phase in _FORWARD and view.cutting_over is not CutoverState.TIMED_OUT
    unproven = view.truth is None or view.traffic == SWITCHED
    return forward and unproven and lives(view.way_back) and not _cancelled(view)


def _cancelled(view: View) -> bool:
    return view.spec.cancel and not view.switching


def lives(found: ReverseSync | None) -> bool:
    """Whether it is there and not on its way out."""
    return found is not None and found.metadata.deletion_timestamp is None


def armed(view: View) -> bool:
    """Slot, publication and a kept position are there, and changes flow, by the ReverseSync's own word."""
    found = view.way_back
    if found is None or not lives(found):
        return False
    return found.status.phase is ReverseSyncPhase.STREAMING and is_true(found.status.conditions, "Ready")


def refusal(view: View) -> str:
    """Why the way back cannot be armed without a person; or empty."""
    if view.strange_ways_back:
        return taken(view)
    found = view.way_back
    stalled = find(found.status.conditions, "Stalled") if found is not None else None
    return stalled.message if stalled is not None and stalled.status == "True" else ""


def taken(view: View) -> str:
    """What is said of ReverseSyncs that are in the way; or empty."""
    meta = view.observed.resource.metadata
    names = ", ".join(each.metadata.name for each in view.strange_ways_back)
    return (
        f"ReverseSync {names} names this Migration or bears its name and is not its own; delete it: "
        f"kubectl delete reversesync {names.replace(',', '')} -n {meta.namespace}"
        if names
        else ""
    )


def waits_for(view: View) -> str:
    """What is waited for while it is armed."""
    found = view.way_back
    if found is None:
        return "the way back is armed: its ReverseSync is made"
    said = find(found.status.conditions, "Reconciling")
    doing = f" ({said.message})" if said is not None and said.message else ""
    return f"the way back is armed: ReverseSync {found.metadata.name} is {found.status.phase}{doing}"


def going(view: View) -> str:
    """What is said while the forward stream waits for its end; or empty."""
    found = view.way_back
    if found is None or view.status.phase not in (Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER):
        return ""
    if view.cutting_over is CutoverState.ARMING_REVERSE:
        return ""
    meta = found.metadata
    ready = find(found.status.conditions, "Ready")
    why = f": {ready.message}" if ready is not None and ready.message else ""
    return f"the forward stream waits until ReverseSync {meta.name} is gone, or its own writes would come back{why}"
