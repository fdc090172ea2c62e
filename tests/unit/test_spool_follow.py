"""Followers that collect while the copy runs, and apply afterwards: the target gets all, the source may forget it."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.memory_shards import MemoryStage
from whimbrel_worker.engine.shard_ports import BEGINNING, Holder, ShardRow, ShardState
from whimbrel_worker.engine.shards.follower import Follower
from whimbrel_worker.engine.spool.sources import CollectedSource, CollectingStore, applying, collecting
from whimbrel_worker.engine.spool.spool import Spool
from whimbrel_worker.errors import ConfigurationError, FencedOut, SourceLogLost


class Stage(MemoryStage):
    """Followers with a volume between the source and the target."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(*names, page=20)
        self.folder = folder / "spool"

    def spool(self) -> Spool:
        """A new one each time, as each process has its own."""
        return Spool(self.folder, "changes", segment_bytes=2000)

    def collect(self, index: int = 0) -> Follower:
        session = self.session(index)
        source, target = collecting(self.source, self.target, self.spool(), Holder(index, session.attempt))
        return self.follow(source, target, session)

    def apply(self, index: int = 0) -> Follower:
        source, target = applying(self.source, self.target, self.spool())
        return self.follow(source, target, self.session(index))

    def removes(self, number: int) -> bool:
        return number % 7 == 3

    def end(self, *followers: Follower) -> None:
        for follower in followers:
            assert follower.finish()
            self.followers.remove(follower)

    def collected(self) -> bool:
        """Whether the volume holds every record of every shard."""
        spool = self.spool()
        with self.source.lock:
            lives = [live for name in self.source.lives for live in self.source.lives[name]]
            return all(
                spool.collected_to(live.ref) == (live.records[-1].sequence if live.records else BEGINNING)
                and (spool.ended(live.ref) or not live.closed)
                for live in lives
            )

    def forget(self, *, unlist: bool = False) -> None:
        """What 24 hours do: every record is trimmed that was written, and closed shards are listed no more."""
        with self.source.lock:
            for name, lives in self.source.lives.items():
                for live in lives:
                    self.source.trim(name, live.ref.shard, len(live.records), unlist=unlist and live.closed)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for follower in made.followers:
        follower.finish()


def test_what_the_source_has_forgotten_is_applied_from_the_volume_over_rolls_and_splits(stage: Stage) -> None:
    collector = stage.collect()
    for round_ in range(3):
        stage.write(60)
        stage.source.roll("t", split=round_ == 1)
        stage.until(stage.collected)
        stage.forget(unlist=round_ > 0)
    stage.write(60)
    stage.until(stage.collected)
    stage.end(collector)
    stage.forget(unlist=True)
    assert stage.target.items == {}
    assert {(row.position, row.changes, row.read_to) for row in stage.rows()} == {(BEGINNING, 0, 0.0)}
    assert not any(row.state is ShardState.DONE for row in stage.rows())
    applier = stage.apply()
    stage.until(stage.equal)
    stage.write(30)
    stage.until(stage.equal)
    done = [row.ref for row in stage.rows() if row.state is ShardState.DONE]
    assert len(done) >= 3
    stage.until(lambda: not any(stage.spool().folder_of(ref).exists() for ref in done))
    stage.end(applier)


def test_without_the_volume_the_same_is_a_lost_log(stage: Stage) -> None:
    stage.write(20)
    stage.forget()
    stage.apply()
    with pytest.raises(SourceLogLost, match="trimmed"):
        stage.until(stage.equal)
    stage.followers.clear()


def test_a_gap_between_volume_and_source_is_a_lost_log(stage: Stage) -> None:
    collector = stage.collect()
    stage.write(20)
    stage.until(stage.collected)
    stage.end(collector)
    stage.write(20)
    stage.forget()
    stage.apply()
    with pytest.raises(SourceLogLost, match="trimmed"):
        stage.until(stage.equal)
    stage.followers.clear()


def test_collecting_goes_on_where_a_dead_worker_stopped(stage: Stage) -> None:
    stage.collect()
    stage.write(40)
    stage.until(stage.collected)
    stage.followers.clear()
    stage.forget()
    stage.collect()
    stage.write(40)
    stage.source.roll("t", split=True)
    stage.write(40)
    stage.until(stage.collected)
    stage.end(*stage.followers)
    stage.apply()
    stage.until(stage.equal)


def test_two_workers_share_what_is_to_be_collected_and_each_others_work(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "a", "b", "c", "d")
    stage.workers = 2
    first, second = stage.collect(0), stage.collect(1)
    stage.until(lambda: sorted(row.owner for row in stage.rows()) == [0, 0, 1, 1])
    for name in "abcd":
        stage.write(20, table=name)
        stage.source.roll(name, split=name == "a")
        stage.write(20, table=name)
    stage.until(stage.collected)
    stage.end(second)
    for name in "abcd":
        stage.write(20, table=name)
    stage.until(stage.collected)
    stage.end(first)
    stage.forget(unlist=True)
    appliers = stage.apply(0), stage.apply(1)
    stage.until(stage.equal)
    stage.end(*appliers)


def test_a_source_that_fails_now_and_then_is_read_on_without_loss(stage: Stage) -> None:
    collector = stage.collect()
    for _ in range(4):
        stage.source.failures = 2
        stage.write(20)
        stage.until(stage.collected)
    stage.end(collector)
    assert stage.heard
    stage.forget()
    stage.apply()
    stage.until(stage.equal)


def test_a_volume_that_fails_ends_the_worker(stage: Stage) -> None:
    collector = stage.collect()
    stage.write(5)
    stage.until(stage.collected)
    stage.end(collector)
    folder = stage.spool().folder_of(stage.rows()[0].ref)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("no folder")
    stage.collect()
    with pytest.raises(ConfigurationError, match="changes"):
        stage.until(lambda: False)
    stage.followers.clear()


def test_a_collector_that_wakes_up_late_is_fenced_out(stage: Stage) -> None:
    (table,), (row,) = stage.source.tables, stage.rows()
    stage.write(3)
    zombie = CollectedSource(stage.source, stage.spool(), Holder(0, 1)).read(table, row)
    next(zombie)
    successor = CollectedSource(stage.source, stage.spool(), Holder(1, 1)).read(table, row)
    stage.write(3)
    next(successor)
    with pytest.raises(FencedOut):
        list(zombie)


def test_a_commit_while_collecting_says_nothing_of_the_target(stage: Stage) -> None:
    (row,) = stage.rows()
    store = CollectingStore(stage.target.store, stage.spool())
    (shown,) = store.all()
    assert store.claim(shown, Holder(0, 1))
    far = replace(row, owner=0, attempt=1, position="99", state=ShardState.DONE, read_to=5.0, changes=7, beat_at=3.0)
    store.commit(far, Holder(0, 1))
    (kept,) = stage.rows()
    assert (kept.position, kept.state, kept.read_to, kept.changes) == (BEGINNING, ShardState.PENDING, 0.0, 0)
    assert kept.owner == 0
    stage.target.store.release(Holder(0, 1))
    with pytest.raises(FencedOut):
        store.commit(far, Holder(0, 1))


def test_a_child_that_is_found_while_collecting_says_nothing_of_the_target(stage: Stage) -> None:
    stage.write(1)
    stage.source.roll("t", split=False)
    child = stage.source.capture(stage.source.tables)[-1]
    CollectingStore(stage.target.store, stage.spool()).add([replace(child, read_to=5.0)])
    assert [row.read_to for row in stage.rows()] == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(3))
def test_random_crashes_rolls_and_trims_lose_nothing(tmp_path: Path, seed: int) -> None:
    """One shard after the other, step by step and without threads: every break is at a known place."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    stage = Stage(tmp_path)
    (table,) = stage.source.tables
    rows: dict[object, ShardRow] = {}
    for _ in range(15):
        stage.write(rng.randint(1, 30))
        if rng.random() < 0.3:
            stage.source.roll("t", split=rng.random() < 0.5)
        for row in stage.source.capture([table]):
            rows.setdefault(row.ref, replace(row, state=ShardState.PENDING))
        for row in rows.values():
            _collect_some(stage, row, rng)
        if rng.random() < 0.5:
            _trim_collected(stage)
    for row in rows.values():
        while not _is_collected(stage, row):
            _collect_some(stage, row, rng)
    stage.target.store.add(list(rows.values()))
    stage.forget()
    stage.apply()
    stage.until(stage.equal)
    stage.end(*stage.followers)


def _collect_some(stage: Stage, row: ShardRow, rng: random.Random) -> None:
    pages = CollectedSource(stage.source, stage.spool(), Holder(0, 1)).read(stage.source.tables[0], row)
    for _ in range(rng.randint(0, 4)):
        if next(pages, None) is None:
            return


def _is_collected(stage: Stage, row: ShardRow) -> bool:
    (live,) = [each for each in stage.source.lives["t"] if each.ref == row.ref]
    last = live.records[-1].sequence if live.records else BEGINNING
    return stage.spool().collected_to(row.ref) == last and (stage.spool().ended(row.ref) or not live.closed)


def _trim_collected(stage: Stage) -> None:
    for live in stage.source.lives["t"]:
        collected = stage.spool().collected_to(live.ref)
        gone = [record for record in live.records if collected and int(record.sequence) <= int(collected)]
        live.trimmed = len(gone)
