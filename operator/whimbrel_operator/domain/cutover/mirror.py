"""The status' mirror of what the target's journal holds of a cutover's proven steps, and of a rollback's.

Nothing is decided by it: what ends a step stands in steps and rollback. It comes from the reports of the tasks that
wrote into the journal, from the journal wherever it was read, and from the status itself, in this order of trust.
"""

from collections.abc import Iterator

from whimbrel_api.acknowledgements import POSITION_LENGTH, Acknowledgement
from whimbrel_api.cutover import CutoverState, CutoverStatus, CutoverStep
from whimbrel_api.migration import Phase
from whimbrel_api.reports import SEALED, SWITCHED
from whimbrel_operator.domain.cutover import rollback, steps
from whimbrel_operator.domain.migration.view import View

_MOST = 20
_SAID_OF = (Phase.CUTTING_OVER, Phase.COMPLETED)


def mirrored(view: View, phase: Phase, found: CutoverStatus) -> list[CutoverStep]:
    """The steps that the journal has of the attempt at hand, in the order of their tables.

    `phase` and `found` are what the status is to say. A step counts at the position that the cutover, or the rollback,
    has come to rest at, and not before what leads up to it is proven: what a former try of the same attempt left in the
    journal is not taken for this one's. Of one that is being given up it stays said how far it was.
    """
    if phase not in _SAID_OF or not view.streaming:
        return []
    if found.state is CutoverState.TIMED_OUT and view.status.plan.attempt == view.plan.attempt:
        return view.status.cutover.steps
    known = {(step.name, step.position): step for step in _known(view)}
    told = [*((name, _rested_at(view, found)) for name in _forward(view)), *_back(view, found)]
    return [known[each] for each in told if each in known][:_MOST]


def _known(view: View) -> Iterator[CutoverStep]:
    """All that is known of this attempt; the later counts."""
    if view.status.plan.attempt == view.plan.attempt:
        yield from view.status.cutover.steps
    entries = [*(view.truth.acknowledged if view.truth is not None else [])]
    entries += [each for state in view.tasks.instances if state.word for each in state.word.acknowledged]
    yield from (_step(each) for each in entries if each.attempt == view.plan.attempt)


def _step(told: Acknowledgement) -> CutoverStep:
    return CutoverStep(name=told.step, position=told.position, by=told.by, at=told.at, detail=told.detail)


def _rested_at(view: View, found: CutoverStatus) -> str:
    """Where the source came to rest; of a status that was lost the journal's seal or switch knows it too."""
    entry = view.truth.traffic if view.truth is not None else None
    kept = entry.detail if entry is not None and entry.step in (SEALED, SWITCHED) else ""
    return (found.freeze_position or kept)[:POSITION_LENGTH]


def _forward(view: View) -> list[str]:
    """The cutover's steps up to the one that it is in."""
    names = [step.name for step in steps.steps_of(view)]
    cutting = view.status.phase is Phase.CUTTING_OVER and not steps.switched(view)
    return _until(names, steps.step_of(view).name) if cutting else names


def _back(view: View, found: CutoverStatus) -> list[tuple[str, str]]:
    """The same of the rollback, while there is one, with its position."""
    if found.state is not CutoverState.ROLLING_BACK:
        return []
    names = _until([step.name for step in rollback.STEPS], rollback.step_of(view).name)
    return [(name, found.rollback.position[:POSITION_LENGTH]) for name in names]


def _until(names: list[str], name: str) -> list[str]:
    """Those before it; all where it is none of them, such as a step that reads the target anew."""
    return names[: names.index(name)] if name in names else names
