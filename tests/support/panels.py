"""The dashboard's queries as Grafana sends them, and their answers by a real Prometheus as they come one by one."""

from collections.abc import Iterable

from whimbrel_operator.figures import dashboard
from whimbrel_testbed.prometheus import PrometheusServer


def as_grafana(expr: str) -> str:
    """An expression with what Grafana puts in the place of its variables, all namespaces and names chosen."""
    filled = expr.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$name", ".*")
    assert "$" not in filled
    return filled


def queries_of(titles: Iterable[str]) -> set[tuple[str, str]]:
    """Title and expression of each query of these panels. Raises KeyError for a panel that the dashboard has not."""
    wanted = set(titles)
    found = {(title, expr) for title, expr in dashboard.queries() if title in wanted}
    if missing := wanted - {title for title, _ in found}:
        raise KeyError(f"no panel is called {', '.join(sorted(missing))}")
    return found


class Answers:
    """Queries of panels, each printed with its first answer; `open` are those without one yet."""

    def __init__(self, prometheus: PrometheusServer, queries: Iterable[tuple[str, str]]) -> None:
        self._prometheus = prometheus
        self.open = set(queries)

    def ask(self) -> bool:
        """Ask what has no answer yet; whether all have one."""
        for title, expr in sorted(self.open):
            if found := self._prometheus.query(as_grafana(expr)):
                print(f"{title}: {expr}\n    {[(each['metric'], each['value'][1]) for each in found[:3]]}")
                self.open.discard((title, expr))
        return not self.open
