"""Copies the tables' rows, together with the other workers of the same task. How a chunk is copied stands in
engine.copy."""

from collections.abc import Sequence
from datetime import timedelta

from whimbrel_api.migration import Mode, TableStatus
from whimbrel_api.reports import StreamResult
from whimbrel_worker.engine.copy.copier import Copier, CopyOptions
from whimbrel_worker.engine.ports import TableRow
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.tasks.context import TaskContext

_TABLES_REPORTED = 100
_WORST_FIRST = {"Stopped": 0, "Copying": 1, "Planning": 2, "Pending": 3, "Copied": 4}
_SHOWN_AS = {"Planning": "Copying"}


def run(context: TaskContext) -> None:
    """Work until no chunk is left, whoever copied it."""
    file = context.file
    options = CopyOptions(
        index=file.index,
        chunk_rows=file.snapshot.chunk_rows,
        tables_in_parallel=file.snapshot.tables_in_parallel,
        follows=file.mode is not Mode.SNAPSHOT_ONLY,
    )
    if options.follows:
        context.report.update(stream=kept_from_the_start(context))
    Copier(context.source, context.target, options, SnapshotGuide(context), context.report.source_tally).run()


def kept_from_the_start(context: TaskContext) -> StreamResult:
    """Until when the log keeps what was changed during the copy: all of it came after the migration was registered.

    Nothing is said where a spool takes the changes in meanwhile, nor where the log forgets nothing by time.
    """
    kept = retrying(context.source.retention) if context.file.stream.spool is None else None
    started = context.target.control().record().last("started")
    if kept is None or started is None:
        return StreamResult()
    return StreamResult(retention_deadline=started.recorded_at + timedelta(seconds=kept), retention_seconds=kept)


class SnapshotGuide:
    """Implements engine.copy.Guide over a task's context."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def wait(self, seconds: float) -> None:
        """Wait; raises Stopped when the worker is to stop."""
        if seconds > 0:
            self._context.wait(seconds)
        else:
            self._context.check_stop()

    def rate(self) -> float | None:
        """This worker's share of the limit; an order takes the place of the manifest's figures."""
        file, orders = self._context.file, self._context.orders.current()
        limit = file.snapshot.rate_limit.rows_per_second if file.snapshot.rate_limit else None
        return orders.share(limit, file.workers)

    def progress(self, tables: Sequence[TableRow]) -> None:
        """Report all tables' progress, the worst first."""
        shown = sorted(tables, key=lambda row: (_WORST_FIRST.get(row.state, 0), -row.rows_estimate, row.name))
        self._context.report.update(
            tables=[_status(row) for row in shown[:_TABLES_REPORTED]],
            tables_total=len(tables),
            tables_done=sum(row.state == "Copied" for row in tables),
            rows_total=sum(_total(row) for row in tables),
            rows_done=sum(row.rows_copied for row in tables),
        )


def _total(row: TableRow) -> int:
    """An estimate until the table is copied, but never less than what is there already."""
    return row.rows_copied if row.state == "Copied" else max(row.rows_estimate, row.rows_copied)


def _status(row: TableRow) -> TableStatus:
    return TableStatus(
        name=row.name,
        state=_SHOWN_AS.get(row.state, row.state),
        rows_total=_total(row),
        rows_copied=row.rows_copied,
        message=row.message[:4096],
    )
