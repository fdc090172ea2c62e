"""A course of steps, as a cutover and a rollback are: what is observed proves each one done, and setbacks lead out.

Which steps there are, and what proves them, stands in steps and setbacks, and in rollback.
"""

from collections.abc import Callable
from dataclasses import dataclass

from whimbrel_api.cutover import CutoverState
from whimbrel_api.hooks import HookPoint
from whimbrel_api.migration import Phase
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.migration.wants import Wanted

Test = Callable[[View], bool]
Text = Callable[[View], str]
Tasks = tuple[Callable[[View], Wanted], ...]


@dataclass(frozen=True)
class Step:
    """One step: the state it shows, the tasks and the hooks it wants, the evidence that ends it, what it waits for."""

    name: str
    state: CutoverState
    tasks: Tasks
    done: Test
    waits_for: Text
    hooks: HookPoint | None = None

    def wants(self, view: View) -> Wanted:
        """Its tasks, in the order of their table."""
        return tuple(task for want in self.tasks for task in want(view))


@dataclass(frozen=True)
class Setback:
    """What leads out of a course, or back to its start."""

    reason: str
    when: Test
    to: tuple[Phase, CutoverState]
    says: Text


def step_at(steps: tuple[Step, ...], view: View) -> Step:
    """The first step that is not proven done, so that a restart at any of them goes on from there; else the last."""
    return next((step for step in steps if not step.done(view)), steps[-1])


def first_of(setbacks: tuple[Setback, ...], view: View) -> Setback | None:
    """The first that holds, if one does."""
    return next((each for each in setbacks if each.when(view)), None)
