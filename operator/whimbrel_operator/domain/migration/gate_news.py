"""Events of gates that open and close while a migration follows, and of the way back once it has switched. Pure.

A gate that nothing is known of for the moment has neither opened nor closed: after a restart of the operator, or of a
worker, the lag is measured anew, which is no news to anybody. So the last that was known is remembered; an operator
that was started since takes it from the status.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from whimbrel_api.base import Condition
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.domain.cutover.gates import gates
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory

_APPROVED, _ROLLBACK = "CutoverApproved", "RollbackReady"
_NOT_MEASURED = ("TooFewSamples", "NoFreshReport")


def remember_gates(memory: Memory, written: Sequence[Condition]) -> Memory:
    """The memory with what the status says of gates, as far as it says anything."""
    return replace(memory, gates=tuple(sorted({**dict(memory.gates), **_known(written)}.items())))


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


def _asked(view: View, after: MigrationStatus) -> tuple[str, ...]:
    """The gates that count in this phase."""
    if after.phase is Phase.FOLLOWING:
        return (*(gate.type for gate in gates(view, after.validation)), _APPROVED)
    return (_ROLLBACK,) if after.phase is Phase.COMPLETED and view.has_way_back else ()


def _known(conditions: Sequence[Condition]) -> dict[str, bool]:
    """Whether each is open, as far as that is known."""
    proven = (each for each in conditions if each.status != "Unknown" and each.reason not in _NOT_MEASURED)
    return {each.type: each.status == "True" for each in proven}
