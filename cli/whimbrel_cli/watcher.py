"""Looking at one resource again and again, wherever it is kept. The places themselves stand in places."""

from collections.abc import Iterable
from datetime import UTC, datetime

from whimbrel_api.migration import Migration
from whimbrel_api.reports import WorkerReport, WorkerState
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import TaskKind
from whimbrel_cli.guidance import LOCAL, Caller, Resource
from whimbrel_cli.observed import Checking, Happening, Lags, Observed, Rates
from whimbrel_operator.errors import Forbidden, NotFound
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.resources import Resources


class Watcher:
    """Looks at one resource again and again, and so knows how fast its tables move and how its lag went."""

    def __init__(self, store: Resources, key: Key, caller: Caller = LOCAL) -> None:
        self.key = key
        self._caller = caller
        self._store = store
        self._rates = Rates()
        self._lags = Lags()

    def look(self) -> Observed:
        """The resource as it is now. Raises OperatorError where it is gone."""
        resource, now = self._store.get(self.key), datetime.now(UTC)
        events = sorted([*self._happened(self.key), *self._of_its_way_back(resource)], key=lambda each: each.at)
        rates = self._rates.update(now.timestamp(), _copied(resource))
        checking = _checking(self._store.reports(self.key).values())
        return Observed(resource, now, events, rates, checking, self._caller, self._lags.update(*_lag(resource)))

    def _happened(self, key: Key, whose: str = "") -> list[Happening]:
        return [
            Happening(event.at, event.type == "Warning", event.reason, f"{whose}{event.message}")
            for event in self._store.events(key)
        ]

    def _of_its_way_back(self, resource: Resource) -> list[Happening]:
        """What happened to the ReverseSync of a Migration's own: nobody gave that one to `whimbrel run`."""
        if not isinstance(resource, Migration) or not resource.spec.reverse_sync.enabled:
            return []
        key = Key(self.key.namespace, "ReverseSync", self.key.name)
        try:
            own = self._store.get(key).metadata.belongs_to(resource.metadata.uid)
            return self._happened(key, f"ReverseSync {key.name}: ") if own else []
        except (NotFound, Forbidden):
            return []


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
    return Checking(rows, sum(each.rows_total for each in found), differences)


def _lag(resource: Resource) -> tuple[datetime | None, float | None]:
    """When the lag was observed, and how long it was; None while nothing is followed."""
    if isinstance(resource, Migration):
        return resource.status.stream.lag_observed_at, resource.status.stream.lag_seconds
    if isinstance(resource, ReverseSync):
        return resource.status.lag_observed_at, resource.status.lag_seconds
    return None, None


def _copied(resource: Resource) -> dict[str, int]:
    if not isinstance(resource, Migration):
        return {}
    return {table.name: table.rows_copied for table in resource.status.tables}
