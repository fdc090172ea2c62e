"""Events of gates that open and close while a migration follows, and of the way back once it has switched. Pure.

A gate that nothing is known of for the moment has neither opened nor closed: after a restart of the operator, or of a
worker, the lag is measured anew, which is no news to anybody. So the last that was known is remembered; an operator
that was started since takes it from the status.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from whimbrel_api.base import Condition
from whimbrel_api.cutover import CutoverState, TargetExclusive
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.domain.cutover import exclusive
from whimbrel_operator.domain.cutover.window import DUE
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory

_APPROVED, _ROLLBACK = "CutoverApproved", "RollbackReady"
GATES: Final = (
    *("LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "IndexesReady", "RetentionSafe"),
    *(exclusive.TYPE, "ReverseSyncReady", DUE, _APPROVED),
)
_NOT_MEASURED = ("TooFewSamples", "NoFreshReport")


def remember_gates(view: View) -> Memory:
    """The memory with what the status says of gates, and of the plan that waits for approval, as far as it does."""
    known = {**dict(view.memory.gates), **_known(view.status.conditions)}
    return replace(view.memory, gates=tuple(sorted(known.items())), awaited=_awaited(view, known))


def _awaited(view: View, known: dict[str, bool]) -> str:
    """The plan that was said to wait for its approval only. A gate that has closed since, or a cutover, ends that."""
    status = view.status
    if status.cutover.state is CutoverState.AWAITING_APPROVAL:
        return status.plan.hash
    closed = any(known.get(kind) is False for kind in gates_of(view) if kind not in (DUE, _APPROVED))
    return "" if closed or status.cutover.state is not CutoverState.NOT_READY else view.memory.awaited


def awaits_news(view: View, after: MigrationStatus) -> bool:
    """Whether it is news that this plan waits for its approval only."""
    return view.memory.awaited != after.plan.hash


def gate_news(view: View, after: MigrationStatus, told: Collection[str]) -> Iterable[Event]:
    """What has changed against what was known. `told`: types of conditions that another Event of this pass is about."""
    if view.status.phase is not after.phase:
        return
    was, now = dict(view.memory.gates), _known(after.conditions)
    reasons = {each.type: each.reason for each in after.conditions}
    for kind in (each for each in _asked(view, after) if each in now):
        if now[kind] and not was.get(kind):
            yield Event("Normal", "GateOpened", f"{kind} is open")
        elif was.get(kind) and not now[kind] and kind not in told:
            yield Event("Normal", "GateClosed", f"{kind} is closed: {reasons[kind]}; its condition says more")


def gates_of(view: View) -> tuple[str, ...]:
    """The conditions that are gates of this migration, as far as it has them. None is judged here."""
    required = view.spec.cutover.target_exclusive is TargetExclusive.REQUIRE
    return GATES if required else tuple(each for each in GATES if each != exclusive.TYPE)


def _asked(view: View, after: MigrationStatus) -> tuple[str, ...]:
    """The gates that count in this phase."""
    if after.phase is Phase.FOLLOWING:
        return gates_of(view)
    return (_ROLLBACK,) if after.phase is Phase.COMPLETED and view.has_way_back else ()


def _known(conditions: Sequence[Condition]) -> dict[str, bool]:
    """Whether each is open, as far as that is known."""
    proven = (each for each in conditions if each.status != "Unknown" and each.reason not in _NOT_MEASURED)
    return {each.type: each.status == "True" for each in proven}
