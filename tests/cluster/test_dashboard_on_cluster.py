"""A real Prometheus beside an operator on a real cluster, while a migration runs from its start to its cutover.

Each panel's query is answered at the time at which it has something to tell, and its answers are what really happened.
"""

import random
from collections.abc import Iterator

import pytest

from support.churn import churning, make_churned
from support.cluster_run import ClusterRun
from support.live_run import at_least
from support.moves import Move
from support.panels import as_grafana
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.figures import dashboard
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.prometheus import PrometheusServer, prometheus_server

pytestmark = pytest.mark.timeout(300)
ROWS = 1500
COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 400}}
ELSEWHERE = {
    "Log held back by the slot", "Lag of the way back", "Rows compared a second", "Time left of comparisons",
}  # fmt: skip
"""Panels of ReverseSyncs, which this pair does not have, and of Validations, of which none is asked for here."""
ONLY_WHEN_WRONG = {"A person must act", "Passes that failed"}
ONLY_WITH_A_PERIOD = {"Time until the source's log ends"}


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> Iterator[ClusterRun]:
    made = ClusterRun(
        cluster, namespace, postgres_move, mysql, mysql_database, snapshot=COPY, stream={"flushInterval": "50ms"}
    )
    make_churned(made, ROWS)
    yield made
    made.operator.stop()


class Answers:
    """The panels that have been answered so far, each query with its first answer."""

    def __init__(self, prometheus: PrometheusServer) -> None:
        self._prometheus = prometheus
        self.open = {
            (title, expr)
            for title, expr in dashboard.queries()
            if title not in ELSEWHERE | ONLY_WHEN_WRONG | ONLY_WITH_A_PERIOD
            and "whimbrel_validation_differences" not in expr
        }

    def ask(self) -> bool:
        """Ask what has no answer yet; whether all have one."""
        for title, expr in sorted(self.open):
            if found := self._prometheus.query(as_grafana(expr)):
                print(f"{title}: {expr}\n    {[(each['metric'], each['value'][1]) for each in found[:3]]}")
                self.open.discard((title, expr))
        return not self.open


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def test_each_panel_is_answered_during_a_migration(run: ClusterRun) -> None:
    with run.begun(), prometheus_server([f"127.0.0.1:{run.operator.port}"]) as prometheus:
        answers = Answers(prometheus)

        def asked(holds: bool) -> bool:
            answers.ask()
            return holds

        with churning(run, random.Random(7), ROWS):
            run.until(lambda status: asked(at_least(Phase.FOLLOWING)(status)))
            run.until(lambda status: asked(awaiting(status)))
            eventually(answers.ask, lambda: f"no answer yet: {answers.open}\n{run.story()}")
        written = one(prometheus, 'sum(whimbrel_worker_rows_written_total{task="snapshot"})')
        assert written >= run.status().snapshot.rows_copied > 0
        assert one(prometheus, "whimbrel_migration_epoch") == run.status().epoch


def one(prometheus: PrometheusServer, expr: str) -> float:
    (found,) = prometheus.query(expr)
    return float(found["value"][1])
