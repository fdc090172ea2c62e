"""Follows the source's change log and applies it to the target until told to retire or to stop. The engine is in apply.

One thread reads the log (and signs in anew when the connection is lost), one a lane writes, one asks the source where
it stands; the task's own thread watches them, the orders and the clock, and reports.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from whimbrel_api.durations import seconds
from whimbrel_api.migration import TableStatus
from whimbrel_api.reports import StreamResult
from whimbrel_api.tasks import Orders
from whimbrel_worker.engine.apply.board import Board, Limits
from whimbrel_worker.engine.apply.lanes import Catalogue, Crew, consume, run_lane
from whimbrel_worker.engine.apply.start import Resumption, resume
from whimbrel_worker.engine.lag import LagMeter, Reading, Sample
from whimbrel_worker.engine.ports import ChangeLog, Profile
from whimbrel_worker.engine.retention import Kept, log_needed_since
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.tasks import shard_collect, shard_stream
from whimbrel_worker.tasks.acknowledge import DrainWord
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.notices import Retries
from whimbrel_worker.tasks.sharding import sharded_ends
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)
_TICK_SECONDS = 0.05
_RESULT_SECONDS = 0.25
_CLOCK_SECONDS = 30.0
_END_OF_TRANSACTION_SECONDS = 5.0
_FLUSH_SECONDS = 120.0
_RECONNECT = Backoff(base=0.2, cap=10.0, attempts=1_000_000)
_START = Backoff(base=0.2, cap=10.0, attempts=20)
_BATCH_ROWS = 5000
_BATCH_BYTES = 4 << 20
_REPORTED_TABLES = 100
_GONE = "the source has no such table any more, or one that cannot be carried: migrate this table anew"
_LATE = "the table was made after the migration began and was not copied: exclude it, or begin a new migration with it"


def run(context: TaskContext) -> None:
    """Follow the log. Returns when retired; raises Stopped, SourceLogLost, FencedOut or what else ends the work."""
    ends = sharded_ends(context)
    if ends is not None:
        (shard_collect if context.file.collect else shard_stream).run(context, ends)
        return
    tables, stopped = _tables(context)
    options = context.file.stream
    start = context.target.control().record().start_position
    if not start:
        raise ConfigurationError(
            "the stream has no position to start from", where=context.file.migration,
            why="the target's control tables hold none", todo="run the snapshot first: it fixes the position",
        )  # fmt: skip
    resumption = resume(context.source, context.target, start, options.apply_connections)
    context.report.update(epoch=resumption.epoch, attempt=resumption.attempt)
    _LOG.info("reading on after %s", resumption.since)
    Following(context, tables, stopped, resumption).run()


def _tables(context: TaskContext) -> tuple[list[Table], dict[str, str]]:
    """The tables to follow, and those that are not, with why.

    A table of the migration that the source no longer shows is stopped for good: its changes cannot be followed from
    here on. One that came into being after the start was never copied, so its changes alone would be worth nothing.
    """
    control = context.target.control()
    rows = {row.name: row for row in control.tables()}
    stopped = {row.name: row.message for row in rows.values() if row.state == "Stopped"}
    tables, problems = context.source.discover()
    found = {table.name for table in tables}
    for name in [name for name in rows if name not in found and name not in stopped]:
        stopped[name] = "; ".join([_GONE, *(problem.what for problem in problems if problem.where == name)])
        control.set_table(name, "Stopped", stopped[name])
    followed = [table for table in tables if table.name in rows and table.name not in stopped]
    return followed, stopped | {name: _LATE for name in found if name not in rows}


def limits_of(profile: Profile, flush: float, checkpoint: float) -> Limits:
    """What a batch may hold on this target."""
    return Limits(
        batch_rows=min(profile.rows_per_transaction, _BATCH_ROWS),
        batch_bytes=min(profile.bytes_per_transaction, _BATCH_BYTES),
        flush=flush,
        checkpoint=checkpoint,
    )


class Following:
    """One run of the stream, from its control rows to its end."""

    def __init__(
        self, context: TaskContext, tables: Sequence[Table], stopped: dict[str, str], resumption: Resumption
    ) -> None:
        self._context, self._tables, self._stopped_before = context, list(tables), stopped
        self._sessions = resumption.sessions
        self._stopping = threading.Event()
        self._control = context.target.control()
        lanes = context.file.stream.apply_connections
        self._catalogue = Catalogue(tables, lanes, self._write_down)
        self._log: ChangeLog = retrying(lambda: context.source.changes(resumption.since, tables), backoff=_START)
        self._board = self._make_board(resumption)
        self._crew = Crew(self._board, self._stopping)
        self._interval = min(1.0, context.file.report_interval)
        self._meter = LagMeter(context.source.covers, self._interval)
        self._readings: deque[tuple[Reading, float]] = deque()
        self._offset = 0.0
        self._kept = Kept(retrying(context.source.retention, backoff=_START))
        self._drained_to, self._word = "", DrainWord(context)
        self._result_at, self._retries = 0.0, Retries()

    def _make_board(self, resumption: Resumption) -> Board:
        options = self._context.file.stream
        limits = limits_of(
            self._context.target.profile, seconds(options.flush_interval), seconds(options.checkpoint_interval)
        )
        lanes = [(self._log.tracker(held), held) for held in resumption.held]
        return Board(limits, self._log.tracker(resumption.since), lanes)

    def _write_down(self, name: str, reason: str) -> None:
        self._control.set_table(name, "Stopped", reason)

    def run(self) -> None:
        """Work until an order, a signal or an error ends it."""
        reader = self._crew.start("log", self._read_log)
        for index, session in enumerate(self._sessions):
            self._crew.start(f"lane-{index}", lambda index=index, session=session: run_lane(  # type: ignore[misc]
                index, session, self._board, self._catalogue))  # fmt: skip
        threading.Thread(target=self._crew.guard, args=(self._watch_source,), name="source", daemon=True).start()
        try:
            self._watch()
            self._finish(reader)
        finally:
            self._stopping.set()
            self._board.close()
            self._log.close()
            self._crew.join()
            for session in self._sessions:
                session.close()
        if not self._context.orders.current().retire:
            raise Stopped

    def _watch(self) -> None:
        """Tick until told to end."""
        while not self._context.stop.is_set():
            self._crew.check()
            orders = self._context.orders.current()
            if orders.retire:
                return
            self._drain(orders)
            self._report_result()
            self._stopping.wait(_TICK_SECONDS)
            self._crew.check()

    def _finish(self, reader: threading.Thread) -> None:
        """Stop reading, at a transaction's end if it comes soon, and let the lanes write all there is."""
        self._stopping.set()
        patience = time.monotonic() + _END_OF_TRANSACTION_SECONDS
        while reader.is_alive():
            if self._board.between_transactions or time.monotonic() > patience:
                self._log.close()
            reader.join(_TICK_SECONDS)
            self._crew.check()
        self._board.finish()
        ended = self._crew.join(_FLUSH_SECONDS)
        self._crew.check()
        if not ended:
            raise Transient(
                f"the target did not take the last batches within {_FLUSH_SECONDS:.0f} s",
                where=self._context.file.migration, why="the lanes are still waiting for it",
                todo="nothing is lost: the stream goes on from its checkpoint",
            )  # fmt: skip
        self._report_result(now=True)

    # The thread that reads the log

    def _read_log(self) -> None:
        delays, reached = _RECONNECT.delays(), self._board.position()
        while not self._stopping.is_set():
            try:
                consume(self._log, self._board, self._catalogue, self._stopping)
                return
            except Transient as error:
                self._note_retry("reading the change log was broken off and is begun again: %s", error)
                self._context.report.update(last_error=error.report())
            if self._board.position() != reached:
                delays, reached = _RECONNECT.delays(), self._board.position()
            self._reconnect(delays)

    def _reconnect(self, delays: Iterator[float]) -> None:
        while not self._stopping.wait(next(delays)):
            try:
                self._log = self._context.source.changes(self._board.position(), self._followed())
            except Transient as error:
                self._note_retry("the change log cannot be read, which is tried again: %s", error)
                self._context.report.update(last_error=error.report())
            else:
                self._context.report.update(last_error=None)
                return

    def _followed(self) -> list[Table]:
        return [table for table in self._tables if not self._catalogue.stopped(table.name)]

    # The thread that asks the source

    def _watch_source(self) -> None:
        """Ask the source where it stands and what time it is there, again and again."""
        source, offset, offset_due = self._context.source, 0.0, 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= offset_due:
                    before = time.time()
                    offset = source.clock() - (before + time.time()) / 2
                    offset_due = time.monotonic() + _CLOCK_SECONDS
                    self._kept.seconds = source.retention()
                asked = time.time()
                self._readings.append((Reading(source.position(), asked + offset), offset))
            except Transient as error:
                self._note_retry("the source does not say where it stands, so the lag is not known: %s", error)
            self._stopping.wait(self._interval)

    def _note_retry(self, line: str, failure: Transient) -> None:
        self._retries.say(_LOG, line, failure)
        self._context.report.source_tally.retries += 1

    # What the operator sees

    def _least(self) -> str:
        return self._context.source.least(self._board.written())

    def _drain(self, orders: Orders) -> None:
        """Hurry while a position is wanted that the target does not hold yet; say so once it and the journal do."""
        wanted, draining = orders.drain_to, orders.drain_to not in ("", self._drained_to)
        self._board.hurry(draining)
        holds = bool(wanted) and (not draining or self._context.source.covers(self._least(), wanted))
        if holds and self._word.written(orders) and draining:
            self._drained_to = wanted
            self._board.hurry(False)
            self._report_result(now=True)

    def _report_result(self, *, now: bool = False) -> None:
        sample = self._sample()
        if not now and time.monotonic() - self._result_at < _RESULT_SECONDS:
            return
        self._result_at = time.monotonic()
        self._context.report.update(stream=self._result(sample), tables=self._table_statuses())
        if now:
            self._context.report.publish()

    def _sample(self) -> Sample:
        while self._readings:
            reading, self._offset = self._readings.popleft()
            self._meter.read(reading)
        routed = self._board.position()
        progress = self._board.progress()
        return self._meter.sample(time.time() + self._offset, routed, progress.oldest_pending, progress.newest_routed)

    def _fetch_lag(self, newest_routed: float | None) -> float | None:
        lag = self._meter.fetch_lag(time.time() + self._offset, self._board.position(), newest_routed)
        return None if lag is None else round(lag, 3)

    def _result(self, sample: Sample) -> StreamResult:
        progress = self._board.progress()
        since = log_needed_since(
            progress.oldest_pending, progress.newest_routed, sample.end_of_log_at,
            seconds(self._context.file.stream.checkpoint_interval),
        )  # fmt: skip
        until = self._kept.until(since)
        return StreamResult(
            position=self._least(),
            lag_seconds=None if sample.seconds is None else round(sample.seconds, 3),
            lag_observed_at=_moment(sample.observed_at - self._offset),
            fetch_lag_seconds=self._fetch_lag(progress.newest_routed),
            changes_applied=progress.changes_applied,
            last_change_time=_moment(progress.newest_applied),
            end_of_log_at=_moment(sample.end_of_log_at and sample.end_of_log_at - self._offset),
            drained_to=self._drained_to,
            retention_deadline=_moment(until and until - self._offset),
            retention_seconds=self._kept.seconds,
        )

    def _table_statuses(self) -> list[TableStatus]:
        stopped = {**self._stopped_before, **self._catalogue.reasons()}
        statuses = [TableStatus(name=name, state="Stopped", message=why[:4096]) for name, why in stopped.items()]
        statuses += [TableStatus(name=table.name, state="Following") for table in self._followed()]
        return statuses[:_REPORTED_TABLES]


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
