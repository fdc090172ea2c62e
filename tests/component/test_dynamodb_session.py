"""A session's promises on a DynamoDB-compatible target: nothing lost, progress never ahead of the items, one holder."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from support.item_targets import ItemCase, block, key, prepared, row, rows, texts
from support.succession import attempts_of_sessions_at_once, require_fence_of_a_raised_epoch
from whimbrel_testbed.dynamodb.faults import Call, Cut, Fault, LoseReply, Throttle, Unprocessed
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_worker.endpoints.dynamodb.calls.pace import Pace
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.engine.ports import Chunk, ChunkProgress, Delete, Insert, Session, TableRow, Upsert, Write
from whimbrel_worker.errors import FencedOut, Incompatible
from whimbrel_worker.values.columns import Table

LONG_NUMBER = b'{"pk":{"S":"p1"},"sk":{"N":"1"},"text":{"S":"secret"},"n":{"N":"%s"}}' % (b"123456789" * 5)


class DiedError(Exception):
    """What stands for the end of a process."""


def test_upserts_replace_whole_items_and_deletes_take_absent_keys(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    session = target.session("stream", 0)
    session.take()
    session.commit([Upsert(table, rows(range(60), "old"))], position="p1")
    more = (*key(4), b'{"pk":{"S":"p4"},"sk":{"N":"4"},"name":{"S":"new"},"size":{"L":[{"NULL":true}]}}')
    session.commit([Delete(table, [key(3), key(99)]), Upsert(table, [more, row(61, "new")])], position="p2")
    found = item_case.stored(table)
    assert found["p4", "4"] == {
        "pk": {"S": "p4"}, "sk": {"N": "4"}, "name": {"S": "new"}, "size": {"L": [{"NULL": True}]},
    }  # fmt: skip
    assert ("p3", "3") not in found
    assert len(found) == 60
    assert target.control().positions("stream") == {0: "p2"}
    assert target.tally.rows == 60 + 4


def test_a_key_twice_in_one_call_ends_as_the_last_says(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    writes: list[Write] = [
        Upsert(table, [row(1, "a"), row(2, "a"), row(1, "b")]),
        Delete(table, [key(2)]),
        Upsert(table, [row(3)]),
    ]
    target.writer().write(writes)
    assert texts(item_case.stored(table)) == {1: "b", 3: "x"}


def test_items_of_a_page_go_through_as_bytes(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    page = block(range(1000), '😀 \\ " é')
    target.writer().write([Insert(table, page)])
    assert "rows" not in vars(page), "the page was opened"
    assert set(texts(item_case.stored(table)).values()) == {'😀 \\ " é'}
    assert len(item_case.stored(table)) == 1000


def test_large_items_are_cut_into_smaller_batches(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    target.writer().write([Upsert(table, rows(range(30), "y" * 300_000))])
    assert len(item_case.stored(table)) == 30


def test_a_successor_fences_the_old_session_out(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    old, new = target.session("stream", 0), target.session("stream", 0)
    old.take()
    old.commit([Upsert(table, [row(1, "old")])], position="p1")
    assert new.take().position == "p1"
    with pytest.raises(FencedOut, match="another worker holds the control row"):
        old.commit([], position="p2")
    new.commit([Upsert(table, [row(1, "new")])], position="p2")
    assert target.control().positions("stream") == {0: "p2"}


def test_a_zombie_that_was_away_writes_nothing(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    old, new = target.session("stream", 0), target.session("stream", 0)
    old.take()
    new.take()
    old._proven_at -= 6.0
    with pytest.raises(FencedOut):
        old.commit([Upsert(table, [row(1, "zombie")])])
    assert item_case.stored(table) == {}


@pytest.mark.parametrize("task", ["session", "writer"])
def test_with_fenced_writes_no_zombie_writes_at_all(item_case: ItemCase, task: str) -> None:
    table = item_case.table()
    target = prepared(item_case, table, fenced_writes=True)
    assert target.probe_write_path() == "transaction"
    session = target.session("stream", 0)
    session.take()
    session.commit([Upsert(table, block(range(250)))])
    assert len(item_case.stored(table)) == 250
    item_case.target().session("stream", 0).take()
    write = session.commit if task == "session" else target.writer().write
    with pytest.raises(FencedOut):
        write([Upsert(table, block(range(250, 500)))])
    assert len(item_case.stored(table)) == 250
    session.close()
    with pytest.raises(FencedOut, match="before a control row is taken"):
        target.writer().write([Upsert(table, [row(1)])])


def test_fenced_writers_outlive_a_lost_reply_of_their_own_session(item_case: ItemCase) -> None:
    """Resolving it changes the row that the other threads' transactions check."""
    table = item_case.table()
    prepared(item_case, table)
    begun: list[int] = []

    def rule(call: Call) -> Fault | None:
        begun.append(call.number)
        key = call.body.get("Key", {}).get("entry", {}).get("S", "")
        lost = call.operation == "UpdateItem" and key == "worker#stream#00000" and len(begun) % 3
        return LoseReply() if lost and len(begun) > 6 else None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        target = item_case.through(proxy.endpoint).target(fenced_writes=True)
        session = target.session("stream", 0)
        session.take()
        writing = threading.Thread(target=target.writer().write, args=([Upsert(table, block(range(2000)))],))
        writing.start()
        for step in range(10):
            session.commit([], position=f"p{step}")
        writing.join()
    assert len(item_case.stored(table)) == 2000
    assert item_case.target().control().positions("stream") == {0: "p9"}


def test_a_raised_epoch_fences_everybody_out(item_case: ItemCase) -> None:
    second = item_case.target(epoch=2)
    require_fence_of_a_raised_epoch(prepared(item_case), second, lambda session: session.commit([], position="late"))


def test_sessions_that_take_one_row_at_once_get_different_attempts(item_case: ItemCase) -> None:
    assert attempts_of_sessions_at_once(prepared(item_case)) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lost_replies_throttling_and_unprocessed_items_lose_nothing(item_case: ItemCase, seed: int) -> None:
    print(f"seed {seed}")
    table, rng = item_case.table(), random.Random(seed)
    prepared(item_case, table)

    def rule(call: Call) -> Fault | None:
        choice = rng.random()
        if choice < 0.15:
            return LoseReply()
        if choice < 0.2:
            return Cut()
        if choice < 0.3:
            return Throttle()
        return Unprocessed(rng.choice([0.3, 1.0])) if call.operation == "BatchWriteItem" and choice < 0.5 else None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        target = item_case.through(proxy.endpoint).target()
        session = target.session("stream", 0)
        session.take()
        # A ladder: each step must be in the target before its position is.
        for step in range(1, 9):
            numbers = range(step * 100, step * 100 + 100)
            last = [key(number) for number in range(step * 100 - 100, step * 100 - 50)]
            session.commit([Delete(table, last), Upsert(table, rows(numbers, f"{step}"))], position=f"p{step}")
    kept = texts(item_case.stored(table))
    expected = {n: str(n // 100) for n in range(100, 900) if n >= 800 or n % 100 >= 50}
    assert kept == expected
    assert item_case.target().control().positions("stream") == {0: "p8"}
    assert target.tally.retries > 0
    assert target.tally.throttled > 0


def test_every_item_that_comes_back_unprocessed_is_written(item_case: ItemCase) -> None:
    """The public NimoShake lost 100 of 5,000 so, and said that all was done."""
    table = item_case.table()
    prepared(item_case, table)
    batches: list[int] = []

    def rule(call: Call) -> Fault | None:
        if call.operation != "BatchWriteItem":
            return None
        batches.append(call.number)
        return Unprocessed(0.4) if len(batches) % 3 else None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        target = item_case.through(proxy.endpoint).target()
        target.writer().write([Insert(table, block(range(1000)))])
    assert len(item_case.stored(table)) == 1000
    assert target.tally.rows == 1000
    assert target.tally.throttled > 0


def test_an_item_that_the_target_refuses_names_its_table_and_keys_but_no_value(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    session = target.session("stream", 0)
    session.take()
    bad = (*key(1), LONG_NUMBER)
    with pytest.raises(Incompatible) as refused:
        session.commit([Upsert(table, [*rows(range(2, 60)), bad])], position="p1")
    assert refused.value.where == table.name
    assert "pk, sk" in refused.value.why
    assert "secret" not in str(refused.value)
    assert "123456789" not in str(refused.value)
    assert target.control().positions("stream") == {0: ""}
    session.commit([Upsert(table, rows([100]))], position="p2")
    assert target.control().positions("stream") == {0: "p2"}


def test_a_table_that_is_gone_stops_itself(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case)
    with pytest.raises(Incompatible, match="has no table") as gone:
        target.writer().write([Upsert(table, [row(1)])])
    assert gone.value.where == table.name


def test_a_long_write_shows_that_its_worker_lives_and_stops_when_fenced_out(
    aws_case: ItemCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel_worker.endpoints.dynamodb.items.writer._BEAT_SECONDS", 0.05)
    monkeypatch.setattr("whimbrel_worker.endpoints.dynamodb.session._PROOF_SECONDS", 0.05)
    table = aws_case.table()
    target = prepared(aws_case, table, write_units_per_second=50.0)
    session = target.session("snapshot", 0)
    session.take()
    begun = aws_case.control_row("worker#snapshot#00000")
    threading.Timer(1.0, lambda: aws_case.target().session("snapshot", 0).take()).start()
    with pytest.raises(FencedOut):
        session.commit([Insert(table, block(range(1000)))])
    ended = aws_case.control_row("worker#snapshot#00000")
    assert begun is not None
    assert ended is not None
    assert float(ended["heartbeat"]["N"]) > float(begun["heartbeat"]["N"])
    assert 0 < len(aws_case.stored(table)) <= 200, "the limit of 50 units a second holds, and nothing goes on after it"


def test_the_write_limit_counts_what_the_indexes_consume_too(aws_case: ItemCase) -> None:
    """100 items a second would fit into the limit by their own size alone; the index takes as much again."""
    index = {
        "IndexName": "by-text", "KeySchema": [{"AttributeName": "text", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }  # fmt: skip
    keys = [{"AttributeName": name, "AttributeType": kind} for name, kind in (("pk", "S"), ("sk", "N"), ("text", "S"))]
    plain = aws_case.table()
    indexed = aws_case.table("indexed", AttributeDefinitions=keys, GlobalSecondaryIndexes=[index])
    target = prepared(aws_case, plain, indexed, write_units_per_second=100.0)
    took = {}
    for table in (plain, indexed):
        target.writer().write([Upsert(table, rows(range(25)))])
        begun = time.monotonic()
        target.writer().write([Upsert(table, rows(range(25, 250)))])
        took[table.name] = time.monotonic() - begun
    assert took[plain.name] > 1.0
    assert took[indexed.name] > 1.5 * took[plain.name]


@pytest.mark.parametrize(("first", "there"), [(None, 25), (Cut(), 0), (LoseReply(), 25)])
def test_a_worker_that_was_frozen_in_a_write_sends_nothing_more(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch, first: Fault | None, there: int
) -> None:
    """Its successor takes the row at its first request; its clock then says that it was away for 15 s."""
    table, frozen = item_case.table(), threading.Event()
    prepared(item_case, table)

    def rule(call: Call) -> Fault | None:
        if call.operation == "BatchWriteItem" and not frozen.is_set():
            item_case.target().session("snapshot", 0).take()
            frozen.set()
            return first
        return None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        target = item_case.through(proxy.endpoint).target()
        target.writer()._pace = Pace(1)
        session = target.session("snapshot", 0)
        session.take()
        monotonic = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 15 * frozen.is_set())
        with pytest.raises(FencedOut):
            session.commit([Insert(table, block(range(1000)))])
        assert len(proxy.calls("BatchWriteItem")) == 1, "not even the first request again"
    assert len(item_case.stored(table)) == there


# --- chunks ---


def claimed(target: DynamoDBTarget, table: Table, attempt: int) -> Chunk:
    control = target.control()
    control.add_tables([TableRow(table.name, "Pending", 10)])
    if control.claim_planning(0, attempt) is not None:
        control.add_chunks(table.name, [Chunk(table.name, 0, None, None)], last=True)
    chunk = control.claim_chunk(0, attempt)
    assert chunk is not None
    return chunk


@pytest.mark.parametrize("point", ["before_commit", "before_progress", "after_commit"])
@pytest.mark.parametrize("done", [False, True])
def test_whatever_dies_a_chunks_progress_is_never_ahead_of_its_items(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch, point: str, done: bool
) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    session = target.session("snapshot", 0)
    attempt = session.take().attempt
    chunk = claimed(target, table, attempt)
    session.commit([Insert(table, block(range(50)))], progress=ChunkProgress(chunk, ("0/1", "a"), 50, done=False))

    def die(name: str) -> None:
        if name == f"snapshot.{point}":
            raise DiedError

    monkeypatch.setattr("whimbrel_worker.endpoints.dynamodb.session.reach", die)
    with pytest.raises(DiedError):
        session.commit(
            [Insert(table, block(range(50, 90)))], progress=ChunkProgress(chunk, ("0/1", "b"), 90, done=done)
        )
    monkeypatch.undo()
    assert len(item_case.stored(table)) == 90
    successor = item_case.target()
    control, again = successor.control(), successor.session("snapshot", 0)
    attempt = again.take().attempt
    control.release(0, attempt)
    found = control.chunks(table.name)[0]
    written = point == "after_commit"
    assert (found.rows, found.resume_after) == ((90, ("0/1", "b")) if written else (50, ("0/1", "a")))
    if written and done:
        assert control.claim_chunk(0, attempt) is None
        return
    resumed = control.claim_chunk(0, attempt)
    assert resumed == found
    again.commit([Insert(table, block(range(50, 100)))], progress=ChunkProgress(resumed, ("0/1", "c"), 100, done=True))
    assert control.unfinished_chunks() == 0
    with pytest.raises(FencedOut):
        session.commit([], progress=ChunkProgress(chunk, ("0/1", "late"), 95, done=False))
    assert control.chunks(table.name)[0].rows == 100


def test_progress_never_goes_back_and_a_done_chunk_stays_done(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    session = target.session("snapshot", 0)
    chunk = claimed(target, table, session.take().attempt)
    session.commit([], progress=ChunkProgress(chunk, ("0/1", "b"), 20, done=False))
    with pytest.raises(FencedOut):
        session.commit([], progress=ChunkProgress(chunk, ("0/1", "a"), 10, done=False))
    session.commit([], progress=ChunkProgress(chunk, ("0/1", "b"), 20, done=True))
    session.commit([], progress=ChunkProgress(chunk, ("0/1", "b"), 20, done=True))
    with pytest.raises(FencedOut):
        session.commit([], progress=ChunkProgress(chunk, ("0/1", "c"), 30, done=False))
    assert target.control().unfinished_chunks() == 0


@pytest.mark.parametrize("operation", ["UpdateItem", "BatchWriteItem"])
def test_a_successor_is_not_fenced_out_by_one_that_asks_what_became_of_a_lost_call(
    item_case: ItemCase, operation: str
) -> None:
    """The reply to the old session's advance is lost, and a successor takes the row before it can ask."""
    table = item_case.table()
    prepared(item_case, table)
    successor = item_case.target().session("stream", 0)
    armed = threading.Event()

    def succeed() -> None:
        successor.take()

    def rule(call: Call) -> Fault | None:
        if armed.is_set() and call.operation == operation:
            armed.clear()
            return LoseReply(succeed)
        return None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        session = item_case.through(proxy.endpoint).target().session("stream", 0)
        session.take()
        armed.set()
        with pytest.raises(FencedOut):
            session.commit([Upsert(table, [row(1, "old")])], position="p1")
    successor.commit([Upsert(table, [row(1, "new")])], position="p2")
    assert texts(item_case.stored(table)) == {1: "new"}
    assert item_case.target().control().positions("stream") == {0: "p2"}


# --- all of it together ---

PAGES, PAGE_ITEMS, CHUNKS = 3, 20, 8


@dataclass
class Worker:
    """Copies chunks of an invented source and dies wherever the dice say; each life has a client of its own."""

    case: ItemCase
    table: Table
    index: int
    rng: random.Random
    life: threading.local
    zombies: list[tuple[Session, Chunk]] = field(default_factory=list)

    def run(self) -> None:
        while not self.live():
            self.disturb()

    def live(self) -> bool:
        """One life; true when nothing was left to do."""
        target = self.case.target()
        session, control = target.session("snapshot", self.index), target.control()
        self.life.rng = self.rng
        try:
            attempt = session.take().attempt
            control.release(self.index, attempt)
            while control.unfinished_chunks():
                if (chunk := control.claim_chunk(self.index, attempt)) is not None:
                    self.zombies.append((session, chunk))
                    self.copy(session, chunk)
            control.settle_tables()
        except DiedError:
            return False
        finally:
            self.life.rng = None
        return True

    def copy(self, session: Session, chunk: Chunk) -> None:
        first = int(chunk.resume_after[0]) if chunk.resume_after else 0
        for page in range(first, PAGES):
            numbers = [chunk.number + CHUNKS * (page * PAGE_ITEMS + number) for number in range(PAGE_ITEMS)]
            progress = ChunkProgress(chunk, (str(page + 1),), (page + 1) * PAGE_ITEMS, done=False)
            session.commit([Insert(self.table, block(numbers))], progress=progress)
        session.commit([], progress=ChunkProgress(chunk, (str(PAGES),), PAGES * PAGE_ITEMS, done=True))

    def disturb(self) -> None:
        """A former life goes on after its successor has begun: it must neither finish a chunk nor set one back."""
        self.case.target().session("snapshot", self.index).take()
        for session, chunk in self.zombies[-2:]:
            with pytest.raises(FencedOut):
                session.commit([], progress=ChunkProgress(chunk, ("1",), PAGE_ITEMS, done=self.rng.random() < 0.5))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_workers_that_die_anywhere_copy_every_item(
    item_case: ItemCase, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    print(f"seed {seed}")
    table, life = item_case.table(), threading.local()
    control = prepared(item_case, table).control()
    control.add_tables([TableRow(table.name, "Pending", 10)])
    assert control.claim_planning(0, 1) == table.name
    bounds = [None, *[(f"{number}/{CHUNKS}",) for number in range(1, CHUNKS)], None]
    chunks = [Chunk(table.name, number, bounds[number], bounds[number + 1]) for number in range(CHUNKS)]
    control.add_chunks(table.name, chunks, last=True)

    def reach(_: str) -> None:
        if getattr(life, "rng", None) is not None and life.rng.random() < 0.08:
            raise DiedError

    monkeypatch.setattr("whimbrel_worker.endpoints.dynamodb.session.reach", reach)
    workers = [Worker(item_case, table, index, random.Random(seed * 10 + index), life) for index in range(2)]
    with ThreadPoolExecutor(len(workers)) as pool:
        for done in [pool.submit(worker.run) for worker in workers]:
            done.result(60)
    assert sum(len(worker.zombies) for worker in workers) > CHUNKS, "nobody died"
    assert sorted(texts(item_case.stored(table))) == list(range(CHUNKS * PAGES * PAGE_ITEMS))
    assert [(row.state, row.rows_copied) for row in control.tables()] == [("Copied", CHUNKS * PAGES * PAGE_ITEMS)]
