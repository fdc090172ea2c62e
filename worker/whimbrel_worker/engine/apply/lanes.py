"""The apply engine: one thread reads the change log, several write it to the target, each on a connection of its own.

Why any order between the lanes is right. A row change becomes "this key has this row now" (an upsert of the whole row)
or "this key is gone"; a change of key is both, for two keys. A key belongs to one lane for ever, so what happens to a
key arrives in the source's order, and only its last state counts. Take keys A→B, then B→C, then a new A: lane(A) sees
"A gone, A is new", lane(B) "B is, B gone", lane(C) "C is". Whatever the lanes' pace, once all have passed a position,
each key is as the source had it there. In between a row may stand under both keys or neither; the target is consistent
only where all lanes have met, which is what lag 0 and a drain prove. Keys are routed by the bytes of the change's own
images, so two spellings that a collation calls equal are two keys here as they are on the target.

That holds for keys only. Tables in which rows contend for other values (unique secondary indexes) go through the
ordered lane, all on one connection in the source's order, cut at the ends of source transactions where those fit
half a batch. One window is left: a bigger transaction in which values move between rows more than once is cut; if the
worker dies right there, the repetition can meet its own later half: the target refuses, and the table stops.

Every position lies in a control row that the lane's own transaction updates. What must not be told apart by time is
told apart by position: see board and start.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel_worker.engine.apply.batch import Batch
from whimbrel_worker.engine.apply.board import Board, Closed
from whimbrel_worker.engine.apply.plan import TablePlan, plan_table
from whimbrel_worker.engine.ports import (
    Begin,
    ChangeLog,
    Changes,
    End,
    Event,
    Idle,
    Session,
    StoppedTable,
    Write,
)
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)
_JOIN_SECONDS = 10.0


class Catalogue:
    """The tables that are followed. A stopped one is written down in the target before its changes are let go."""

    def __init__(self, tables: Sequence[Table], hashed_lanes: int, write_down: Callable[[str, str], None]) -> None:
        self._plans = {id(table): plan_table(table, hashed_lanes) for table in tables}
        self._tables = list(tables)
        self._write_down = write_down
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}

    def plan(self, table: Table) -> TablePlan | None:
        """The plan of a table object that was given to this catalogue; None once it is stopped."""
        return self._plans.get(id(table))

    def stop(self, name: str, reason: str) -> None:
        """Follow this table no further. Returns once the target's control tables say so."""
        with self._lock:
            if name in self._reasons:
                return
            self._write_down(name, reason)
            self._reasons[name] = reason
            for table in self._tables:
                if table.name == name:
                    self._plans.pop(id(table), None)
        _LOG.error("table %s is stopped: %s", name, reason, extra={"table": name})

    def stopped(self, name: str) -> bool:
        """Whether it is."""
        return name in self._reasons

    def reasons(self) -> dict[str, str]:
        """The tables stopped in this process, with why."""
        with self._lock:
            return dict(self._reasons)


def route(event: Event, board: Board, catalogue: Catalogue) -> None:
    """Bring one event of the log to the lanes."""
    if isinstance(event, Changes):
        plan = catalogue.plan(event.table)
        if plan is not None:
            board.change(plan, event.rows)
    elif isinstance(event, Begin):
        board.begin(event.transaction, event.committed_at)
    elif isinstance(event, End):
        board.end(event.transaction)
    elif isinstance(event, StoppedTable):
        catalogue.stop(event.name, event.reason)
    elif not isinstance(event, Idle):
        raise TypeError(f"the change log sent what nobody knows: {type(event).__name__}")


def run_lane(index: int, session: Session, board: Board, catalogue: Catalogue) -> None:
    """Write a lane's batches until the board says that there are no more."""
    while (batch := board.take(index)) is not None:
        _write(session, batch, catalogue)
        board.done(index)


def _write(session: Session, batch: Batch, catalogue: Catalogue) -> None:
    """Commit a batch; a table that the target refuses is stopped and the batch is written without it."""
    while True:
        writes = batch.writes(catalogue.stopped)
        try:
            session.commit(writes, position=batch.position)
        except Incompatible as error:
            name = _culprit(session, writes, error)
            catalogue.stop(name, str(error))
        else:
            return


def _culprit(session: Session, writes: Sequence[Write], error: Incompatible) -> str:
    """Which table it is that the target refuses, by the error's own word, else by writing each table's part alone."""
    tables = {write.table.name: write.table for write in writes}
    for name, table in tables.items():
        if len(tables) == 1 or error.where in (name, f"{table.target_schema}.{table.target_name}"):
            return name
    for name in tables:
        try:
            session.commit([write for write in writes if write.table.name == name])
        except Incompatible:
            return name
    raise error


@dataclass(slots=True)
class _Outcome:
    """The first error of any thread."""

    error: BaseException | None = None


class Crew:
    """The threads of a stream. The first error of any ends the work of all and is raised by `check`."""

    def __init__(self, board: Board, stopping: threading.Event) -> None:
        self._board, self._stopping = board, stopping
        self._outcome = _Outcome()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a thread of this crew."""
        thread = threading.Thread(target=self.guard, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def guard(self, work: Callable[[], None]) -> None:
        """Do `work`; its error, if it ends by one, is the crew's."""
        try:
            work()
        except Closed:
            return
        except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
            with self._lock:
                self._outcome.error = self._outcome.error or error
            self._stopping.set()
            self._board.close()

    def check(self) -> None:
        """Raise what ended a thread, if anything did."""
        if self._outcome.error is not None:
            raise self._outcome.error

    def join(self, timeout: float = _JOIN_SECONDS) -> bool:
        """Wait for the threads; those that hang in a dead connection are left to the process's end (False)."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def consume(log: ChangeLog, board: Board, catalogue: Catalogue, stopping: threading.Event) -> None:
    """Route a log's events until `stopping` is set and no source transaction is open, or the log ends."""
    between = True
    for event in log:
        if isinstance(event, Begin | End):
            between = isinstance(event, End)
        route(event, board, catalogue)
        if between and stopping.is_set():
            return
