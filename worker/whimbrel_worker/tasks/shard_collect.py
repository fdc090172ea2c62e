"""Reads changes onto a volume while the copy runs, until told to stop; they are applied after it, by shard_stream.

The same follower as there, over ends that keep each page and write nothing: the control table goes on to say what is in
the target, the volume itself how far it is.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from whimbrel_api.reports import StreamResult
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.engine.ports import ChunkProgress, Session, SessionState, Write
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import Holder, ShardedEnds
from whimbrel_worker.engine.shards.follower import Follower, Options
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.engine.spool.sources import collecting
from whimbrel_worker.engine.spool.spool import Spool, open_spool
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.notices import Retries
from whimbrel_worker.values.moments import seconds_of

_LOG = logging.getLogger(__name__)
TASK: Final = "stream"
_TICK_SECONDS: Final = 0.1
_RESULT_SECONDS: Final = 5.0
_START: Final = Backoff(base=0.2, cap=10.0, attempts=20)


def spool_of(file: TaskFile, start: str) -> Spool:
    """The migration's folder on the volume of its spool. Raises ConfigurationError where it cannot be used."""
    spool = file.stream.spool
    return open_spool(Path(file.spool), spool.claim_name if spool is not None else file.spool, file.migration, start)


def run(context: TaskContext, ends: ShardedEnds) -> None:
    """Collect. Returns when retired; raises Stopped, SourceLogLost, FencedOut or what else ends the work."""
    start = ends.target.control().record().start_position
    if not start or not context.file.spool:
        raise ConfigurationError(
            "changes cannot be collected", where=context.file.migration,
            why="no volume is given" if start else "the target's control table holds no positions to start from",
            todo="see that spec.stream.spool names a volume, and run the schema task first",
        )  # fmt: skip
    spool = spool_of(context.file, start)
    session = ends.target.session(TASK, context.file.index)
    try:
        state = session.take()
        context.report.update(epoch=state.epoch, attempt=state.attempt)
        _Collecting(context, ends, spool, session, state=state, start=start).run()
    finally:
        session.close()


class _Collecting:
    """One run, from its control row to its end."""

    def __init__(
        self,
        context: TaskContext,
        ends: ShardedEnds,
        spool: Spool,
        session: Session,
        *,
        state: SessionState,
        start: str,
    ) -> None:
        self._context, self._spool, self._position = context, spool, state.position or start
        self._failed_at, self._result_at, self._retries = 0.0, float("-inf"), Retries()
        index = context.file.index
        self._source, target = collecting(ends.source, ends.target, spool, Holder(index, state.attempt))
        options = Options(
            index=index,
            workers=lambda: context.orders.current().workers or context.file.workers,
            base=seconds_of(start),
        )
        self._follower = Follower(
            self._source, target, retrying(lambda: _tables(ends), backoff=_START), options,
            session=_Beats(session), attempt=state.attempt, notice=self._hear,
        )  # fmt: skip

    def run(self) -> None:
        """Work until an order, a signal or an error ends it."""
        try:
            retrying(self._follower.start, backoff=_START, noticed=self._hear)
            while not self._context.stop.is_set() and not self._context.orders.current().retire:
                self._follower.check()
                self._report()
                self._context.stop.wait(_TICK_SECONDS)
        finally:
            ended = self._follower.finish()
        self._follower.check()
        _LOG.info("%d changes were read onto %s", self._source.kept, self._spool.folder)
        if not ended:
            raise Transient(
                "the volume or the target did not take the last pages in time", where=str(self._spool.folder),
                why="threads are still waiting for it", todo="nothing is lost: it goes on after the last page kept",
            )  # fmt: skip
        if not self._context.orders.current().retire:
            raise Stopped

    def _hear(self, failure: Transient) -> None:
        self._retries.say(_LOG, "tried again: %s", failure)
        self._context.target.tally.retries += 1
        self._failed_at = time.monotonic()
        self._context.report.update(last_error=failure.report())

    def _report(self) -> None:
        """Tell what lies on the volume. The target's own position stays as it is, and no lag is claimed."""
        now = time.monotonic()
        if now - self._result_at < _RESULT_SECONDS:
            return
        self._result_at = now
        if self._failed_at and now - self._failed_at > 30.0:
            self._failed_at = 0.0
            self._context.report.update(last_error=None)
        with self._spool.volume.guarded(self._spool.folder):
            kept = self._spool.bytes_kept()
        self._context.report.update(stream=StreamResult(position=self._position, collected_bytes=kept))


class _Beats:
    """Implements ports.Session: shows that the worker lives, and never a position that the target does not hold."""

    def __init__(self, session: Session) -> None:
        self._session, self.tally = session, session.tally

    def take(self) -> SessionState:
        """Take the control row."""
        return self._session.take()

    def commit(
        self,
        writes: Sequence[Write],
        *,
        position: str | None = None,  # noqa: ARG002 - what it stands for lies on the volume, not in the target
        progress: ChunkProgress | None = None,
    ) -> None:
        """Write the control row with the position that it has. Raises FencedOut."""
        self._session.commit(writes, progress=progress)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _tables(ends: ShardedEnds) -> Followed:
    """All tables of the migration but the stopped ones. One that is gone is for the copy to stop."""
    control = ends.target.control()
    rows = {row.name: row for row in control.tables()}
    stopped = {row.name: row.message for row in rows.values() if row.state == "Stopped"}
    tables, _ = ends.source.discover()
    wanted = [table for table in tables if table.name in rows and table.name not in stopped]
    return Followed(wanted, stopped, lambda name, reason: control.set_table(name, "Stopped", reason[:4096]))
