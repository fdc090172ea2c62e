"""The decision for a ReverseSync: it is not there yet, and says so. Pure; nothing is made on either server."""

from datetime import datetime

from whimbrel_api.base import Condition
from whimbrel_api.reverse_sync import ReverseSyncStatus
from whimbrel_operator.domain.conditions import Said, find, merge, yes_no
from whimbrel_operator.domain.decision import Event, ReverseSyncDecision
from whimbrel_operator.domain.observed import ObservedReverseSync

NOT_SUPPORTED = "NotSupportedYet"
MESSAGE = (
    "the way back is not supported by this version; nothing was made on the source or the target, so this resource can "
    "be deleted safely: kubectl delete reversesync {name} -n {namespace}"
)


def decide_reverse_sync(observed: ObservedReverseSync, now: datetime) -> ReverseSyncDecision:
    """What shall be so for a ReverseSync now: no task, and a status that says why. The event comes once."""
    meta, before = observed.resource.metadata, observed.resource.status
    message = MESSAGE.format(name=meta.name, namespace=meta.namespace)
    conditions = merge(before.conditions, _said(message), now, meta.generation)
    status = _status(before, conditions, meta.generation)
    return ReverseSyncDecision(status, events=_events(before, status), memory=observed.memory)


def _said(message: str) -> tuple[Said, ...]:
    return (
        yes_no("Ready", False, NOT_SUPPORTED, message),
        yes_no("Reconciling", False, NOT_SUPPORTED),
        yes_no("Stalled", True, NOT_SUPPORTED, message),
    )


def _status(before: ReverseSyncStatus, conditions: list[Condition], generation: int) -> ReverseSyncStatus:
    return before.model_copy(update={"conditions": conditions, "observed_generation": generation})


def _events(before: ReverseSyncStatus, after: ReverseSyncStatus) -> tuple[Event, ...]:
    old, new = find(before.conditions, "Stalled"), find(after.conditions, "Stalled")
    if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
        return ()
    return (Event("Warning", new.reason, new.message[:1024]),)
