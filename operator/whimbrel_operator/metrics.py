"""Figures for Prometheus, in a registry of their own. What they mean is said beside each; nothing is served here."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whimbrel_api.migration import MigrationStatus
from whimbrel_api.reverse_sync import ReverseSyncStatus
from whimbrel_api.validation import ValidationStatus
from whimbrel_operator.domain.conditions import is_true
from whimbrel_operator.runtime.port import Key

AnyStatus = MigrationStatus | ValidationStatus | ReverseSyncStatus
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All figures of one process. Labels are names of resources and small fixed sets: no message, no error text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._resources = _Resources()
        self.registry.register(self._resources)
        self._seconds = Histogram(
            "whimbrel_reconcile_seconds", "Seconds that a pass over a resource took.", ["kind"], buckets=_BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self._errors = Counter(
            "whimbrel_reconcile_errors", "Passes that failed, by what went wrong.", ["kind", "error"],
            registry=self.registry,
        )  # fmt: skip
        self._leader = Gauge("whimbrel_leader", "1 while this process holds the Lease.", registry=self.registry)

    def took(self, kind: str, seconds: float) -> None:
        """A pass has ended."""
        self._seconds.labels(kind).observe(seconds)

    def failed(self, kind: str, error: str) -> None:
        """A pass has failed; `error` is a word of a small set."""
        self._errors.labels(kind, error).inc()

    def leads(self, leads: bool) -> None:
        """Whether this process holds the Lease. One that does not speaks of no resource."""
        self._leader.set(1 if leads else 0)
        if not leads:
            self._resources.known.clear()

    def seen(self, key: Key, status: AnyStatus) -> None:
        """What a pass has decided for a resource."""
        self._resources.known[key] = status

    def forget(self, key: Key) -> None:
        """A resource is gone; its series end."""
        self._resources.known.pop(key, None)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Resources(Collector):
    """Series of the resources that there are now, made anew for each scrape."""

    def __init__(self) -> None:
        self.known: dict[Key, AnyStatus] = {}

    def collect(self) -> Iterable[Metric]:
        """Every family, also one without samples."""
        migrations = [(_names(key), each) for key, each in self.known.items() if isinstance(each, MigrationStatus)]
        validations = [(_names(key), each) for key, each in self.known.items() if isinstance(each, ValidationStatus)]
        yield from _phases(migrations)
        yield from _figures(migrations)
        yield from _comparisons(validations)
        yield from _ways_back(
            [(_names(key), each) for key, each in self.known.items() if isinstance(each, ReverseSyncStatus)]
        )
        yield _stalled(self.known)


def _names(key: Key) -> list[str]:
    return [key.namespace, key.name]


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"whimbrel_{name}", text, labels=["namespace", "name", *labels])


def _phases(migrations: Iterable[tuple[list[str], MigrationStatus]]) -> Iterator[Metric]:
    phases = _family("migration_phase", "1 for the phase that the migration is in.", "phase")
    for names, status in migrations:
        phases.add_metric([*names, status.phase.value], 1)
    yield phases


def _figures(migrations: Iterable[tuple[list[str], MigrationStatus]]) -> Iterator[Metric]:
    lag = _family("migration_lag_seconds", "Age of the oldest source commit not yet in the target; absent if unknown.")
    rows = _family("migration_rows_copied", "Rows that the copy has written.")
    rate = _family("migration_rows_per_second", "Rows that the copy writes in a second.")
    changes = _family("migration_changes_applied", "Changes that the stream has applied.")
    epoch = _family("migration_epoch", "The epoch that fences workers.")
    for names, status in migrations:
        if status.stream.lag_seconds is not None:
            lag.add_metric(names, status.stream.lag_seconds)
        rows.add_metric(names, status.snapshot.rows_copied)
        rate.add_metric(names, status.snapshot.rows_per_second)
        changes.add_metric(names, status.stream.changes_applied)
        epoch.add_metric(names, status.epoch)
    yield from (lag, rows, rate, changes, epoch)


def _comparisons(validations: Iterable[tuple[list[str], ValidationStatus]]) -> Iterator[Metric]:
    found = _family("validation_differences", "Rows that differ, as the comparison stands; absent before it has begun.")
    for names, status in validations:
        if status.phase != "Pending":
            found.add_metric(names, status.differences.total)
    yield found


def _ways_back(found: Iterable[tuple[list[str], ReverseSyncStatus]]) -> Iterator[Metric]:
    phases = _family("reversesync_phase", "1 for the phase that the way back is in.", "phase")
    lag = _family("reversesync_lag_seconds", "Age of the oldest change not yet back in DynamoDB; absent if unknown.")
    kept = _family("reversesync_slot_retained_bytes", "Log that the slot holds back on PolarDB; absent if unknown.")
    active = _family("reversesync_slot_active", "1 while somebody reads the slot; absent if unknown.")
    changes = _family("reversesync_changes_applied", "Changes that were brought back to DynamoDB.")
    for names, status in found:
        phases.add_metric([*names, status.phase.value], 1)
        if status.lag_seconds is not None:
            lag.add_metric(names, status.lag_seconds)
        if status.slot.retained_bytes is not None:
            kept.add_metric(names, status.slot.retained_bytes)
        if status.slot.wal_status:
            active.add_metric(names, 1 if status.slot.active else 0)
        changes.add_metric(names, status.changes_applied)
    yield from (phases, lag, kept, active, changes)


def _stalled(known: dict[Key, AnyStatus]) -> Metric:
    family = _family("resource_stalled", "1 where a person must act, by the condition Stalled.", "kind")
    for key, status in known.items():
        family.add_metric([key.namespace, key.name, key.kind], 1 if is_true(status.conditions, "Stalled") else 0)
    return family
