"""Follows a change log that is divided into shards, with other workers. How a shard is read stands in engine.shards.

The task's own thread watches the follower, the orders and the clock, and reports: worker 0 on the whole, by the
control table, the others on their own shards. Another thread watches the tables.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.migration import TableStatus, TtlDeletes
from whimbrel_api.reports import StreamResult
from whimbrel_api.tasks import Orders
from whimbrel_worker.engine.retention import Kept, shards_needed_since
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import ShardedEnds, ShardReader, ShardTaker
from whimbrel_worker.engine.shards.added import AddedTables, AddOptions
from whimbrel_worker.engine.shards.discovery import GONE
from whimbrel_worker.engine.shards.flow import all_passed
from whimbrel_worker.engine.shards.follower import Follower, Options
from whimbrel_worker.engine.shards.lag import least_proven, sample
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.engine.shards.tips import reached
from whimbrel_worker.engine.spool.sources import applying
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.tasks.acknowledge import DrainWord
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.notices import Notices
from whimbrel_worker.tasks.shard_collect import spool_of
from whimbrel_worker.tasks.sharding import remember_enabled
from whimbrel_worker.values.moments import name_of, seconds_of

TASK: Final = "stream"
_TICK_SECONDS: Final = 0.1
_RESULT_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 0.25
_RETIRE_SECONDS: Final = 60.0
_TABLES_SECONDS: Final = 2.0
_REPORTED_TABLES: Final = 100
_START: Final = Backoff(base=0.2, cap=10.0, attempts=20)


def run(context: TaskContext, ends: ShardedEnds) -> None:
    """Follow the shards. Returns when retired; raises Stopped, SourceLogLost, FencedOut or what else ends the work."""
    start = ends.target.control().record().start_position
    if not start or not ends.target.shards().all():
        raise ConfigurationError(
            "the stream has no positions to start from", where=context.file.migration,
            why="the target's control table holds none",
            todo="run the schema task and the snapshot first: they keep where each shard stands",
        )  # fmt: skip
    session = ends.target.session(TASK, context.file.index)
    try:
        state = session.take()
        context.report.update(epoch=state.epoch, attempt=state.attempt)
        followed = retrying(lambda: _tables(ends), backoff=_START)
        options = Options(
            index=context.file.index,
            workers=lambda: context.orders.current().workers or context.file.workers,
            base=seconds_of(start),
            keep_ttl=context.file.stream.ttl_deletes is not TtlDeletes.SKIP,
        )
        notice = Notices(context)
        source, target = _spooled(context, ends, start)
        follower = Follower(
            source, target, followed, options, session=session, attempt=state.attempt, notice=notice.hear
        )
        Following(context, ends, followed, follower, notice).run()
    finally:
        session.close()


def _spooled(context: TaskContext, ends: ShardedEnds, start: str) -> tuple[ShardReader, ShardTaker]:
    """Both ends, with what was collected during the copy before what the source still has, where there is a volume."""
    if not context.file.spool:
        return ends.source, ends.target
    return applying(ends.source, ends.target, spool_of(context.file, start))


def _tables(ends: ShardedEnds) -> Followed:
    """The tables to follow, and those that are not, with why: see tasks.stream. Copied ones only are followed."""
    control = ends.target.control()
    rows = {row.name: row for row in control.tables()}
    stopped = {row.name: row.message for row in rows.values() if row.state == "Stopped"}
    tables, problems = ends.source.discover()
    found = {table.name for table in tables}
    for name in [name for name in rows if name not in found and name not in stopped]:
        stopped[name] = "; ".join([GONE, *(problem.what for problem in problems if problem.where == name)])
        control.set_table(name, "Stopped", stopped[name])
    copied = [table for table in tables if table.name in rows and rows[table.name].state == "Copied"]
    return Followed(copied, stopped, lambda name, reason: control.set_table(name, "Stopped", reason[:4096]))


def _add_options(context: TaskContext, ends: ShardedEnds) -> AddOptions:
    control = ends.target.control()
    return AddOptions(
        index=context.file.index,
        new_tables=context.file.stream.new_tables,
        chunk_rows=context.file.snapshot.chunk_rows,
        remember=lambda names: remember_enabled(control, names),
    )


class Following:
    """One run of the stream, from its control row to its end."""

    def __init__(
        self, context: TaskContext, ends: ShardedEnds, followed: Followed, follower: Follower, notice: Notices
    ) -> None:
        self._context, self._ends, self._followed, self._follower = context, ends, followed, follower
        self._options, self._notice = follower.options, notice
        self._stopping = threading.Event()
        self._added = AddedTables(
            ends.source, ends.target, followed, _add_options(context, ends), self._stopping
        )  # fmt: skip
        self._error: BaseException | None = None
        self._drained_to, self._drain_looked, self._result_at = "", 0.0, 0.0
        self._retire_by, self._word = 0.0, DrainWord(context)
        # What lies on a spool's volume needs no log, and how much of it does is not known here.
        self._kept = Kept(None if context.file.spool else ends.source.retention())

    def run(self) -> None:
        """Work until an order, a signal or an error ends it."""
        tables = threading.Thread(target=self._guard_tables, name="tables", daemon=True)
        try:
            retrying(self._follower.start, backoff=_START, noticed=self._notice.hear)
            tables.start()
            self._watch()
        finally:
            self._stopping.set()
            ended = self._follower.finish()
        self._check()
        if not ended:
            raise Transient(
                "the target did not take the last pages in time", where=self._context.file.migration,
                why="threads are still waiting for it", todo="nothing is lost: the stream goes on from its checkpoints",
            )  # fmt: skip
        self._report_result(now=True)
        if not self._context.orders.current().retire:
            raise Stopped

    def _watch(self) -> None:
        """Tick until told to end."""
        while not self._context.stop.is_set():
            self._check()
            orders = self._context.orders.current()
            self._drain(orders)
            if orders.retire and self._may_retire(orders.drain_to):
                return
            self._report_result()
            self._notice.fade()
            self._context.stop.wait(_TICK_SECONDS)

    def _may_retire(self, wanted: str) -> bool:
        """At once, but where a position is wanted too, a worker that has just been started says first that it is there.

        Not for ever: whoever ordered it sees that it is missing.
        """
        self._retire_by = self._retire_by or time.monotonic() + _RETIRE_SECONDS
        return wanted in ("", self._drained_to) or time.monotonic() > self._retire_by

    def _check(self) -> None:
        self._follower.check()
        if self._error is not None:
            raise self._error

    # The thread that watches the tables

    def _guard_tables(self) -> None:
        try:
            while not self._stopping.wait(_TABLES_SECONDS):
                try:
                    self._added.look()
                except Transient as failure:
                    self._notice.hear(failure)
        except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
            self._error = error

    # What the operator sees

    def _drain(self, orders: Orders) -> None:
        """Hurry while positions are wanted that the target does not hold yet; say so once it and the journal do."""
        wanted, draining = orders.drain_to, orders.drain_to not in ("", self._drained_to)
        self._follower.hurry(draining)
        if not wanted or time.monotonic() - self._drain_looked < _DRAIN_SECONDS:
            return
        self._drain_looked = time.monotonic()
        try:
            holds = not draining or self._holds(wanted)
        except Transient as failure:
            self._notice.hear(failure)
            return
        if holds and self._word.written(orders) and draining:
            self._drained_to = wanted
            self._follower.hurry(False)
            self._report_result(now=True)

    def _holds(self, wanted: str) -> bool:
        name, rows, now = name_of(wanted), self._follower.rows(), self._follower.now()
        if not name:
            return all_passed(rows, seconds_of(wanted), now)
        tips = self._ends.target.shards().tips(name)
        if tips is None:
            raise ConfigurationError(
                "the stream is to reach positions that nobody has kept", where=self._context.file.migration,
                why=f"the control table has no entry for {wanted}", todo="begin the cutover again: it freezes anew",
            )  # fmt: skip
        return reached(tips, rows, [table.name for table in self._followed.all()], now)

    def _report_result(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._result_at < _RESULT_SECONDS:
            return
        self._result_at = time.monotonic()
        self._context.report.update(stream=self._result(), tables=self._table_statuses())
        if now:
            self._context.report.publish()

    def _result(self) -> StreamResult:
        rows, now = self._follower.rows(), self._follower.now()
        shown = rows if self._options.index == 0 else [row for row in rows if row.owner == self._options.index]
        seen = sample(shown, now, self._options.base)
        newest = max((row.last_change_at for row in shown), default=0.0)
        until = self._kept.until(shards_needed_since(shown, self._options.base))
        return StreamResult(
            position=self._ends.source.moment(least_proven(shown, now, self._options.base)),
            quiet=seen.quiet,
            lag_seconds=None if seen.lag_seconds is None else round(seen.lag_seconds, 3),
            lag_observed_at=self._moment(seen.observed_at),
            changes_applied=sum(row.changes for row in shown),
            last_change_time=datetime.fromtimestamp(newest, UTC) if newest else None,
            drained_to=self._drained_to,
            retention_deadline=None if until is None else self._moment(until),
            retention_seconds=self._kept.seconds,
        )

    def _moment(self, at: float) -> datetime:
        """On this worker's clock, as all times of a report."""
        return datetime.fromtimestamp(at - self._follower.offset, UTC)

    def _table_statuses(self) -> list[TableStatus]:
        stopped = self._followed.stopped() | self._added.waiting()
        statuses = [TableStatus(name=name, state="Stopped", message=why[:4096]) for name, why in stopped.items()]
        statuses += [
            TableStatus(name=name, state="Copying", message=message) for name, message in self._added.copying().items()
        ]
        statuses += [TableStatus(name=table.name, state="Following") for table in self._followed.all()]
        return statuses[:_REPORTED_TABLES]
