"""A cutover with a way back on a real cluster, under the chart's own rights: there, back and what is left of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from support.chart_account import chart_account, signed_in
from support.cluster_run import NAME
from support.cluster_ways_back import WayBackRun, awaiting
from support.item_faults import Application
from support.item_moves import ItemMove, fill
from support.patience import eventually
from whimbrel_api.migration import CutoverState, Phase
from whimbrel_cli.main import invoke
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = [pytest.mark.timeout(280), pytest.mark.slow]
ITEMS = 120


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, moving: ItemMove, polardb: PolarDBServer
) -> Iterator[WayBackRun]:
    """A Migration that is not applied yet, and an operator that signs in with the chart's rights."""
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start are no processes of this machine")
    made = WayBackRun(cluster, namespace, moving, polardb)
    token = chart_account(made.kubectl, namespace)
    kubeconfig = signed_in(cluster.kubeconfig, token, moving.directory / "operator-access")
    made.operator.environment["KUBECONFIG"] = str(kubeconfig)
    yield made
    made.operator.stop()
    made.clean_server()


def test_there_and_back(run: WayBackRun, moving: ItemMove, cluster: KubernetesCluster) -> None:
    table, rng = moving.table("orders"), random.Random(7)
    fill(moving.origin, table, range(ITEMS))
    with run.begun():
        run.until(awaiting)
        assert run.said("ReverseSyncReady")[0] == "True"
        assert (run.back(), run.slots()) == (None, [])
        run.approve()
        run.until_state(CutoverState.ARMING_REVERSE)
        run.until_state(CutoverState.SWITCHED)
        made = run.back_object()
        assert made is not None
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (run.resource()["metadata"]["uid"], True)
        assert made["spec"]["migrationRef"] == {"name": NAME}
        assert moving.differences(table) == []
        Application(moving.goal, table, rng, ITEMS).change(150)
        run.until_equal(table)
        run.until_ready()
        assert len(run.slots()) == 1
        told = ("--kubeconfig", str(cluster.kubeconfig), "rollback", NAME, "-n", run.namespace, "--yes")
        assert invoke(told) == 0
        run.until_state(CutoverState.ROLLED_BACK)
        assert moving.differences(table) == []
        Application(moving.origin, table, rng, ITEMS).change(150)
        eventually(lambda: run.back() is None, run.told)
        run.until_server_is_clean()
        run.until_equal(table)
        status = run.until(lambda status: status.phase is Phase.FOLLOWING)
        assert (status.plan.attempt, status.cutover.state) == (2, CutoverState.ROLLED_BACK)
