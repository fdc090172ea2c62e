"""Lanes and crew: a refused table stops and the rest goes on, errors end the work, the reader waits for room."""

import threading
import time
from collections.abc import Iterator

import pytest

from support.memory_target import MemorySession, MemoryTarget
from support.streamed import ORDERS, SOURCE, TABLES, USERS
from whimbrel_worker.endpoints.mysql.changes import GtidTracker
from whimbrel_worker.engine.apply.board import Board, Limits
from whimbrel_worker.engine.apply.lanes import Catalogue, Crew, consume, route, run_lane
from whimbrel_worker.engine.ports import Begin, Changes, End, Event, StoppedTable
from whimbrel_worker.errors import FencedOut

LIMITS = Limits(batch_rows=100, batch_bytes=1 << 20, flush=0.01, checkpoint=60.0, pending_rows=1000)
G = f"{SOURCE}:%d"


class Setting:
    """One hashed lane and the ordered one on a target in memory."""

    def __init__(self) -> None:
        self.target, self.stopped = MemoryTarget(), list[tuple[str, str]]()
        self.board = Board(LIMITS, GtidTracker(""), [(GtidTracker(""), "")] * 2)
        self.catalogue = Catalogue(TABLES, 1, lambda name, reason: self.stopped.append((name, reason)))
        self.stopping = threading.Event()
        self.crew = Crew(self.board, self.stopping)
        self.sessions = [MemorySession(self.target, index) for index in (0, 1)]
        for session in self.sessions:
            session.take()

    def start_lanes(self) -> None:
        for index, session in enumerate(self.sessions):
            self.crew.start(f"lane-{index}", self._lane(index, session))

    def _lane(self, index: int, session: MemorySession):  # type: ignore[no-untyped-def]
        return lambda: run_lane(index, session, self.board, self.catalogue)

    def send(self, number: int, *changes: Changes) -> None:
        events: list[Event] = [Begin(G % number, 1000.0), *changes, End(G % number)]
        for event in events:
            route(event, self.board, self.catalogue)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.board.close()
    assert made.crew.join(5)


def test_a_refused_table_is_stopped_and_the_rest_of_the_batch_is_written(setting: Setting) -> None:
    setting.target.refuses.add("shop.users")
    setting.catalogue.plan(USERS)
    setting.send(1, Changes(USERS, [(None, (1, b"a", 0))]), Changes(ORDERS, [(None, (1, b"x"))]))
    setting.start_lanes()
    setting.board.finish()
    assert setting.crew.join(5)
    setting.crew.check()
    assert [name for name, _ in setting.stopped] == ["shop.users"]
    assert "does not take a value" in setting.stopped[0][1]
    assert setting.target.rows == {"shop.orders": {(1,): (1, b"x")}}
    assert {row[1] for row in setting.target.control_rows.values()} == {f"{SOURCE}:1"}
    assert setting.catalogue.plan(USERS) is None


def test_a_stopped_table_is_written_down_before_the_position_moves(setting: Setting) -> None:
    seen = list[str]()
    setting.catalogue = Catalogue(TABLES, 1, lambda *_: seen.append(setting.board.position()))
    events: list[Event] = [Begin(G % 1, 1.0), StoppedTable("shop.orders", "ALTER"), End(G % 1)]
    for event in events:
        route(event, setting.board, setting.catalogue)
    assert seen == ["nothing"]
    assert setting.board.position() == f"{SOURCE}:1"
    setting.send(2, Changes(ORDERS, [(None, (1, b"x"))]))
    assert setting.board.progress().oldest_pending is None, "its changes are let go from then on"


def test_an_error_in_one_lane_ends_all_threads(setting: Setting) -> None:
    setting.start_lanes()
    MemorySession(setting.target, 1).take()
    setting.send(1, Changes(ORDERS, [(None, (1, b"x"))]))
    assert setting.crew.join(5), "no thread hangs"
    with pytest.raises(FencedOut):
        setting.crew.check()
    assert setting.target.rows == {}
    assert setting.stopping.is_set()


def test_the_reader_waits_when_too_much_is_pending(setting: Setting) -> None:
    def read() -> None:
        for number in range(1, 101):
            setting.send(number, Changes(ORDERS, [(None, (number * 100 + row, b"x")) for row in range(100)]))

    reader = setting.crew.start("log", read)
    with setting.board._lock:
        pass
    deadline = time.monotonic() + 5
    while not setting.board.lanes[1].sealed or time.monotonic() < deadline - 4.8:
        assert time.monotonic() < deadline
    pending = setting.board._pending_rows
    assert reader.is_alive()
    assert pending <= LIMITS.batch_rows * (LIMITS.sealed + 2)
    setting.start_lanes()
    reader.join(10)
    setting.board.finish()
    assert setting.crew.join(10)
    setting.crew.check()
    assert len(setting.target.rows["shop.orders"]) == 10_000


def test_reading_stops_at_the_end_of_a_transaction(setting: Setting) -> None:
    def log() -> Iterator[Event]:
        yield Begin(G % 1, 1.0)
        setting.stopping.set()
        yield Changes(ORDERS, [(None, (1, b"x"))])
        yield End(G % 1)
        pytest.fail("it read on")

    consume(log(), setting.board, setting.catalogue, setting.stopping)  # type: ignore[arg-type]
    assert setting.board.position() == f"{SOURCE}:1"
    assert setting.board.between_transactions
