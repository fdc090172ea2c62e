"""Looks at both ends before anything is written and reports all problems at once. Repairs nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from whimbrel_api.migration import Mode, SchemaMode, TableStatus
from whimbrel_api.reports import CANCELLED, SWITCHED, PreflightResult, Record, TableAssessment
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient, WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import sharded_ends
from whimbrel_worker.tasks.source_freeze import freezing_of
from whimbrel_worker.values.columns import Table

T = TypeVar("T")
_WARNINGS, _WARNING_LENGTH = 200, 1000
_TABLES_REPORTED = 100
_LIST_LENGTH = 3900
_OVER = (SWITCHED, CANCELLED)


@dataclass(slots=True)
class _Findings:
    """All that was found so far. Failures are errors that ended a part of the look."""

    problems: list[Problem] = field(default_factory=list)
    failures: list[WorkerError] = field(default_factory=list)

    def attempt(self, look: Callable[[], T]) -> T | None:
        """The look's result, or None when it failed; the failure is kept."""
        try:
            return look()
        except WorkerError as error:
            self.failures.append(error)
            return None

    def fatal(self) -> list[Problem]:
        """What keeps the migration from going on, failures included."""
        failed = [Problem(error.what, error.where, error.why, error.todo) for error in self.failures]
        return failed + [problem for problem in self.problems if problem.fatal]


def run(context: TaskContext) -> None:
    """Raise one error with all that is wrong, or report what was found."""
    findings = _Findings()
    source_id = findings.attempt(context.source.identity)
    tables = _look_at_source(context, findings) if source_id is not None else []
    target_version = findings.attempt(context.target.check_sign_in)
    record = findings.attempt(context.target.control().record) if target_version is not None else None
    if record is not None:
        _look_at_target(context, findings, tables, record, source_id)
    _report_tables(context, tables)
    result = PreflightResult(
        source_id=source_id or "",
        target_version=(target_version or "")[:200],
        warnings=_warnings(findings.problems),
        assessment=findings.attempt(lambda: _assessment(context)) or [] if source_id is not None else [],
        record=record or Record(),
    )
    context.report.update(preflight=result)
    if findings.fatal():
        raise _error(findings)
    context.report.update(preflight=result.model_copy(update=_tried(context)), record=record)


def _tried(context: TaskContext) -> dict[str, str]:
    """What is known once everything is in order: how rows are written is tried on the control tables."""
    found = {"source_version": context.source.version()}
    if context.file.look_only:
        return found
    context.target.control().ensure()
    return {**found, "write_path": context.target.probe_write_path()}


def _assessment(context: TaskContext) -> list[TableAssessment]:
    ends = sharded_ends(context)
    return ends.source.assessment() if ends is not None else []


def _look_at_source(context: TaskContext, findings: _Findings) -> list[Table]:
    findings.problems += findings.attempt(context.source.check) or []
    tables, problems = findings.attempt(context.source.discover) or ([], [])
    findings.problems += problems
    findings.problems += findings.attempt(lambda: _freeze_problems(context)) or []
    return tables


def _freeze_problems(context: TaskContext) -> list[Problem]:
    """What would keep the cutover from stopping the writes to the source, where that is asked of Whimbrel."""
    policy = context.file.freeze.stop_writes
    return freezing_of(context).problems(policy) if policy is not None else []


def _look_at_target(
    context: TaskContext, findings: _Findings, tables: Sequence[Table], record: Record, source_id: str | None
) -> None:
    if record.exists and source_id is not None and record.source_id != source_id:
        findings.problems.append(_another_source(context, record, source_id))
    if not record.exists or not _is_over(record):
        findings.attempt(lambda: findings.problems.extend(_table_problems(context, tables, record)))
    position = record.stream_position or record.start_position
    follows = context.file.mode is not Mode.SNAPSHOT_ONLY
    if position and follows and source_id is not None and not _is_over(record):
        findings.attempt(lambda: context.source.check_log(position))


def _is_over(record: Record) -> bool:
    """Whether it has been cut over or cancelled, and not rolled back since."""
    return record.traffic is not None and record.traffic.step in _OVER


def _another_source(context: TaskContext, record: Record, source_id: str) -> Problem:
    return Problem(
        "the target already holds a migration of that name from another source",
        where=context.file.migration,
        why=f"its control tables belong to source {record.source_id}, the manifest leads to {source_id}",
        todo="give the migration another name, or point spec.source at the server that it began with",
    )


def _table_problems(context: TaskContext, tables: Sequence[Table], record: Record) -> Iterator[Problem]:
    schema = context.target.schema()
    ours = {row.name for row in context.target.control().tables()} if record.exists else set()
    must_exist = context.file.schema_.mode is SchemaMode.EXISTING
    for table in tables:
        context.check_stop()
        found = schema.mismatches(table)
        if found is None:
            if must_exist:
                yield _missing(table)
            continue
        yield from found
        if table.name not in ours and schema.has_rows(table):
            yield _not_empty(table)


def _missing(table: Table) -> Problem:
    return Problem(
        f"the target has no table {table.target_schema}.{table.target_name}",
        where=table.name,
        why="spec.schema.mode is Existing, so no table is made",
        todo="make the table, or set spec.schema.mode to CreateIfMissing",
    )


def _not_empty(table: Table) -> Problem:
    there = f"{table.target_schema}.{table.target_name}"
    return Problem(
        f"the target's table {there} holds rows that this migration did not write",
        where=table.name,
        why="its control tables do not know the table, so nobody can tell which rows are right",
        todo=f"empty or drop {there}, or lead the rows elsewhere under tables.overrides[].renameTo",
    )


def _report_tables(context: TaskContext, tables: Sequence[Table]) -> None:
    largest = sorted(tables, key=lambda table: -table.rows_estimate)[:_TABLES_REPORTED]
    context.report.update(
        tables=[TableStatus(name=table.name, state="Pending", rows_total=table.rows_estimate) for table in largest],
        tables_total=len(tables),
        rows_total=sum(table.rows_estimate for table in tables),
    )


def _warnings(problems: Sequence[Problem]) -> list[str]:
    texts = [_sentence(problem)[:_WARNING_LENGTH] for problem in problems if not problem.fatal]
    if len(texts) > _WARNINGS:
        texts[_WARNINGS - 1 :] = [f"and {len(texts) - _WARNINGS + 1} more"]
    return texts


def _sentence(problem: Problem) -> str:
    parts = (problem.what, problem.where and f"in {problem.where}", problem.why, problem.todo)
    return "; ".join(part for part in parts if part)


def _error(findings: _Findings) -> WorkerError:
    """One error for all of them: of the gravest kind; tried again soon only when nothing else is wrong."""
    kind: type[WorkerError] = ConfigurationError
    if any(isinstance(failure, SourceLogLost) for failure in findings.failures):
        kind = SourceLogLost
    elif len(findings.failures) == len(findings.fatal()) and all(
        isinstance(failure, Transient) for failure in findings.failures
    ):
        kind = Transient
    problems = findings.fatal()
    if len(problems) == 1:
        only = problems[0]
        return kind(only.what, where=only.where, why=only.why, todo=only.todo)
    return kind(
        f"the pre-flight found {len(problems)} problems",
        why=_listed(problems),
        todo="correct all of them; the pre-flight runs again by itself",
    )


def _listed(problems: Sequence[Problem]) -> str:
    lines: list[str] = []
    room = _LIST_LENGTH
    for number, problem in enumerate(problems, start=1):
        line = f"({number}) {_sentence(problem)[:_WARNING_LENGTH]}"
        room -= len(line) + 1
        if room < 0:
            lines.append(f"and {len(problems) - number + 1} more")
            break
        lines.append(line)
    return " ".join(lines)
