"""A real Prometheus beside an operator on a real cluster, while a migration runs from its start to its cutover.

Each panel's query is answered at the time at which it has something to tell, and its answers are what really happened.
"""

import json
import random
from collections.abc import Iterator

import pytest

from support.churn import churning, make_churned
from support.cluster_run import NAME, ClusterRun
from support.live_run import at_least
from support.moves import Move
from support.panels import Answers, queries_of
from support.patience import eventually
from whimbrel_api.base import API_VERSION
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.figures import dashboard
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.prometheus import PrometheusServer, prometheus_server

pytestmark = pytest.mark.timeout(300)
ROWS = 1500
COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 400}}
OF_A_WAY_BACK = {"Log held back by the slot", "Lag of the way back"}
ONLY_WHEN_WRONG = {"A person must act", "Passes that failed"}
"""Both are answered in test_way_back_on_cluster.py: this pair has no way back, and here nothing goes wrong."""
ANSWERED_HERE = {title for title, _ in dashboard.queries()} - OF_A_WAY_BACK - ONLY_WHEN_WRONG
VALIDATION = {
    "apiVersion": API_VERSION,
    "kind": "Validation",
    "metadata": {"name": "again"},
    "spec": {"migrationRef": {"name": NAME}, "rateLimit": {"rowsPerSecond": 300}},
}
"""Slow enough to be scraped more than once while it compares."""


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


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def test_each_panel_is_answered_during_a_migration(run: ClusterRun) -> None:
    with run.begun(), prometheus_server([f"127.0.0.1:{run.operator.port}"]) as prometheus:
        answers = Answers(prometheus, queries_of(ANSWERED_HERE))

        def asked(holds: bool) -> bool:
            answers.ask()
            return holds

        with churning(run, random.Random(7), ROWS):
            run.until(lambda status: asked(at_least(Phase.FOLLOWING)(status)))
            run.until(lambda status: asked(awaiting(status)))
            run.kubectl("apply", "-f", "-", input=json.dumps(VALIDATION))
            eventually(answers.ask, lambda: f"no answer yet: {answers.open}\n{run.story()}")
        written = one(prometheus, 'sum(whimbrel_worker_rows_written_total{task="snapshot"})')
        assert written >= run.status().snapshot.rows_copied > 0
        assert one(prometheus, "whimbrel_migration_epoch") == run.status().epoch


def one(prometheus: PrometheusServer, expr: str) -> float:
    (found,) = prometheus.query(expr)
    return float(found["value"][1])
