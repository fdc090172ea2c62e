"""The stream over shards against servers: the stream server as the source, the PolarDB stand-in as the target.

The workers are processes of their own, as in a cluster, or run in this one where a test looks inside.
"""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.item_moves import ItemMove, an_item, fill
from support.moves import order
from support.patience import PATIENCE, eventually
from whimbrel_api.migration import TableStatus
from whimbrel_api.reports import ErrorCategory, StreamResult, WorkerReport
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.streams.control import Control
from whimbrel_testbed.streams.server import StreamServer

STREAM = {"reportInterval": 0.2}


class Stream:
    """Stream workers of one move, as processes."""

    def __init__(self, move: ItemMove, workers: int) -> None:
        self.move, self.workers = move, workers
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.fields: dict[str, Any] = dict(STREAM)
        self.files: dict[int, TaskFile] = {}

    def file(self, index: int = 0) -> TaskFile:
        """Made once: making one writes the Secrets anew, which a worker may be reading."""
        if index not in self.files:
            self.files[index] = self.move.task("stream", index=index, workers=self.workers, **self.fields)
        return self.files[index]

    def start(self, index: int, failpoint: str = "") -> "subprocess.Popen[bytes]":
        process = self.move.start("stream", failpoint, index=index, workers=self.workers, **self.fields)
        self.processes[index] = process
        return process

    def report(self, index: int = 0) -> WorkerReport | None:
        path = Path(self.file(index).report_file)
        return WorkerReport.model_validate_json(path.read_bytes()) if path.exists() else None

    def result(self, index: int = 0) -> StreamResult | None:
        report = self.report(index)
        return report.stream if report is not None else None

    def log(self) -> str:
        return "\n".join(self.move.log("stream", index)[-3000:] for index in self.processes)

    def order(self, **orders: Any) -> None:
        for index in range(self.workers):
            order(self.file(index), **orders)

    def changes(self) -> int:
        return found.changes_applied if (found := self.result()) is not None else 0

    def equal(self, *tables: str) -> None:
        eventually(lambda: self.move.differences(*tables) == [], lambda: (self.move.differences(*tables), self.log()))

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def following(move: ItemMove, workers: int = 1, **fields: Any) -> Iterator[Stream]:
    """Stream workers; retired at the end, which all that still run must do with exit code 0."""
    stream = Stream(move, workers)
    stream.fields |= fields
    try:
        for index in range(workers):
            stream.start(index)
        yield stream
        stream.order(retire=True)
        for index, process in stream.processes.items():
            assert process.wait(PATIENCE) == ExitCode.DONE, move.log("stream", index)
    finally:
        stream.end()


def copied(move: ItemMove, *names: str, items: int = 60) -> tuple[str, ...]:
    tables = tuple(move.table(name) for name in names)
    for table in tables:
        fill(move.origin, table, range(items))
    move.prepare()
    code, report = move.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    return tables


class Writer:
    """Writes to the source by a seeded generator; each call is one change."""

    def __init__(self, move: ItemMove, tables: tuple[str, ...], seed: int) -> None:
        print(f"seed {seed}")
        self.client, self.tables, self.rng = client_of(move.origin), tables, random.Random(seed)

    def write(self, count: int, *, removes: float = 0.2) -> None:
        """Without removes each of them is a record; a removal of what is not there is none."""
        for _ in range(count):
            table, item = self.rng.choice(self.tables), an_item(self.rng.randint(0, 80), self.rng)
            if self.rng.random() < removes:
                self.client.delete_item(TableName=table, Key={name: item[name] for name in ("pk", "sk")})
            else:
                self.client.put_item(TableName=table, Item=item)


@pytest.fixture
def control(stream_bed: StreamServer) -> Control:
    return stream_bed.control


def test_order_is_kept_over_splits_and_rolls_with_two_workers(moving: ItemMove, control: Control) -> None:
    tables = copied(moving, "a", "b")
    writer = Writer(moving, tables, 1)
    with following(moving, workers=2) as stream:
        for round_ in range(4):
            writer.write(30)
            for table in tables:
                (control.split if round_ % 2 else control.roll)(table)
            control.empty_pages(2, tables[0])
        writer.write(30)
        stream.equal(*tables)


def test_nothing_is_lost_while_the_service_is_at_its_worst(moving: ItemMove, control: Control) -> None:
    """Expired iterators, throttling, children listed late and out of order, sequence numbers that gain a digit."""
    tables = copied(moving, "a", "b")
    writer = Writer(moving, tables, 11)
    control.big_sequence_numbers(tables[0])
    control.delay_new_shards(1.0)
    control.shuffle_shard_listing(5)
    control.limit_describes()
    try:
        with following(moving, workers=2) as stream:
            for round_ in range(4):
                writer.write(30)
                control.expire_iterators()
                (control.split if round_ % 2 else control.roll)(tables[round_ % 2])
                control.throttle(3)
                control.throttle(2, "DescribeStream", "LimitExceededException")
                control.empty_pages(1, tables[1])
            writer.write(30)
            stream.equal(*tables)
    finally:
        control.delay_new_shards(0.0)
        control.shuffle_shard_listing(None)
        control.limit_describes(None)


def test_a_table_that_is_dropped_is_stopped_and_the_others_go_on(moving: ItemMove) -> None:
    kept, dropped = copied(moving, "kept", "dropped")
    writer = Writer(moving, (kept,), 12)
    with following(moving) as stream:
        writer.write(5, removes=0)
        eventually(lambda: stream.changes() >= 5, stream.log)
        writer.client.delete_table(TableName=dropped)

        def stopped() -> str:
            report = stream.report()
            rows = report.tables if report is not None else []
            return "; ".join(row.message for row in rows if row.name == dropped and row.state == "Stopped")

        assert "no such table" in eventually(stopped, stream.log)
        writer.write(5)
        stream.equal(kept)


def test_a_new_shard_is_read_within_five_seconds(moving: ItemMove, control: Control) -> None:
    (table,) = copied(moving, "a")
    writer = Writer(moving, (table,), 2)
    with following(moving) as stream:
        writer.write(5)
        stream.equal(table)
        control.split(table)
        writer.write(20)
        began = time.monotonic()
        stream.equal(table)
        assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("failpoint", ["stream.before_write:2", "stream.after_write:2", "stream.before_commit:4"])
def test_a_worker_killed_anywhere_in_a_page_loses_nothing(moving: ItemMove, failpoint: str) -> None:
    (table,) = copied(moving, "a")
    writer = Writer(moving, (table,), 3)
    stream = Stream(moving, 1)
    try:
        first = stream.start(0, failpoint)
        deadline = time.monotonic() + PATIENCE
        while first.poll() is None:
            assert time.monotonic() < deadline, stream.log()
            writer.write(5)
        assert first.returncode == -signal.SIGKILL, stream.log()
        writer.write(20)
        stream.start(0)
        stream.equal(table)
    finally:
        stream.end()


def test_a_worker_told_to_stop_gives_its_shards_back_and_the_next_goes_on(moving: ItemMove) -> None:
    (table,) = copied(moving, "a")
    writer = Writer(moving, (table,), 4)
    stream = Stream(moving, 1)
    try:
        first = stream.start(0)
        writer.write(30)
        eventually(lambda: stream.changes() > 0, stream.log)
        first.terminate()
        assert first.wait(PATIENCE) == ExitCode.TOLD_TO_STOP, stream.log()
        writer.write(30)
        stream.start(0)
        stream.equal(table)
    finally:
        stream.end()


def test_trimmed_records_end_the_stream_with_the_gap(moving: ItemMove, control: Control) -> None:
    (table,) = copied(moving, "a")
    Writer(moving, (table,), 5).write(30)
    control.trim(table)
    code, report = moving.run("stream")
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.SOURCE_LOG_LOST
    assert table in report.last_error.sentence()


def test_another_stream_ends_the_stream_and_names_both(moving: ItemMove, control: Control) -> None:
    (table,) = copied(moving, "a")
    arn = control.recreate(table)
    code, report = moving.run("stream")
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    assert arn in report.last_error.sentence()


def test_a_shard_that_gives_empty_pages_first_ends_correct(moving: ItemMove, control: Control) -> None:
    (table,) = copied(moving, "a")
    control.empty_pages(8, table)
    Writer(moving, (table,), 6).write(30)
    with following(moving) as stream:
        stream.equal(table)


def test_quiet_is_said_where_nothing_comes_and_lag_where_something_does(moving: ItemMove) -> None:
    tables = copied(moving, "a", "idle")
    writer = Writer(moving, tables[:1], 7)
    with following(moving) as stream:
        eventually(
            lambda: (found := stream.result()) is not None and found.quiet and found.lag_seconds is None, stream.log
        )
        writer.write(10, removes=0)
        eventually(lambda: stream.changes() >= 10, stream.log)
        found = stream.result()
        assert found is not None
        assert found.last_change_time is not None
        assert found.position
        report = stream.report()
        assert report is not None
        assert {row.name: row.state for row in report.tables} == dict.fromkeys(tables, "Following")


def freeze(move: ItemMove, **fields: Any) -> str:
    code, report = move.run("freeze", freeze={"quietSeconds": 1.5}, **fields)
    assert code == ExitCode.DONE, report.last_error
    assert report.freeze is not None
    return report.freeze.position


def test_a_freeze_is_drained_and_a_second_one_is_equal_unless_something_was_written(
    moving: ItemMove, control: Control
) -> None:
    tables = copied(moving, "a", "b")
    writer = Writer(moving, tables, 8)
    writer.write(50)
    first = freeze(moving)
    with following(moving, workers=2) as stream:
        stream.order(drainTo=first)
        eventually(lambda: (found := stream.result()) is not None and found.drained_to == first, stream.log)
        assert moving.differences(*tables) == []
        control.roll(tables[0])
        assert freeze(moving) == first
        stream.order(drainTo=first, retire=True)
        eventually(lambda: all(process.poll() == ExitCode.DONE for process in stream.processes.values()), stream.log)
        again = stream.start(0)
        assert again.wait(PATIENCE) == ExitCode.DONE, stream.log()
        found = stream.result()
        assert found is not None
        assert found.drained_to == first
        writer.write(1, removes=0)
        assert freeze(moving) != first


@pytest.mark.parametrize("carried", [True, False])
def test_ttl_deletes_are_carried_or_left_out(moving: ItemMove, control: Control, carried: bool) -> None:
    (table,) = copied(moving, "a")
    item = an_item(7, random.Random(1))
    mode = "Carry" if carried else "Skip"
    with following(moving, stream={"ttlDeletes": mode}) as stream:
        assert control.ttl_delete(table, {name: item[name] for name in ("pk", "sk")})
        fill(moving.origin, table, [1000])
        eventually(lambda: len(moving.target_items(table)) == (60 if carried else 61), stream.log)


@pytest.mark.parametrize("mode", ["Report", "Add"])
def test_tables_made_later_are_reported_or_added(moving: ItemMove, mode: str) -> None:
    (table,) = copied(moving, "a")
    late = moving.table("late")
    fill(moving.origin, late, range(300))
    with following(moving, stream={"newTables": mode}) as stream:

        def status() -> TableStatus | None:
            report = stream.report()
            return next((row for row in report.tables if row.name == late), None) if report is not None else None

        wanted = {"Report": "Stopped", "Add": "Following"}[mode]
        found = eventually(lambda: (row := status()) is not None and row.state == wanted and row, stream.log)
        if mode == "Report":
            assert "newTables" in found.message
        else:
            Writer(moving, (late,), 9).write(40)
            stream.equal(table, late)


def test_a_paused_worker_finds_itself_fenced_out(moving: ItemMove) -> None:
    (table,) = copied(moving, "a")
    writer = Writer(moving, (table,), 10)
    stream = Stream(moving, 1)
    try:
        zombie = stream.start(0)
        writer.write(10, removes=0)
        eventually(lambda: stream.changes() >= 10, stream.log)
        zombie.send_signal(signal.SIGSTOP)
        successor = stream.start(0)
        writer.write(20)
        stream.equal(table)
        zombie.send_signal(signal.SIGCONT)
        assert zombie.wait(PATIENCE) == ExitCode.FENCED_OUT, stream.log()
        assert successor.poll() is None
        assert moving.differences(table) == []
    finally:
        stream.end()
