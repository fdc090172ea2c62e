"""The local store as the commands use it: finding a resource, looking at it. The store itself is the operator's."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from whimbrel_api.migration import Migration
from whimbrel_api.reports import WorkerReport, WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_api.validation import Validation
from whimbrel_cli.exits import CliError, Exit
from whimbrel_cli.observed import Checking, Happening, Observed, Rates
from whimbrel_operator.errors import NotFound
from whimbrel_operator.runtime.store import Key, LocalStore, default_root

_KINDS = ("Migration", "Validation")


def open_store(state: Path | None) -> LocalStore:
    """The store in the folder given, else in the default one."""
    return LocalStore(state or default_root())


def find(store: LocalStore, name: str, namespace: str, kind: str | None = None) -> Key:
    """The resource of that name; a Migration before a Validation. Raises CliError, saying what there is instead."""
    for wanted in [kind] if kind else _KINDS:
        try:
            return store.find(name, namespace=namespace, kind=wanted)
        except NotFound:
            continue
    known = sorted({f"{key.name} ({key.kind}, {key.namespace})" for key in store.list(kind)})
    there = f"There are: {', '.join(known[:10])}." if known else "There are none; start one with: whimbrel run FILE"
    raise CliError(f"No {kind or 'resource'} {name!r} in the namespace {namespace!r}.", there, Exit.USAGE)


class Watcher:
    """Looks at one resource again and again, and so knows how fast its tables move."""

    def __init__(self, store: LocalStore, key: Key) -> None:
        self.key = key
        self._store = store
        self._rates = Rates()

    def look(self) -> Observed:
        """The resource as it is now. Raises OperatorError where it is gone."""
        resource, now = self._store.get(self.key), datetime.now(UTC)
        events = [
            Happening(event.at, event.type == "Warning", event.reason, event.message)
            for event in self._store.events(self.key)
        ]
        rates = self._rates.update(now.timestamp(), _copied(resource))
        return Observed(resource, now, events, rates, _checking(self._store.reports(self.key).values()))


def _checking(reports: Iterable[WorkerReport]) -> Checking | None:
    """What the workers that compare just now have found together."""
    found = [
        report.check
        for report in reports
        if report.task is TaskKind.CHECK and report.state is WorkerState.RUNNING and report.check
    ]
    if not found:
        return None
    rows, differences = sum(each.rows_compared for each in found), sum(each.differences.total for each in found)
    return Checking(rows, max(each.rows_total for each in found), differences)


def _copied(resource: Migration | Validation) -> dict[str, int]:
    if isinstance(resource, Validation):
        return {}
    return {table.name: table.rows_copied for table in resource.status.tables}
