"""The board against a model: whatever the pace of lanes, the cuts and the crashes, source and target end equal."""

import random
from typing import Any

import pytest

from support.memory_target import MemorySession, MemoryTarget
from support.streamed import ORDERS, PAIRS, SOURCE, TABLES, USERS, MemorySource
from whimbrel_worker.endpoints.mysql.changes import GtidTracker
from whimbrel_worker.engine.apply.board import Board, Limits
from whimbrel_worker.engine.apply.lanes import Catalogue, route
from whimbrel_worker.engine.apply.plan import ORDERED_LANE, plan_table
from whimbrel_worker.engine.apply.start import resume
from whimbrel_worker.engine.ports import Changes, Event
from whimbrel_worker.values.columns import Table

ROOMY = Limits(batch_rows=100_000, batch_bytes=1 << 30, flush=0.2, checkpoint=6.0)
G = f"{SOURCE}:%d"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_board(
    lanes: int, *, held: list[str] | None = None, since: str = "", limits: Limits = ROOMY
) -> tuple[Board, Clock]:
    clock = Clock()
    held = held or [since] * (lanes + 1)
    return Board(limits, GtidTracker(since), [(GtidTracker(text), text) for text in held], clock), clock


def due(board: Board, lane: int) -> bool:
    """Whether a lane would be handed a batch at once."""
    with board._lock:
        wait = board._wait(board.lanes[lane])
    return bool(board.lanes[lane].sealed) or (wait is not None and wait <= 0)


def send(board: Board, number: int, *rows: tuple[Any, Any], end: bool = True) -> None:
    board.begin(G % number, 1000.0 + number)
    board.change(plan_table(ORDERS, 1), list(rows))
    if end:
        board.end(G % number)


def test_a_batch_is_due_by_time_since_its_first_change() -> None:
    board, clock = make_board(1)
    send(board, 1, (None, (1, b"x")))
    clock.now += 0.1
    send(board, 2, (None, (2, b"x")))
    assert not due(board, 1)
    clock.now += 0.101
    assert due(board, 1)
    batch = board.take(1)
    assert batch is not None
    assert (batch.changes, batch.oldest, batch.newest, batch.position) == (2, 1001.0, 1002.0, f"{SOURCE}:1-2")


def test_a_batch_cut_inside_a_transaction_does_not_move_the_position() -> None:
    board, _ = make_board(1, limits=Limits(batch_rows=3, batch_bytes=1 << 20, flush=60.0, checkpoint=60.0))
    send(board, 1, (None, (1, b"x")))
    send(board, 2, (None, (2, b"x")), (None, (3, b"x")), (None, (4, b"x")), end=False)
    first = board.take(1)
    assert first is not None
    assert first.position == f"{SOURCE}:1"
    board.done(1)
    board.end(G % 2)
    board.finish()
    second = board.take(1)
    assert second is not None
    assert second.position == f"{SOURCE}:1-2"


def test_the_ordered_lane_waits_for_the_end_of_a_transaction() -> None:
    board, clock = make_board(1)
    board.begin(G % 1, 1001.0)
    board.change(plan_table(USERS, 1), [(None, (1, b"a", 1))])
    clock.now += 10
    assert not due(board, ORDERED_LANE)
    board.end(G % 1)
    assert due(board, ORDERED_LANE)


def test_an_idle_lane_moves_its_position_within_a_second_while_others_change() -> None:
    board, clock = make_board(2)
    send(board, 1, (None, (1, b"x")))
    idle, busy = (1, 2) if board.lanes[2].filling.changes else (2, 1)
    clock.now += 0.9
    assert (due(board, busy), due(board, idle)) == (True, False)
    clock.now += 0.2
    assert due(board, idle)


def test_an_idle_lane_moves_its_position_at_the_checkpoint_interval_and_at_once_when_hurried() -> None:
    board, clock = make_board(1)
    board.begin(G % 1, 1001.0)
    board.end(G % 1)
    clock.now += 5.9
    assert not due(board, 1)
    board.hurry(True)
    assert due(board, 1)
    board.hurry(False)
    clock.now += 0.2
    assert due(board, 1)
    batch = board.take(1)
    assert batch is not None
    assert (batch.changes, batch.position) == (0, f"{SOURCE}:1")
    board.done(1)
    clock.now += 7
    assert not due(board, 1), "the position has not moved, so there is nothing to write yet"
    clock.now += 60
    assert due(board, 1), "now and then it is written all the same, so that a fenced worker finds out"


def test_what_is_pending_is_as_old_as_its_oldest_transaction() -> None:
    board, clock = make_board(2)
    assert board.progress().oldest_pending is None
    send(board, 1, (None, (1, b"x")))
    send(board, 2, (None, (2, b"x")))
    board.begin(G % 3, 1003.0)
    assert board.progress().oldest_pending == 1001.0
    clock.now += 1
    for lane in (1, 2):
        if due(board, lane):
            board.take(lane)
            board.done(lane)
    assert board.progress().oldest_pending == 1003.0, "an open transaction is not in the target"
    board.end(G % 3)
    assert board.progress().oldest_pending is None
    assert board.progress().changes_applied == 2


def test_lanes_pass_over_what_their_own_position_holds_until_they_meet() -> None:
    held = [f"{SOURCE}:1-2", f"{SOURCE}:1", f"{SOURCE}:1-3"]
    board, _ = make_board(2, held=held, since=f"{SOURCE}:1")
    plan = plan_table(ORDERS, 2)
    for number in (2, 3, 4):
        board.begin(G % number, 1000.0 + number)
        board.change(plan, [(None, (0, b"%d" % number)), (None, (1, b"%d" % number))])
        board.end(G % number)
    board.finish()
    taken = {lane: board.take(lane) for lane in (1, 2)}
    assert {lane: batch and batch.changes for lane, batch in taken.items()} == {1: 3, 2: 1}
    assert {lane: batch and batch.position for lane, batch in taken.items()} == {1: f"{SOURCE}:1-4", 2: f"{SOURCE}:1-4"}


def test_a_lanes_position_never_goes_back_while_the_others_catch_up() -> None:
    held = [f"{SOURCE}:1-9", f"{SOURCE}:1"]
    board, _ = make_board(1, held=held, since=f"{SOURCE}:1")
    send(board, 2, (None, (1, b"x")))
    board.finish()
    batch = board.take(1)
    assert batch is not None
    assert batch.position == f"{SOURCE}:1-2"
    board.done(1)
    assert board.take(ORDERED_LANE) is None, "the ordered lane has nothing to write"
    assert board.written()[ORDERED_LANE] == f"{SOURCE}:1-9"


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(("tables", "batch_rows"), [(TABLES, 300), (TABLES, 10_000), ((ORDERS, PAIRS), 7)])
def test_source_and_target_end_equal_over_crashes_cuts_and_changes_of_lanes(
    seed: int, tables: tuple[Table, ...], batch_rows: int
) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    source, target = MemorySource(rng, tables), MemoryTarget()
    source.transact(0)
    for _ in range(rng.randrange(2, 7)):
        for _ in range(rng.randrange(1, 30)):
            source.transact(rng.choice([0, 1, 1, 2, 5, 30]))
        _run(source, target, rng, batch_rows, lanes=rng.choice([1, 2, 3, 4]), to_the_end=False)
    _run(source, target, rng, batch_rows, lanes=rng.choice([1, 2, 4]), to_the_end=True)
    assert {name: rows for name, rows in target.rows.items() if rows} == {
        name: rows for name, rows in source.rows.items() if rows
    }
    assert set(target.positions("stream").values()) == {source.position()}


def _run(
    source: MemorySource, target: MemoryTarget, rng: random.Random, batch_rows: int, *, lanes: int, to_the_end: bool
) -> None:
    """One life of a stream worker; unless it runs to the end it dies after some event or commit."""
    resumption = resume(source, target, f"{SOURCE}:1", lanes)  # type: ignore[arg-type]
    tables = {id(table): table for table in TABLES}
    catalogue = Catalogue(list(tables.values()), lanes, lambda name, reason: pytest.fail(f"{name}: {reason}"))
    clock = Clock()
    board = Board(
        Limits(batch_rows=batch_rows, batch_bytes=1 << 30, flush=0.2, checkpoint=6.0, sealed=10_000),
        GtidTracker(resumption.since),
        [(GtidTracker(held), held) for held in resumption.held],
        clock,
    )
    pace = [rng.choice([0.0, 0.1, 0.9]) for _ in resumption.sessions]
    events = source.since(resumption.since)
    life = len(events) if to_the_end else rng.randrange(len(events) + 1)
    for event in events[:life]:
        route(_apart(event), board, catalogue)
        clock.now += rng.choice([0.0, 0.1, 0.5])
        _write_some(board, resumption.sessions, catalogue, rng, pace)  # type: ignore[arg-type]
    if to_the_end:
        board.finish()
        for lane, session in enumerate(resumption.sessions):
            while (batch := board.take(lane)) is not None:
                session.commit(batch.writes(catalogue.stopped), position=batch.position)
                board.done(lane)


def _apart(event: Event) -> Event:
    return Changes(event.table, list(event.rows)) if isinstance(event, Changes) else event


def _write_some(
    board: Board, sessions: list[MemorySession], catalogue: Catalogue, rng: random.Random, pace: list[float]
) -> None:
    """Let some lanes write; a lane with pace 0 is stuck."""
    for lane in range(len(sessions)):
        if rng.random() < pace[lane] and due(board, lane):
            batch = board.take(lane)
            assert batch is not None
            sessions[lane].commit(batch.writes(catalogue.stopped), position=batch.position)
            board.done(lane)
