"""A copy that outlasts the stream: changes are collected while the source forgets them, and nothing is lost.

The stream server is the source, the PolarDB stand-in the target; the workers are processes of their own.
"""

import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.item_moves import ItemMove, an_item, fill
from support.moves import order
from support.patience import PATIENCE, eventually
from whimbrel_api.reports import ErrorCategory, WorkerReport
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.streams.control import Control
from whimbrel_testbed.streams.server import StreamServer
from whimbrel_worker.engine.shard_ports import ShardRef
from whimbrel_worker.engine.spool.spool import Spool

ITEMS = 40
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


class Stream:
    """The stream's worker of a move."""

    def __init__(self, move: ItemMove, *, collect: bool) -> None:
        self.move = move
        self.fields: dict[str, Any] = {"spool": str(move.directory / "volume"), "collect": collect}
        Path(move.task("stream").report_file).unlink(missing_ok=True)
        self.process: subprocess.Popen[bytes] = move.start("stream", **self.fields)

    def report(self) -> WorkerReport | None:
        path = Path(self.move.task("stream").report_file)
        return WorkerReport.model_validate_json(path.read_bytes()) if path.exists() else None

    def log(self) -> str:
        return self.move.log("stream")[-4000:]

    def alive(self) -> bool:
        assert self.process.poll() is None, self.log()
        return True

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def streaming(move: ItemMove, *, collect: bool) -> Iterator[Stream]:
    stream = Stream(move, collect=collect)
    try:
        yield stream
    finally:
        if stream.process.poll() is None:
            stream.kill()


class Writer:
    """Puts and deletes of a seeded generator; each is a record, as the items before were. `written` counts all."""

    def __init__(self, move: ItemMove, table: str, seed: int) -> None:
        print(f"seed {seed}")
        self.client, self.table, self.rng = client_of(move.origin), table, random.Random(seed)
        self.there, self.written = set(range(ITEMS)), ITEMS

    def write(self, count: int) -> None:
        self.written += count
        for _ in range(count):
            number = self.rng.randint(0, 80)
            item = an_item(number, self.rng)
            if number in self.there and self.rng.random() < 0.3:
                self.client.delete_item(TableName=self.table, Key={name: item[name] for name in ("pk", "sk")})
                self.there.discard(number)
            else:
                self.client.put_item(TableName=self.table, Item=item)
                self.there.add(number)


class Bed:
    """A prepared move of one table, its volume and what happens to its stream."""

    def __init__(self, move: ItemMove, control: Control) -> None:
        self.move, self.control = move, control
        self.volume = move.directory / "volume"
        self.volume.mkdir()
        move.options = {"stream": {"spool": {"claimName": "changes"}}, "reportInterval": 0.2}
        self.table = move.table("a", StreamSpecification=STREAM)
        fill(move.origin, self.table, range(ITEMS))
        move.prepare()
        self.arn = client_of(move.origin).describe_table(TableName=self.table)["Table"]["LatestStreamArn"]
        self.writer = Writer(move, self.table, 7)

    def spool(self) -> Spool:
        (folder,) = self.volume.iterdir()
        return Spool(folder)

    def collected(self) -> int:
        """How many changes lie on the volume."""
        if not any(self.volume.iterdir()):
            return 0
        spool, shards = self.spool(), self.control.shards(self.table)
        return sum(len(page.changes) for shard in shards for page in spool.pages_after(self.ref(shard), ""))

    def ends_collected(self) -> bool:
        spool, shards = self.spool(), self.control.shards(self.table)
        return all(shard["open"] or spool.ended(self.ref(shard)) for shard in shards)

    def ref(self, shard: dict[str, Any]) -> ShardRef:
        return ShardRef(self.table, self.arn, shard["shardId"])

    def write(self, count: int, stream: Stream) -> None:
        """Write, wait until all of it and every end lie on the volume, let the stream forget it."""
        self.writer.write(count)
        eventually(
            lambda: stream.alive() and self.collected() >= self.writer.written and self.ends_collected(),
            lambda: f"{self.collected()} of {self.writer.written}: {stream.log()}",
        )
        self.forget()

    def forget(self) -> None:
        """What a day does: closed shards go, and of an open one only the newest record is left."""
        self.control.drop_closed_shards(self.table)
        for shard in self.control.shards(self.table):
            if shard["open"] and shard["last"]:
                self.control.trim(self.table, shard["shardId"], shard["last"])

    def copy(self) -> None:
        code, report = self.move.run("snapshot")
        assert code == ExitCode.DONE, report.last_error

    def equal(self, stream: Stream) -> None:
        eventually(
            lambda: self.move.differences(self.table) == [], lambda: (self.move.differences(self.table), stream.log())
        )


@pytest.fixture
def bed(moving: ItemMove, stream_bed: StreamServer) -> Bed:
    return Bed(moving, stream_bed.control)


def test_a_copy_that_outlasts_the_stream_loses_nothing(bed: Bed) -> None:
    with streaming(bed.move, collect=True) as first:
        bed.write(20, first)
        bed.control.split(bed.table)
        bed.write(20, first)
        first.kill()
    bed.copy()
    with streaming(bed.move, collect=True) as second:
        bed.write(30, second)
        bed.control.roll(bed.table)
        bed.write(30, second)
        assert second.stop() == ExitCode.TOLD_TO_STOP, second.log()
    assert bed.move.differences(bed.table) != []
    with streaming(bed.move, collect=False) as applying:
        bed.equal(applying)
        bed.writer.write(20)
        bed.equal(applying)
        eventually(lambda: len(list(bed.spool().folder.iterdir())) <= 2, applying.log)
        order(bed.move.task("stream"), retire=True)
        assert applying.process.wait(PATIENCE) == ExitCode.DONE, applying.log()


def test_a_collector_says_what_it_keeps_and_claims_no_lag(bed: Bed) -> None:
    with streaming(bed.move, collect=True) as stream:
        bed.write(20, stream)
        told = eventually(lambda: (report := stream.report()) and report.stream, stream.log)
        found = eventually(
            lambda: (report := stream.report()) and report.stream and report.stream.collected_bytes, stream.log
        )
        assert found > 0
        assert (told.lag_seconds, told.quiet, told.changes_applied) == (None, False, 0)
        assert bed.move.target_items(bed.table) == []


def test_without_its_volume_the_same_is_a_lost_log(bed: Bed) -> None:
    with streaming(bed.move, collect=True) as stream:
        bed.copy()
        bed.write(20, stream)
        bed.control.roll(bed.table)
        bed.write(20, stream)
        assert stream.stop() == ExitCode.TOLD_TO_STOP, stream.log()
    bed.move.options = {}
    code, report = bed.move.run("stream")
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.SOURCE_LOG_LOST


def test_a_volume_that_is_not_mounted_is_named(bed: Bed) -> None:
    bed.volume.rmdir()
    code, report = bed.move.run("stream", spool=str(bed.volume), collect=True)
    assert code == ExitCode.CONFIGURATION
    assert report.last_error is not None
    assert "changes" in report.last_error.what
