"""Figures for Prometheus, in a registry of their own. What they mean stands in figures; nothing is served here."""

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whimbrel_operator.domain.observed import Observed
from whimbrel_operator.figures import catalogue
from whimbrel_operator.figures.catalogue import Figure
from whimbrel_operator.figures.resources import AnyStatus, Known, samples
from whimbrel_operator.runtime.port import Key, Observation

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All figures of one process. `clock` gives the seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        # Prometheus' text format takes a counter's start for a figure of its own.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self.registry = CollectorRegistry()
        self._resources = _Resources()
        self.registry.register(self._resources)
        seconds, errors, leader = catalogue.SECONDS, catalogue.ERRORS, catalogue.LEADER
        self._seconds = Histogram(
            seconds.name, seconds.help, seconds.labels, buckets=_BUCKETS, registry=self.registry
        )  # fmt: skip
        self._errors = Counter(errors.name, errors.help, errors.labels, registry=self.registry)
        self._leader = Gauge(leader.name, leader.help, registry=self.registry)

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

    def begins(self, key: Key) -> None:
        """A pass over a resource begins. Where none ever comes to its end, a series must be there to show that."""
        self._known(key)

    def seen(self, key: Key, status: AnyStatus, observed: Observation | None = None) -> None:
        """What a pass has decided for a resource, and from what; without that, what was seen before stays."""
        known = self._known(key)
        known.status, known.at, known.refused = status, self._clock(), False
        if isinstance(observed, Observed):
            known.spec = observed.resource.spec
        if observed is not None:
            known.tasks = observed.tasks
            known.account.look(observed.tasks)

    def refused(self, key: Key) -> None:
        """Its status says by now that it cannot be worked on until a person acts."""
        self._known(key).refused = True

    def clears(self, key: Key) -> None:
        """It is being deleted: what was known of it and its workers is so no more."""
        self._resources.known[key] = Known(self._clock())

    def cleared(self, key: Key) -> None:
        """A step of its end was taken, and something is left."""
        known = self._known(key)
        known.at, known.refused = self._clock(), False

    def forget(self, key: Key) -> None:
        """A resource is gone; its series end."""
        self._resources.known.pop(key, None)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)

    def _known(self, key: Key) -> Known:
        return self._resources.known.setdefault(key, Known(self._clock()))


class _Resources(Collector):
    """Series of the resources that there are now, made anew for each scrape."""

    def __init__(self) -> None:
        self.known: dict[Key, Known] = {}

    def collect(self) -> Iterable[Metric]:
        """Every family, also one without samples."""
        families = {figure: _family(figure) for figure in catalogue.OF_RESOURCES}
        for key, known in self.known.items():
            for figure, labels, value in samples(key.kind, known):
                families[figure].add_metric([key.namespace, key.name, *labels], value)
        return families.values()


def _family(figure: Figure) -> GaugeMetricFamily | CounterMetricFamily:
    make = CounterMetricFamily if figure.type == "counter" else GaugeMetricFamily
    return make(figure.name, figure.help, labels=figure.labels)
