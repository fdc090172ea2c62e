"""A Migration that is deleted on its way: what its source retains goes first, for as long as that may take."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from support.life import Life
from support.memory_runtime import KEY, MemoryRuntime
from support.world import Failure
from whimbrel_api.base import SecretRef
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, Source, Target
from whimbrel_api.migration import Phase
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.abandoning import Abandoning
from whimbrel_operator.errors import NamespaceEnding
from whimbrel_operator.runtime.port import Key

ITEMS: dict[str, Any] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
}


@dataclass
class Deleted:
    """A migration that is being deleted, and the clearing of it over the in-memory runtime."""

    life: Life
    cleared: int = 0
    ending: bool = False
    abandoning: Abandoning = field(init=False)

    def __post_init__(self) -> None:
        self.abandoning = Abandoning(_Clearing(self), self.life.runtime.clock)  # type: ignore[arg-type]

    def go(self, seconds: int) -> bool:
        """Whether something is left after that many seconds."""
        for _ in range(seconds):
            if not asyncio.run(self.abandoning.clear(KEY, self.life.runtime.resource.metadata.uid)):
                return False
            self.life.runtime.advance()
        return True

    @property
    def journal(self) -> list[str]:
        return [entry.step for entry in self.life.world.record.journal]


class _Clearing:
    """The in-memory runtime, which takes all tasks away at once."""

    def __init__(self, deleted: Deleted) -> None:
        self._deleted, self._runtime = deleted, deleted.life.runtime
        self.observe, self.remove, self.event = self._runtime.observe, self._runtime.remove, self._runtime.event

    async def apply(self, key: Key, wanted: object) -> None:
        if self._deleted.ending:
            raise NamespaceEnding("the namespace is being deleted")
        await MemoryRuntime.apply(self._runtime, key, wanted)  # type: ignore[arg-type]

    async def clear(self, key: Key, uid: str) -> bool:
        self._deleted.cleared += 1
        self._runtime.instances.clear()
        return self._deleted.cleared < 3


def following() -> Deleted:
    life = Life(**ITEMS)
    life.until_phase(Phase.FOLLOWING)
    return Deleted(life)


def test_streams_are_put_back_once_its_workers_have_ended_and_then_it_goes() -> None:
    deleted = following()
    assert not deleted.go(20)
    assert deleted.journal.count("cancelled") == 1
    acts = deleted.life.runtime.acts
    assert acts.index("remove stream-0") < acts.index("start abandon-0")
    assert acts.count("start abandon-0") == 1
    assert deleted.life.runtime.events[-1].reason != "StreamsLeft"


def test_what_fails_is_tried_again() -> None:
    deleted = following()
    deleted.life.world.failures[TaskKind.RETIRE] = Failure(code=ExitCode.FAILED)
    assert deleted.go(30)
    del deleted.life.world.failures[TaskKind.RETIRE]
    assert not deleted.go(90)
    assert "cancelled" in deleted.journal


def test_it_is_let_go_after_a_while_and_an_event_says_what_is_left() -> None:
    deleted = following()
    deleted.life.world.failures[TaskKind.RETIRE] = Failure(code=ExitCode.CONFIGURATION)
    assert deleted.go(290)
    assert not deleted.go(20)
    told = deleted.life.runtime.events[-1]
    assert (told.type, told.reason) == ("Warning", "StreamsLeft")
    assert "aws dynamodb update-table" in told.message


def test_a_namespace_that_ends_is_not_held_up_for_long() -> None:
    deleted = following()
    deleted.ending = True
    assert deleted.go(55)
    assert not deleted.go(15)


def test_what_retains_nothing_goes_at_once() -> None:
    rows, begun = Life(), Life(**ITEMS)
    rows.until_phase(Phase.FOLLOWING)
    begun.until_phase(Phase.PREFLIGHT)
    for life in (rows, begun):
        deleted = Deleted(life)
        assert not deleted.go(5)
        assert "cancelled" not in deleted.journal
        assert "start abandon-0" not in life.runtime.acts


def test_what_has_ended_goes_at_once() -> None:
    life = Life(**ITEMS)
    life.until_phase(Phase.FOLLOWING)
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.CANCELLED)
    assert not Deleted(life).go(5)
    assert "start abandon-0" not in life.runtime.acts
