"""Compares source and target and reports what differs. Reads only: it writes nothing, not even a control row."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from whimbrel_api.durations import seconds
from whimbrel_api.migration import CheckResult, TableStatus
from whimbrel_api.reports import CheckReport
from whimbrel_api.tasks import CheckScope
from whimbrel_worker.engine.compare.changed_keys import KEYS_PER_TABLE, ChangedKeys, changed_keys
from whimbrel_worker.engine.compare.comparison import Comparison, deal
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.flow import Flow
from whimbrel_worker.engine.compare.recheck import Recheck
from whimbrel_worker.engine.compare.steady import SteadySource, SteadyTarget
from whimbrel_worker.engine.ports import ControlStore, Problem, TableRow
from whimbrel_worker.engine.throttle import Throttle
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long the target is waited for until it holds what the source has."""
_REPORT_SECONDS = 0.5
_TABLES_LISTED = 100
_STOPPED = "Stopped"


def run(context: TaskContext) -> None:
    """Compare this worker's share of the tables, or the keys changed lately, and report the result."""
    options = context.file.check
    final = options.scope is CheckScope.FINAL
    through = options.through if final else context.source.position()
    control = _control(context)
    with Findings(options.report_file, options.report.max_differences, options.report.redact) as findings:
        work = _Work(context, findings, through)
        tables = work.plan(control)
        with _comparison(context, findings, control, work.seen) as comparison:
            changed = _changed_keys(context, tables) if final else None
            for table in tables:
                work.compare(comparison, table, changed)
        work.finish()


def _control(context: TaskContext) -> ControlStore | None:
    """The control tables, or None where the target has none of this migration."""
    control = context.target.control()
    return control if control.record().exists else None


@contextlib.contextmanager
def _comparison(
    context: TaskContext, findings: Findings, control: ControlStore | None, seen: Callable[[int], None]
) -> Iterator[Comparison]:
    """Two readers a side: one streams through the tables, one looks again at what may differ."""
    options = context.file.check.recheck
    flow = Flow(context.source, control, context.wait, PATIENCE_SECONDS)
    with contextlib.ExitStack() as stack:
        sources = [SteadySource(stack.enter_context(context.source.reader())) for _ in range(2)]
        targets = [SteadyTarget(stack.enter_context(context.target.reader())) for _ in range(2)]
        again = Recheck(
            sources[1], targets[1], flow, findings, options.attempts, seconds(options.backoff), context.wait
        )
        yield Comparison(sources[0], targets[0], again, seen)


def _changed_keys(context: TaskContext, tables: Sequence[Table]) -> ChangedKeys:
    options = context.file.check
    return changed_keys(
        context.source, tables, options.since, options.through, check=context.check_stop, limit=KEYS_PER_TABLE
    )


@dataclass(slots=True)
class _State:
    """How far one table is."""

    rows_total: int
    state: str = "Pending"
    rows: int = 0
    differences: int | None = None
    message: str = ""

    def report(self, name: str) -> TableStatus:
        """The same as a report's field."""
        return TableStatus(
            name=name,
            state=self.state,
            rows_total=max(self.rows_total, self.rows),
            rows_copied=self.rows,
            differences=self.differences,
            message=self.message[:4096],
        )


@dataclass(slots=True)
class _Work:
    """This worker's tables, how far each is, and the report of it."""

    context: TaskContext
    findings: Findings
    through: str
    total: int = 0
    rows: int = 0
    done: int = 0
    states: dict[str, _State] = field(default_factory=dict)
    _current: str = ""
    _reported: float = 0.0
    _throttle: Throttle = field(default_factory=Throttle)

    def plan(self, control: ControlStore | None) -> list[Table]:
        """The tables to compare here. What cannot be compared is found inconclusive, by the first worker."""
        tables, problems = self.context.source.discover()
        fatal = [problem for problem in problems if problem.fatal]
        if not tables:
            raise _nothing_to_compare(self.context.file.migration, fatal)
        rows = {row.name: row for row in control.tables()} if control else {}
        for problem in fatal if self.context.file.index == 0 else ():
            self.findings.whole_table(problem.where or "source", f"{problem.what}: {problem.why}".rstrip(": "))
        mine = self._share(tables, rows)
        self.states = {table.name: _State(_size(table, rows.get(table.name))) for table in mine}
        self.total = sum(state.rows_total for state in self.states.values())
        compared = [table for table in mine if not self._stopped(table, rows.get(table.name))]
        self.report()
        return compared

    def _share(self, tables: Sequence[Table], rows: Mapping[str, TableRow]) -> list[Table]:
        # The control tables' estimates were fixed once; the source's own change between two workers' looks.
        sizes = {name: row.rows_estimate for name, row in rows.items()}
        return deal(tables, self.context.file.index, self.context.file.workers, sizes)

    def _stopped(self, table: Table, row: TableRow | None) -> bool:
        if row is None or row.state != _STOPPED:
            return False
        self._give_up(table.name, row.message)
        return True

    def _give_up(self, name: str, reason: str) -> None:
        self.findings.whole_table(name, reason)
        state = self.states[name]
        state.state, state.message = _STOPPED, reason
        self.done += 1

    def compare(self, comparison: Comparison, table: Table, changed: ChangedKeys | None) -> None:
        """Compare one table: all of it, or the changed keys and the count."""
        self._current = table.name
        state = self.states[table.name]
        state.state = "Comparing"
        if changed is None or table.name in changed.crowded:
            comparison.table(table)
        elif table.name in changed.stopped:
            self._give_up(table.name, changed.stopped[table.name])
            return
        else:
            comparison.changed(table, changed.keys.get(table.name, {}))
        state.state, state.differences = "Compared", self.findings.by_table.get(table.name, 0)
        self.done += 1
        self.report()

    def seen(self, rows: int) -> None:
        """Rows were compared: count them, keep to the rate, and stop here when told to."""
        self.rows += rows
        self.states[self._current].rows += rows
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self.report()
        self._throttle.spend(rows, self._rate())
        while (pause := self._throttle.wait_seconds(self._rate())) > 0:
            self.context.wait(min(pause, _REPORT_SECONDS))
        self.context.check_stop()

    def _rate(self) -> float | None:
        """This worker's part of the limit, which holds over all of them; an order counts before the task file."""
        file, orders = self.context.file, self.context.orders.current()
        return orders.share(file.check.rows_per_second, file.workers)

    def finish(self) -> None:
        """Report the result."""
        self.total = self.rows
        self.report(self.findings.result)
        _log.info("compared %d rows of %d tables: %s", self.rows, self.done, self.findings.result)
        for example in self.findings.examples:
            _log.info("%s", example)

    def report(self, result: CheckResult | None = None) -> None:
        """Tell how far it is; with `result`, how it ended."""
        self._reported = time.monotonic()
        self.context.report.update(
            tables=self._listed(),
            tables_total=len(self.states),
            tables_done=self.done,
            rows_total=max(self.total, self.rows),
            rows_done=self.rows,
            check=self._check(result),
        )

    def _listed(self) -> list[TableStatus]:
        worst = sorted(self.states.items(), key=lambda named: (-(named[1].differences or 0), named[0]))
        return [state.report(name) for name, state in worst[:_TABLES_LISTED]]

    def _check(self, result: CheckResult | None) -> CheckReport:
        options, findings = self.context.file.check, self.findings
        return CheckReport(
            result=result,
            differences=findings.differences,
            inconclusive=findings.inconclusive,
            rows_compared=self.rows,
            rows_total=max(self.total, self.rows),
            tables_compared=self.done,
            tables_total=len(self.states),
            validated_through=self.through,
            report_file=options.report_file,
            examples=list(findings.examples),
        )


def _nothing_to_compare(migration: str, problems: Sequence[Problem]) -> ConfigurationError:
    return ConfigurationError(
        "there is no table to compare",
        where=migration,
        why="; ".join(f"{problem.where}: {problem.what}" for problem in problems) or "nothing matches spec.tables",
        todo="correct spec.tables, or the account's privileges: it sees only what it may read",
    )


def _size(table: Table, row: TableRow | None) -> int:
    return max(table.rows_estimate, row.rows_copied if row else 0)
