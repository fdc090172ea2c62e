"""Compares source and target and reports what differs. Reads only; a cutover's final check tells the journal so."""

import contextlib
from collections.abc import Iterator, Sequence

from whimbrel_api.durations import seconds
from whimbrel_api.tasks import CheckOptions, CheckScope
from whimbrel_worker.engine.compare.changed_keys import KEYS_PER_TABLE, ChangedKeys, changed_keys
from whimbrel_worker.engine.compare.comparison import Comparison
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.flow import Arrival, Flow
from whimbrel_worker.engine.compare.items import holds_items
from whimbrel_worker.engine.compare.lanes import Lane
from whimbrel_worker.engine.compare.recheck import Recheck
from whimbrel_worker.engine.compare.steady import SteadySource, SteadyTarget
from whimbrel_worker.engine.ports import ControlStore
from whimbrel_worker.engine.shards.flow import ShardFlow
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.tasks.check_work import CheckWork
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import sharded_ends
from whimbrel_worker.values.columns import Table

PATIENCE_SECONDS = 60.0
"""How long the target is waited for until it holds what the source has."""
_LANES = 4
"""Segments of a table of items that are compared at once."""


def run(context: TaskContext) -> None:
    """Compare this worker's share of the tables, or the keys changed lately, and report the result."""
    options = context.file.check
    through = options.through or context.source.position()
    control = _control(context)
    with Findings(options.report_file, options.report.max_differences, options.report.redact) as findings:
        work = CheckWork(context, findings, through)
        tables = work.plan(control)
        _refuse_samples_of_rows(options, tables)
        with _comparison(context, work, control, tables) as comparison:
            changed = _changed_keys(context, tables) if _by_changes(context) else None
            for table in tables:
                work.compare(comparison, table, changed)
        work.finish()


def _by_changes(context: TaskContext) -> bool:
    """Whether only changed keys are compared. A log of shards cannot name those between two positions."""
    return context.file.check.scope is CheckScope.FINAL and sharded_ends(context) is None


def _refuse_samples_of_rows(options: CheckOptions, tables: Sequence[Table]) -> None:
    rows = [table.name for table in tables if not holds_items(table)]
    if options.mode == "Sample" and rows:
        raise ConfigurationError(
            "a sample cannot be taken of tables of rows",
            where=", ".join(rows[:5]),
            why="there is no cheap way to random rows of this source",
            todo="set the comparison's mode to Full",
        )


def _control(context: TaskContext) -> ControlStore | None:
    """The control tables, or None where the target has none of this migration, or only a tombstone."""
    control = context.target.control()
    record = control.record()
    return control if record.exists and record.last("retired") is None else None


@contextlib.contextmanager
def _comparison(
    context: TaskContext, work: CheckWork, control: ControlStore | None, tables: Sequence[Table]
) -> Iterator[Comparison]:
    """Readers that go through the tables, for items several at once, and readers that look again at what may differ."""
    options, findings = context.file.check.recheck, work.findings
    with contextlib.ExitStack() as stack:
        count = _LANES if any(holds_items(table) for table in tables) else 1
        lanes = [_lane(context, stack) for _ in range(count)]
        other, flow = _lane(context, stack), _flow(context, control)
        again = Recheck(
            other.source, other.target, flow, findings, options.attempts, seconds(options.backoff), context.wait
        )
        yield Comparison(lanes, again, work.seen, context.file.index, context.file.workers)


def _lane(context: TaskContext, stack: contextlib.ExitStack) -> Lane:
    source = SteadySource(stack.enter_context(context.source.reader()))
    return Lane(source, SteadyTarget(stack.enter_context(context.target.reader())))


def _flow(context: TaskContext, control: ControlStore | None) -> Arrival:
    """How changes arrive in the target: by one log's position, or by those of many shards."""
    ends = sharded_ends(context)
    if ends is None or control is None:
        return Flow(context.source, control, context.wait, PATIENCE_SECONDS)
    return ShardFlow(ends.source, control, ends.target.shards(), context.wait, PATIENCE_SECONDS)


def _changed_keys(context: TaskContext, tables: Sequence[Table]) -> ChangedKeys:
    options = context.file.check
    return changed_keys(
        context.source, tables, options.since, options.through, check=context.check_stop, limit=KEYS_PER_TABLE
    )
