"""One worker's part of a comparison: its tables, how far each is, what it reports. How they are compared: elsewhere."""

import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from whimbrel_api.migration import CheckResult, TableStatus
from whimbrel_api.reports import CheckReport
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.engine.compare.changed_keys import ChangedKeys
from whimbrel_worker.engine.compare.comparison import Comparison, deal
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.item_findings import every_item_file
from whimbrel_worker.engine.compare.items import holds_items
from whimbrel_worker.engine.compare.merge import Step
from whimbrel_worker.engine.ports import ControlStore, Problem, TableRow
from whimbrel_worker.engine.throttle import Throttle
from whimbrel_worker.errors import ConfigurationError, Incompatible
from whimbrel_worker.tasks.acknowledge import acknowledge_check
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 0.5
_TABLES_LISTED = 100
_STOPPED = "Stopped"


@dataclass(slots=True)
class TableProgress:
    """How far one table is."""

    rows_total: int
    shared: bool = False
    """Whether every worker compares a part of it."""
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
class CheckWork:
    """This worker's tables, how far each is, and the report of it."""

    context: TaskContext
    findings: Findings
    through: str
    total: int = 0
    rows: int = 0
    done: int = 0
    states: dict[str, TableProgress] = field(default_factory=dict)
    known: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    _reported: float = 0.0
    _throttle: Throttle = field(default_factory=Throttle)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, control: ControlStore | None) -> list[Table]:
        """The tables to compare here. What cannot be compared is found inconclusive.

        That says the first worker alone, or each where all have a part of every table: one may see what another does
        not.
        """
        tables, problems = self.context.source.discover()
        fatal = [problem for problem in problems if problem.fatal]
        if not tables:
            raise _nothing_to_compare(self.context.file.migration, fatal)
        rows = {row.name: row for row in control.tables()} if control else {}
        shared = any(holds_items(table) for table in tables)
        for problem in fatal if shared or self.context.file.index == 0 else ():
            self.findings.whole_table(problem.where or "source", f"{problem.what}: {problem.why}".rstrip(": "))
        mine = self._share(tables, rows)
        self.states = {
            table.name: TableProgress(self._size(table, rows.get(table.name)), holds_items(table)) for table in mine
        }
        self.total = sum(state.rows_total for state in self.states.values())
        compared = [table for table in mine if not self._stopped(table, rows.get(table.name))]
        self.report()
        return compared

    def _share(self, tables: Sequence[Table], rows: Mapping[str, TableRow]) -> list[Table]:
        # The control tables' estimates were fixed once; the source's own change between two workers' looks.
        sizes = {name: row.rows_estimate for name, row in rows.items()}
        dealt = [table for table in tables if not holds_items(table)]
        mine = deal(dealt, self.context.file.index, self.context.file.workers, sizes)
        return [*mine, *(table for table in tables if holds_items(table))]

    def _size(self, table: Table, row: TableRow | None) -> int:
        """How many rows this worker will compare, as far as is known: of items its part alone."""
        rows = self.sizes[table.name] = max(table.rows_estimate, row.rows_copied if row else 0)
        if not holds_items(table):
            return rows
        self.known += self._part(rows)
        options = self.context.file.check
        return self._part(min(rows, options.sample_rows) if options.mode == "Sample" else rows)

    def _part(self, rows: int) -> int:
        """Parts of all workers add up to the whole."""
        index, workers = self.context.file.index, self.context.file.workers
        return (index + 1) * rows // workers - index * rows // workers

    @property
    def tables(self) -> int:
        """The tables that are this worker's own to count."""
        return sum(map(self._counts, self.states))

    def _files(self) -> str:
        """Where the differences are: in one file, or in one for each table of items."""
        path = self.context.file.check.report_file
        if not path or not any(state.shared for state in self.states.values()):
            return path
        return every_item_file(path)

    def _counts(self, name: str) -> bool:
        """Whether this worker counts the table as its own: where all have a part of it, one of them does."""
        index, workers = self.context.file.index, self.context.file.workers
        return not self.states[name].shared or crc32(name.encode()) % workers == index

    def _stopped(self, table: Table, row: TableRow | None) -> bool:
        if row is None or row.state != _STOPPED:
            return False
        self._give_up(table.name, row.message)
        return True

    def _give_up(self, name: str, reason: str) -> None:
        state = self.states[name]
        state.state, state.message = _STOPPED, reason
        self.findings.whole_table(name, reason)
        self.done += self._counts(name)

    def compare(self, comparison: Comparison, table: Table, changed: ChangedKeys | None) -> None:
        """Compare one table: all of it, a sample, or the changed keys and the count."""
        if changed is not None and table.name in changed.stopped:
            self._give_up(table.name, changed.stopped[table.name])
            return
        state = self.states[table.name]
        state.state = "Comparing"
        self.findings.begin(table)
        try:
            self._compare(comparison, table, changed)
        except (Incompatible, Refused) as error:
            self._give_up(table.name, str(error))
            return
        state.state, state.differences = "Compared", self.findings.by_table.get(table.name, 0)
        self.done += self._counts(table.name)
        self.report()

    def _compare(self, comparison: Comparison, table: Table, changed: ChangedKeys | None) -> None:
        options = self.context.file.check
        if options.mode == "Sample":
            _log.info("table %s: a sample drawn with seed %d", table.name, self.seed, extra={"table": table.name})
            comparison.sample(table, options.sample_rows, self.sizes[table.name], self.seed)
        elif changed is None or table.name in changed.crowded:
            comparison.table(table)
        else:
            comparison.changed(table, changed.keys.get(table.name, {}))

    def seen(self, table: Table, step: Step) -> None:
        """Rows were compared: count them, keep to the rate, and stop here when told to. May be called by many threads.

        The rate holds for what the source is asked for: its rows, and lookups of keys that the target has.
        """
        with self._one:
            self.rows += step.rows
            self.states[table.name].rows += step.rows
            if time.monotonic() - self._reported >= _REPORT_SECONDS:
                self.report()
            self._throttle.spend(step.rows + step.looked_up, self._rate())
        while (pause := self._throttle.wait_seconds(self._rate())) > 0:
            self.context.wait(min(pause, _REPORT_SECONDS))
        self.context.check_stop()

    def _rate(self) -> float | None:
        """This worker's part of the limit, which holds over all of them; an order counts before the task file."""
        file, orders = self.context.file, self.context.orders.current()
        return orders.share(file.check.rows_per_second, file.workers)

    def finish(self) -> None:
        """Report the result; of a cutover's final check once the journal has it."""
        self.total = self.rows
        acknowledge_check(self.context, self._check(self.findings.result))
        self.report(self.findings.result)
        _log.info("compared %d rows of %d tables: %s", self.rows, self.done, self.findings.result)
        for example in self.findings.examples:
            _log.info("%s", example)

    def report(self, result: CheckResult | None = None) -> None:
        """Tell how far it is; with `result`, how it ended."""
        self._reported = time.monotonic()
        self.context.report.update(
            tables=self._listed(),
            tables_total=self.tables,
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
            sampled=options.mode == "Sample",
            rows_known=self.known,
            rows_total=max(self.total, self.rows),
            tables_compared=self.done,
            tables_total=self.tables,
            validated_through=self.through,
            report_file=self._files(),
            examples=list(findings.examples),
        )


def _nothing_to_compare(migration: str, problems: Sequence[Problem]) -> ConfigurationError:
    return ConfigurationError(
        "there is no table to compare",
        where=migration,
        why="; ".join(f"{problem.where}: {problem.what}" for problem in problems) or "nothing matches spec.tables",
        todo="correct spec.tables, or the account's privileges: it sees only what it may read",
    )
