"""Rows 5 to 9 of the fault matrix: two operators, dead operators, lost events, silent watches, a broken API server.

On a real API server with workers that move real rows. Nothing is skipped, nothing runs twice, and each life ends by an
independent comparison.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.api_faults import QUICK, FaultyRun
from support.churn import CHURNED, make_churned
from support.cluster_run import NAME
from support.live_run import at_least
from support.moves import Move
from support.operator_forge import Forge, forge
from whimbrel_api.migration import Phase
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
ROWS = 200
completed = at_least(Phase.COMPLETED)


@pytest.fixture(scope="module")
def maker() -> Iterator[Forge]:
    with forge() as made:
        yield made


@pytest.fixture
def run(
    maker: Forge, cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> Iterator[FaultyRun]:
    """A Migration that is not applied yet, with rows in its source; what it starts ends with the test."""
    if not cluster.pids:
        pytest.skip("a proxy needs the server certificate of a cluster that the test bed started")
    made = FaultyRun(cluster, namespace, postgres_move, mysql, mysql_database, **QUICK)
    make_churned(made, ROWS)
    with ExitStack() as stack:
        made.prepare(maker, stack)
        yield made


def test_plain(run: FaultyRun) -> None:
    import time
    operator, proxy = run.operator_behind()
    run.operator = operator
    run.apply()
    began = time.monotonic()
    operator.start()
    for phase in list(Phase)[:-1]:
        run.until(at_least(phase))
        print(phase, round(time.monotonic() - began, 2), len(proxy.log), sum(a.writes for a in proxy.log), proxy.watches)
    run.assert_sound(CHURNED)
    print(run.ledger.figures(), run.ledger.phases)
    for a in proxy.log:
        if a.writes: print(a.method, a.path.split("/")[-1][:40], a.path.split("/")[-2])
    run.kubectl("delete", "migration", NAME, "--timeout=60s")
    print("deleted", round(time.monotonic() - began, 2))
