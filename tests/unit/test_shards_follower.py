"""A follower with its threads, over a source and a target in memory: sharing, crashes, failures, stops."""

import threading
import time
from dataclasses import replace

import pytest

from support.memory_shards import MemoryStage
from whimbrel_worker.engine.shard_ports import Holder, ShardRow, ShardState
from whimbrel_worker.engine.shards.follower import Follower
from whimbrel_worker.errors import FencedOut, SourceLogLost, WorkerError


class Stage(MemoryStage):
    """Followers from the source to the target."""

    def __init__(self, *names: str, workers: int = 1) -> None:
        super().__init__(*names, page=50, workers=workers)

    def start(self, index: int = 0, *, keep_ttl: bool = True) -> Follower:
        return self.follow(self.source, self.target, self.session(index), keep_ttl=keep_ttl)

    def row(self, at: int = 0) -> ShardRow:
        return sorted(self.rows(), key=lambda row: row.ref)[at]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_changes_are_followed_over_rolls_and_splits(stage: Stage) -> None:
    follower = stage.start()
    for round_ in range(3):
        stage.write(100)
        stage.source.roll("t", split=round_ == 1)
    stage.write(100)
    stage.until(stage.equal)
    assert sum(row.changes for row in stage.target.store.all()) <= 400
    stage.until(lambda: sum(row.changes for row in stage.target.store.all()) == 400)
    assert follower.finish()
    assert {row.owner for row in stage.target.store.all() if row.state is not ShardState.DONE} == {-1}


def test_two_workers_share_and_one_takes_over_what_the_other_gives_back() -> None:
    stage = Stage("a", "b", "c", "d", workers=2)
    first, second = stage.start(0), stage.start(1)
    stage.until(lambda: sorted(row.owner for row in stage.target.store.all()) == [0, 0, 1, 1])
    assert second.finish()
    stage.followers.remove(second)
    stage.until(lambda: {row.owner for row in stage.target.store.all()} == {0})
    for name in "abcd":
        stage.write(10, table=name)
    stage.until(stage.equal)
    assert first.finish()


def test_failures_on_both_sides_are_tried_again_and_reported(stage: Stage) -> None:
    stage.source.failures = stage.target.failures = 2
    follower = stage.start()
    stage.write(20)
    stage.until(stage.equal)
    assert len(stage.heard) >= 4
    assert follower.finish()


def test_a_table_that_the_target_refuses_is_stopped_and_the_others_go_on() -> None:
    stage = Stage("good", "bad")
    stage.target.refuses = {"bad"}
    follower = stage.start()
    stage.write(5, table="bad")
    stage.write(5, table="good")
    stage.until(lambda: stage.target.states.get("bad") is not None)
    stage.until(lambda: stage.target.items.get("good", {}) == stage.source.items["good"])
    assert stage.target.states["bad"].state == "Stopped"
    assert "does not take" in stage.target.states["bad"].message
    assert [row.ref.table for row in follower.rows()] == ["good"]
    assert stage.target.items.get("bad", {}) == {}
    assert follower.finish()


def test_a_worker_whose_shard_another_has_ends(stage: Stage) -> None:
    stage.start()
    stage.until(lambda: stage.row().owner == 0)
    row = stage.row()
    with stage.target.store.lock:
        stage.target.store.rows[row.ref] = replace(row, owner=7, attempt=3)
    with pytest.raises(FencedOut):
        stage.until(lambda: False)


def test_a_worker_that_was_succeeded_while_it_was_stopped_writes_no_more(stage: Stage) -> None:
    """It has read a page; before the page is written another worker has the shard."""
    stage.target.slow = True
    stage.start()
    stage.until(lambda: stage.row().owner == 0)
    row = stage.row()
    with stage.target.store.lock, stage.source.lock:
        stage.target.store.rows[row.ref] = replace(row, owner=7, attempt=3)
        stage.write(3)
    with pytest.raises(FencedOut):
        stage.until(lambda: False)
    assert stage.target.items == {}


def test_a_table_that_is_dropped_is_stopped_and_the_others_go_on() -> None:
    stage = Stage("kept", "dropped")
    follower = stage.start()
    stage.write(5, table="kept")
    stage.until(lambda: stage.target.items.get("kept", {}) == stage.source.items["kept"])
    with stage.source.lock:
        stage.source.drop("dropped")
    stage.until(lambda: stage.target.states.get("dropped") is not None)
    stage.write(5, table="kept")
    stage.until(lambda: stage.target.items.get("kept", {}) == stage.source.items["kept"])
    assert "no such table" in stage.target.states["dropped"].message
    assert follower.finish()


def test_lost_records_end_the_work(stage: Stage) -> None:
    stage.write(10)
    stage.source.trim("t", stage.row().ref.shard, 4)
    stage.start()
    with pytest.raises(SourceLogLost):
        stage.until(lambda: False)


def test_what_a_dead_worker_held_is_given_back(stage: Stage) -> None:
    dead = Holder(5, 1)
    assert stage.target.store.claim(stage.row(), dead)
    row = stage.row()
    with stage.target.store.lock:
        stage.target.store.rows[row.ref] = replace(row, beat_at=time.monotonic() - 60)
    stage.write(10)
    follower = stage.start()
    stage.until(stage.equal)
    assert follower.finish()


def test_an_idle_shard_shows_that_its_owner_lives_and_becomes_quiet(stage: Stage) -> None:
    follower = stage.start()
    stage.until(lambda: stage.row().quiet_since > 0)
    seen = stage.row().asked_at
    stage.until(lambda: stage.row().asked_at > seen)
    assert follower.finish()


def test_ttl_deletes_are_left_out_where_that_is_asked_for(stage: Stage) -> None:
    stage.source.write("t", "gone")
    stage.source.write("t", "gone", remove=True, by_ttl=True)
    follower = stage.start(keep_ttl=False)
    stage.until(lambda: stage.row().position != "")
    assert len(stage.target.items["t"]) == 1
    assert follower.finish()


def test_a_child_whose_parents_row_was_not_seen_yet_waits_for_the_next_look(stage: Stage) -> None:
    """Rows come page by page, so a look may see a child that was added during it, and not its parent."""
    stage.write(20)
    stage.source.roll("t", split=False)
    stage.write(20)
    parent, child = sorted(stage.source.capture(stage.source.tables), key=lambda row: row.ref)
    stage.target.store.rows = {row.ref: replace(row, state=ShardState.PENDING) for row in (parent, child)}
    every, looks = stage.target.store.all, iter([False, False])

    def half() -> list[ShardRow]:
        return [row for row in every() if row.ref != parent.ref or next(looks, True)]

    stage.target.store.all = half  # type: ignore[method-assign]
    follower = stage.start()
    stage.until(stage.equal)
    order = [row.ref for _, row in stage.target.store.log if row.position]
    assert order.index(child.ref) > max(at for at, ref in enumerate(order) if ref == parent.ref)
    assert follower.finish()


def test_a_child_whose_parent_was_gone_before_the_capture_is_read(stage: Stage) -> None:
    stage.source.roll("t", split=False)
    parent, child = sorted(stage.source.capture(stage.source.tables), key=lambda row: row.ref)
    stage.source.trim("t", parent.ref.shard, 0, unlist=True)
    stage.target.store.rows = {child.ref: child}
    stage.write(20)
    follower = stage.start()
    stage.until(stage.equal)
    assert follower.finish()


def test_a_new_shard_is_read_within_five_seconds(stage: Stage) -> None:
    follower = stage.start()
    stage.write(5)
    stage.until(stage.equal)
    stage.source.roll("t", split=True)
    began = time.monotonic()
    stage.write(20)
    stage.until(stage.equal)
    assert time.monotonic() - began < 5.0
    assert follower.finish()


def test_a_crash_between_write_and_commit_repeats_the_page_and_loses_nothing(stage: Stage) -> None:
    """The worker dies right after a write: nothing of it is committed, its successor begins at the same place."""
    commit, died = stage.target.store.commit, threading.Event()

    def dying(row: ShardRow, holder: Holder) -> None:
        if holder.attempt == 1 and row.position and not died.is_set():
            died.set()
            raise WorkerError("killed")
        commit(row, holder)

    stage.target.store.commit = dying  # type: ignore[method-assign]
    stage.write(30)
    stage.start()
    with pytest.raises(WorkerError, match="killed"):
        stage.until(lambda: False)
    stage.followers.clear()
    follower = stage.start()
    stage.until(lambda: stage.row().changes == 30)
    assert stage.equal()
    assert follower.finish()
