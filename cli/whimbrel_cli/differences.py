"""What is kept of the last comparison of a resource: figures, tables, rows. How it is shown stands in diff."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from whimbrel_api.migration import CheckResult, Differences, Migration
from whimbrel_api.reports import WorkerReport
from whimbrel_api.validation import Validation
from whimbrel_cli.exits import CliError, Exit
from whimbrel_cli.family import key_of, relatives
from whimbrel_cli.guidance import Resource
from whimbrel_cli.output import stamp
from whimbrel_cli.places import Place
from whimbrel_operator.domain.validation import check_id
from whimbrel_operator.runtime.port import Key


@dataclass(frozen=True)
class Comparison:
    """The last comparison. `tables`: rows that differ by table, where that is known; `rows`: those that were listed,
    as the worker wrote them; `examples`: sentences that name rows, of those not listed; `files`: where all are;
    `hidden`: what may not be read, and might tell more.
    """

    name: str
    result: CheckResult
    differences: Differences
    inconclusive: int
    rows_compared: int
    compared: str
    completed_at: datetime | None
    tables: Sequence[tuple[str, int]] = ()
    rows: Sequence[dict[str, Any]] = ()
    examples: Sequence[str] = ()
    files: Sequence[Path] = ()
    hidden: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """The same for a script."""
        return {
            "comparison": self.name,
            "result": self.result.value,
            "differences": self.differences.model_dump(),
            "inconclusive": self.inconclusive,
            "rowsCompared": self.rows_compared,
            "compared": self.compared,
            "completedAt": stamp(self.completed_at),
            "tables": [{"name": name, "differences": found} for name, found in self.tables],
            "rows": [*self.rows],
            "examples": [*self.examples],
            "files": [str(path) for path in self.files],
            "hidden": [*self.hidden],
        }


def last_comparison(place: Place, key: Key) -> Comparison:
    """The last comparison of a Migration, or a Validation's own. Raises CliError where there is none."""
    resource = place.store.get(key)
    if not isinstance(resource, Migration | Validation):
        raise CliError(f"{key.name} is a {resource.kind}; nothing is compared for it alone.", code=Exit.USAGE)
    status = resource.status.validation if isinstance(resource, Migration) else resource.status
    if status.result is None:
        todo = f"To look how far it is: {place.caller.line('status', resource)}"
        raise CliError(f"{key.name} has not been compared yet.", todo)
    others, unread = relatives(place, resource)
    origin, task = _origin(resource, others)
    words = [word for word in place.store.reports(origin).values() if word.task_id == task and word.check is not None]
    files = place.difference_files(origin, task)
    rows = [row for path in files for row in _rows(path)]
    return Comparison(
        name=f"{origin.kind}/{origin.name}, {task}",
        result=status.result,
        differences=status.differences,
        inconclusive=status.inconclusive,
        rows_compared=status.rows_compared,
        compared=status.compared,
        completed_at=status.completed_at,
        tables=_tables(resource) or _by_table(words),
        rows=rows,
        examples=() if rows else [each for word in words if word.check for each in word.check.examples],
        files=files,
        hidden=sorted({*unread, *place.hidden()}),
    )


def _origin(resource: Migration | Validation, others: Sequence[Resource]) -> tuple[Key, str]:
    """Whose workers compared, and by which task: a Validation's where the Migration's status names one."""
    name = resource.status.validation.name if isinstance(resource, Migration) else resource.metadata.name
    found = next(
        (each for each in (resource, *others) if isinstance(each, Validation) and each.metadata.name == name), None
    )
    return (key_of(found), check_id(found.spec)) if found is not None else (key_of(resource), name)


def _tables(resource: Migration | Validation) -> list[tuple[str, int]]:
    if isinstance(resource, Validation):
        return []
    return [(table.name, table.differences) for table in resource.status.tables if table.differences]


def _by_table(words: Sequence[WorkerReport]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for word in words:
        for table in word.tables:
            found[table.name] = found.get(table.name, 0) + (table.differences or 0)
    return sorted((name, rows) for name, rows in found.items() if rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of differences. Raises CliError where it cannot be understood."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            value = json.loads(line)
        except ValueError:
            raise CliError(f"{path}, line {number} is no JSON: the file is damaged.", "Compare again.") from None
        if isinstance(value, dict):
            yield value
