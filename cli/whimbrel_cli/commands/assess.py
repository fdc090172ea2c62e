"""`whimbrel assess`: what the pre-flight sees of both ends, and nothing is made. What is looked at is the worker's."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whimbrel_api.migration import Migration
from whimbrel_api.reports import PreflightResult, TableAssessment, WorkerReport
from whimbrel_api.tasks import TaskKind
from whimbrel_cli.drawing import Trimmed, canvas
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import count, one_line, size, source_name, span, target_name
from whimbrel_cli.inputs import put, read_files
from whimbrel_cli.output import SCRIPTS, dump
from whimbrel_cli.screen import glyphs
from whimbrel_operator.domain.decision import WantedTask, Work
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, TaskState
from whimbrel_operator.runtime.local import LocalRuntime
from whimbrel_operator.runtime.store import Key, LocalStore

_POLL_SECONDS: Final = 0.1
_REF: Final = TaskRef("preflight")


@click.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--secrets", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="Secrets as Kubernetes mounts them: DIR/NAME/KEY.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["text", *SCRIPTS]), default="text", show_default=True)
@click.option("--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, help="Seconds.")
def assess(files: tuple[str, ...], secrets: Path | None, output: str, timeout: float) -> int:
    """Looks at both ends of the Migrations in FILEs as their pre-flight does, and makes nothing.

    Shows the tables with their size, keys, indexes, billing mode, time to live and stream, how long the copy is
    expected to take, which calls the account may not make, and everything that stands in the way. Exit code 3 when
    something does. It looks from this machine with the Secrets given here, also as `kubectl whimbrel assess`.

    \b
    Examples:
      whimbrel assess shop.yaml --secrets ./secrets
      whimbrel assess shop.yaml --secrets ./secrets -o json | jq '.[].assessment[] | [.name, .items]'
    """
    with tempfile.TemporaryDirectory(prefix="whimbrel-assess-") as folder:
        store = LocalStore(Path(folder))
        keys = put(store, read_files(files), secrets)
        migrations = [(key, found) for key in keys if isinstance(found := store.get(key), Migration)]
        looks = [(found, _looked(store, key, found, timeout)) for key, found in migrations]
    if output in SCRIPTS:
        dump([_document(migration, report) for migration, report in looks], output)
    else:
        for migration, report in looks:
            _show(canvas(), migration, report)
    return Exit.STALLED if any(report.last_error is not None for _, report in looks) else Exit.DONE


def _looked(store: LocalStore, key: Key, migration: Migration, timeout: float) -> WorkerReport:
    """The pre-flight's report. Raises CliError when it does not come in time."""
    runtime = LocalRuntime(store)
    wanted = WantedTask(TaskKind.PREFLIGHT, _REF, Work.of(migration), look_only=True)
    try:
        asyncio.run(runtime.apply(key, [wanted]))
        return _word(_awaited(runtime, key, timeout), key)
    finally:
        runtime.stop([key])


def _awaited(runtime: LocalRuntime, key: Key, timeout: float) -> TaskState:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        observed = asyncio.run(runtime.observe(key, Memory()))
        state = observed.tasks.find(_REF.task_id) if isinstance(observed, Observed) else None
        if state is not None and not state.running:
            return state
        time.sleep(_POLL_SECONDS)
    raise CliError(f"The pre-flight of {key.name} did not end within {timeout:g} s.", code=Exit.TIMED_OUT)


def _word(state: TaskState, key: Key) -> WorkerReport:
    if state.word is None:
        why = state.last_error.sentence() if state.last_error is not None else f"exit code {state.exit_code}"
        raise CliError(f"The pre-flight of {key.name} ended without a report: {why}.")
    return state.word


def _document(migration: Migration, report: WorkerReport) -> dict[str, Any]:
    """One migration as JSON: the assessment, warnings, and what stands in the way; null when nothing does."""
    found = report.preflight or PreflightResult(source_id="")
    return {
        "name": migration.metadata.name,
        "namespace": migration.metadata.namespace,
        "source": source_name(migration.spec.source),
        "target": target_name(migration.spec.target),
        "tables": [table.model_dump(mode="json", by_alias=True) for table in report.tables],
        "assessment": [table.model_dump(mode="json", by_alias=True) for table in found.assessment],
        "warnings": found.warnings,
        "problem": report.last_error.model_dump(mode="json", by_alias=True) if report.last_error else None,
    }


def _show(console: Console, migration: Migration, report: WorkerReport) -> None:
    spec, found = migration.spec, report.preflight or PreflightResult(source_id="")
    ends = f"{source_name(spec.source)} {glyphs(console).arrow} {target_name(spec.target)}"
    console.print(f"{migration.metadata.name}: {ends}", style="bold", markup=False, highlight=False)
    if found.assessment:
        console.print(_tables(found.assessment))
    else:
        _show_plain(console, report)
    for warning in found.warnings:
        console.print(f"warning: {one_line(warning)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if report.last_error is not None:
        text = one_line(report.last_error.sentence())
        console.print(f"in the way: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print("Nothing stands in the way.", style="green", highlight=False)


def _show_plain(console: Console, report: WorkerReport) -> None:
    for table in report.tables:
        console.print(f"  {one_line(table.name)}: about {count(table.rows_total)} rows", markup=False, highlight=False)


def _tables(assessment: Sequence[TableAssessment]) -> Trimmed:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in _COLUMNS:
        table.add_column(name, justify="right" if justify else "left", overflow="fold")
    for each in assessment:
        table.add_row(*map(Text, _cells(each)))
    return Trimmed(table)


_COLUMNS: Final = (
    ("Table", False), ("Items", True), ("Size", True), ("Key", False), ("Indexes", False), ("Billing", False),
    ("Units r/w", True), ("TTL", False), ("Stream", False), ("Copy", True),
)  # fmt: skip


def _cells(each: TableAssessment) -> tuple[str, ...]:
    units = f"{each.read_units}/{each.write_units}" if each.read_units or each.write_units else "–"
    indexes = "\n".join(map(one_line, each.indexes)) or "–"
    key, ttl = one_line(", ".join(each.key)), one_line(each.ttl_attribute) or "–"
    return (
        one_line(each.name), count(each.items), size(each.size_bytes), key, indexes, each.billing_mode or "–",
        units, ttl, each.stream, span(each.copy_seconds),
    )  # fmt: skip
