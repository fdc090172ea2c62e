"""A migration over the in-memory runtime, a second at a time."""

import asyncio
from collections.abc import Callable

from support.memory_runtime import KEY, MemoryRuntime, migration
from support.world import World
from whimbrel_api.cutover import Cutover, CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.reconcile import Outcome, Reconciler


class Life:
    """A migration, its runtime and its reconciler, a second at a time."""

    key = KEY

    def __init__(self, world: World | None = None, **spec: object) -> None:
        self.runtime = MemoryRuntime(world or World(), migration(**spec))  # type: ignore[arg-type]
        self.reconciler = Reconciler(self.runtime, self.runtime.clock)
        self.phases: list[Phase] = []

    @property
    def status(self) -> MigrationStatus:
        status = self.runtime.resource.status
        assert isinstance(status, MigrationStatus)
        return status

    @property
    def world(self) -> World:
        return self.runtime.world

    def once(self) -> Outcome:
        outcome = asyncio.run(self._pass())
        if not self.phases or self.phases[-1] is not self.status.phase:
            self.phases.append(self.status.phase)
        return outcome

    async def _pass(self) -> Outcome:
        outcome = await self.reconciler.reconcile(KEY)
        await self.runtime.pass_over_ways_back()
        return outcome

    def go(self, seconds: int, step: float = 1.0) -> None:
        for _ in range(seconds):
            self.once()
            self.runtime.advance(step)

    def until(self, holds: Callable[[MigrationStatus], bool], within: int = 120) -> None:
        for _ in range(within):
            self.once()
            if holds(self.status):
                return
            self.runtime.advance()
        raise AssertionError(f"not so within {within} s: {self.status}")

    def until_phase(self, phase: Phase, within: int = 120) -> None:
        self.until(lambda status: status.phase is phase, within)

    def until_state(self, state: CutoverState) -> None:
        self.until(lambda status: status.cutover.state is state)

    def approve(self) -> None:
        self.runtime.patch(cutover=Cutover(approved_plan=self.status.plan.hash))

    def said(self, kind: str) -> tuple[str, str, str]:
        found = next(each for each in self.status.conditions if each.type == kind)
        return found.status, found.reason, found.message

    def reasons(self) -> list[str]:
        return [event.reason for event in self.runtime.events]
