"""The end of a way back: what it made on the server is taken away first, by whichever worker can."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from support.memory_runtime import KEY as MIGRATION_KEY
from support.way_back import AWAY, KEY, NAMED, Life, back, forward, streaming
from whimbrel_api.cutover import CutoverState
from whimbrel_api.layout import own_name
from whimbrel_api.migration import Phase
from whimbrel_api.reverse_sync import (
    Cleanup,
    ReverseSync,
    ReverseSyncPhase,
    ReverseSyncStatus,
)
from whimbrel_api.tasks import Orders, TaskKind
from whimbrel_operator.domain.observed import ObservedReverseSync, TaskRef
from whimbrel_operator.domain.reverse.decide import decide_reverse_sync
from whimbrel_operator.domain.reverse.end import HAND_OVER
from whimbrel_operator.errors import NamespaceEnding
from whimbrel_operator.letting_go import LettingGo
from whimbrel_operator.loop import at_end
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.store import LocalStore


@pytest.fixture
def life() -> Life:
    """A way back that streams."""
    return streaming()


def test_deleted_its_worker_finishes_and_takes_away_what_it_made(life: Life) -> None:
    life.delete()
    assert not life.turn().released
    assert life.runtime.orders("reverse") == Orders(retire=True, disarm=True)
    assert life.said("Ready") == ("False", "Disarming")
    assert life.turn().released
    assert (life.runtime.world.slot, life.running, life.status.phase) == ("", set(), ReverseSyncPhase.STOPPED)
    assert (life.said("Ready"), life.reasons[-1]) == (("False", "Disarmed"), "Disarmed")
    count = len(life.runtime.events)
    assert life.turn().released
    assert (len(life.runtime.events), life.runtime.started) == (count, [TaskRef("reverse")])


def test_a_new_operator_at_each_step_goes_on_from_what_is_there(life: Life) -> None:
    life.delete()
    released = []
    for _ in range(4):
        life.reconciler = Reconciler(life.runtime, life.runtime.clock)
        released.append(life.turn().released)
    assert released == [False, True, True, True]
    assert life.runtime.started == [TaskRef("reverse")]
    assert life.reasons.count("Disarmed") == 1


def test_without_a_running_worker_a_task_takes_it_away(life: Life) -> None:
    life.runtime.instances.clear()
    life.delete()
    life.turn()
    assert life.runtime.started[-1] == TaskRef("disarm")
    assert life.turn().released
    assert (life.runtime.world.slot, life.said("Ready")) == ("", ("False", "Disarmed"))


def test_a_worker_that_was_seen_is_not_forgotten_with_the_status(life: Life) -> None:
    life.runtime.silent = {"reverse"}
    life.delete()
    life.runtime.write_status(ReverseSyncStatus())
    life.turn()
    assert life.status.phase is ReverseSyncPhase.ARMING
    life.runtime.instances.clear()
    assert not life.turn().released
    assert life.runtime.started[-1] == TaskRef("disarm")
    assert life.turn().released
    assert (life.runtime.world.slot, life.said("Ready")) == ("", ("False", "Disarmed"))


def test_a_worker_that_does_not_finish_is_ended_before_the_task_begins(life: Life) -> None:
    life.runtime.silent = {"reverse"}
    life.delete()
    life.turns(3)
    assert life.running == {"reverse"}
    life.turn(HAND_OVER.total_seconds())
    life.runtime.acts.clear()
    life.turns(2)
    assert life.runtime.acts[0] == "start disarm-0"
    assert life.turn().released


def test_the_task_waits_for_the_end_of_the_worker(life: Life) -> None:
    life.runtime.silent = {"reverse"}
    life.delete()
    state, wanted = life.runtime.instances[TaskRef("reverse")]
    life.runtime.instances[TaskRef("reverse")] = (replace(state, stopping=True), wanted)
    observed = asyncio.run(life.runtime.observe(KEY, life.reconciler._memory[KEY]))
    assert isinstance(observed, ObservedReverseSync)
    (disarm,) = decide_reverse_sync(observed, life.runtime.now).wanted
    assert (disarm.kind, disarm.start) == (TaskKind.DISARM, False)


def test_a_server_that_is_away_is_tried_again_and_a_person_told_what_is_left(life: Life) -> None:
    life.runtime.instances.clear()
    life.runtime.world.failures[TaskKind.DISARM] = AWAY
    life.delete()
    life.turns(6)
    slot = own_name("default/back/u1")
    assert life.said("Ready") == ("False", "NotDisarmed")
    told = [event for event in life.runtime.events if event.reason == "NotDisarmed"]
    assert len(told) == 1
    assert f"SELECT pg_drop_replication_slot('{slot}'); DROP PUBLICATION IF EXISTS \"{slot}\";" in told[0].message
    assert "the server does not answer" in told[0].message
    assert "kubectl patch reversesync back -n default" in told[0].message
    life.runtime.world.failures.clear()
    life.turn(400)
    assert life.turn().released
    assert life.runtime.world.slot == ""


def test_a_person_may_let_it_go_without(life: Life) -> None:
    life.runtime.instances.clear()
    life.runtime.world.failures[TaskKind.DISARM] = AWAY
    life.delete()
    life.turns(2)
    life.spec(cleanup=Cleanup(drop_slot=False, drop_publication=False))
    assert life.turn().released
    assert (life.said("Ready"), life.reasons[-1]) == (("False", "LeftInPlace"), "LeftInPlace")
    assert "pg_drop_replication_slot" in life.message("Ready")


def test_what_the_worker_left_behind_is_tried_once_more_and_then_told(life: Life) -> None:
    life.runtime.world.left_behind = ["publication shared"]
    life.delete()
    assert not life.turns(2).released
    assert life.turns(2).released
    assert "publication shared" in life.runtime.events[-1].message
    assert life.runtime.events[-1].type == "Warning"


def test_where_nothing_was_made_nothing_is_taken_away() -> None:
    life = Life(NAMED, forward(Phase.FOLLOWING, CutoverState.NOT_READY))
    life.turns(2)
    life.delete()
    assert life.turn().released
    assert (life.said("Ready"), life.runtime.started) == (("False", "NothingMade"), [])


def test_what_never_came_so_far_as_to_arm_is_looked_for_all_the_same() -> None:
    life = Life()
    life.runtime.world.failures[TaskKind.REVERSE] = life.runtime.world.failures[TaskKind.DISARM] = AWAY
    life.turns(3)
    life.delete()
    life.turns(3)
    assert life.said("Ready") == ("False", "NotDisarmed")


class Ending:
    """A runtime whose namespace is being deleted: nothing new can be made in it."""

    def __init__(self, life: Life) -> None:
        self.life, self.cleared = life, 0
        self.observe = life.runtime.observe

        async def refuse(*_: object) -> None:
            raise NamespaceEnding("the namespace is being deleted")

        life.runtime.apply = refuse  # type: ignore[assignment,method-assign]

    async def clear(self, key: Key, uid: str) -> bool:
        self.cleared += 1
        return False


def test_a_namespace_that_ends_is_not_held_up_for_ever(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    life.runtime.instances.clear()
    life.delete()
    ending, times = Ending(life), [0.0]
    going = LettingGo(life.reconciler, ending, lambda: times[-1], patience=60.0)
    assert asyncio.run(going.clear(KEY, "u1"))
    times.append(59.0)
    assert asyncio.run(going.clear(KEY, "u1"))
    assert ending.cleared == 0
    times.append(60.0)
    assert not asyncio.run(going.clear(KEY, "u1"))
    assert ending.cleared == 1
    assert f"pg_drop_replication_slot('{own_name('default/back/u1')}')" in caplog.text


def test_its_objects_go_only_after_its_slot(life: Life) -> None:
    cleared: list[str] = []

    class Place:
        observe = life.runtime.observe

        async def clear(self, key: Key, uid: str) -> bool:
            cleared.append(f"{key} {uid}")
            return False

    going = LettingGo(life.reconciler, Place(), lambda: 0.0)
    life.delete()
    assert asyncio.run(going.clear(KEY, "u1"))
    assert (cleared, life.runtime.world.slot != "") == ([], True)
    life.runtime.advance()
    assert not asyncio.run(going.clear(KEY, "u1"))
    assert (cleared, life.runtime.world.slot) == (["default/ReverseSync/back u1"], "")
    assert not asyncio.run(going.clear(MIGRATION_KEY, "u2"))
    assert cleared[-1] == f"{MIGRATION_KEY} u2"


def test_one_that_was_deleted_here_begins_anew_once_it_is_at_its_end(life: Life, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(back())
    first = store.get(KEY).metadata
    store.write_status(KEY, life.status, 0)
    store.mark_deleted(KEY)
    store.put(back())
    marked = store.get(KEY)
    assert (marked.metadata.uid, marked.metadata.deletion_timestamp is not None) == (first.uid, True)
    assert not at_end(marked)
    life.delete()
    life.turns(3)
    store.write_status(KEY, life.status, 1)
    assert at_end(store.get(KEY))
    store.put(back())
    anew = store.get(KEY)
    assert isinstance(anew, ReverseSync)
    assert (anew.metadata.uid == first.uid, anew.metadata.deletion_timestamp) == (False, None)
    assert anew.status == ReverseSyncStatus()
