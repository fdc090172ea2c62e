"""A cutover with a way back on a real cluster, under the chart's own rights: there, back and what is left of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from support.api_faults import LEASE
from support.chart_account import ACCOUNT, chart_account, chart_rules, grant, signed_in, without
from support.cluster_run import NAME
from support.cluster_ways_back import CUTOVER_SECONDS, WayBackRun, awaiting
from support.item_faults import Application
from support.item_moves import ItemMove, fill
from support.panels import Answers, queries_of
from support.patience import eventually
from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.reverse_sync import ReverseSyncPhase
from whimbrel_cli.main import invoke
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_testbed.prometheus import prometheus_server

pytestmark = [pytest.mark.timeout(700), pytest.mark.slow]
ITEMS = 120
GATE = "ReverseSyncReady"


@contextmanager
def prepared(
    cluster: KubernetesCluster, namespace: str, moving: ItemMove, polardb: PolarDBServer, own: str = ""
) -> Iterator[WayBackRun]:
    """A Migration that is not applied yet, and an operator that signs in with the chart's rights.

    `own`: the operator's namespace, where it is another one.
    """
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start are no processes of this machine")
    made = WayBackRun(cluster, namespace, moving, polardb)
    token = chart_account(partial(cluster.kubectl, "-n", own or namespace), own or namespace)
    kubeconfig = signed_in(cluster.kubeconfig, token, moving.directory / "operator-access")
    made.operator.environment |= {"KUBECONFIG": str(kubeconfig), "WHIMBREL_NAMESPACE": own or namespace, **LEASE}
    try:
        yield made
    finally:
        made.operator.stop()
        made.clean_server()


@pytest.fixture
def run(cluster: KubernetesCluster, namespace: str, moving: ItemMove, polardb: PolarDBServer) -> Iterator[WayBackRun]:
    """In the test's namespace."""
    with prepared(cluster, namespace, moving, polardb) as made:
        yield made


def filled(moving: ItemMove) -> str:
    """A table of the source with items."""
    table = moving.table("orders")
    fill(moving.origin, table, range(ITEMS))
    return table


def test_there_and_back(run: WayBackRun, moving: ItemMove, cluster: KubernetesCluster) -> None:
    table, rng = filled(moving), random.Random(7)
    with run.begun():
        run.until(awaiting, CUTOVER_SECONDS)
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
        shown(run, {"Log held back by the slot", "Lag of the way back"})
        told = ("--kubeconfig", str(cluster.kubeconfig), "rollback", NAME, "-n", run.namespace, "--yes")
        assert invoke(told) == 0
        run.until_state(CutoverState.ROLLED_BACK)
        assert moving.differences(table) == []
        Application(moving.origin, table, rng, ITEMS).change(150)
        eventually(lambda: run.back() is None, run.told)
        run.until_server_is_clean()
        run.until_equal(table)
        status = run.until(lambda status: status.phase is Phase.FOLLOWING, CUTOVER_SECONDS)
        assert (status.plan.attempt, status.cutover.state) == (2, CutoverState.ROLLED_BACK)


def shown(run: WayBackRun, panels: set[str]) -> None:
    """Panels of the dashboard have answers: a Prometheus of its own scrapes the operator as it is now."""
    with prometheus_server([f"127.0.0.1:{run.operator.port}"]) as prometheus:
        answers = Answers(prometheus, queries_of(panels))
        eventually(answers.ask, lambda: f"no answer yet: {answers.open}\n{run.told()}")


def test_what_is_in_its_way_is_named_and_a_deletion_while_it_is_armed_leaves_nothing(
    run: WayBackRun, moving: ItemMove
) -> None:
    filled(moving)
    grant(run.kubectl, run.namespace, without(chart_rules(), "reversesyncs", "create"))
    with run.begun():
        run.until(awaiting, CUTOVER_SECONDS)
        stranger(run)
        assert f"delete reversesync {NAME} -n {run.namespace}" in run.until_said(GATE, "False", "AnotherWayBack")
        run.kubectl("delete", "reversesync", NAME, "--timeout=60s")
        run.until_said(GATE, "True", "Passed")
        run.approve()
        assert "may not create reversesyncs" in run.until_said("Stalled", "True", "Forbidden")
        shown(run, {"A person must act", "Passes that failed"})
        assert run.back() is None
        with run.nothing_arms():
            grant(run.kubectl, run.namespace)
            run.until_back(lambda back: back.status.phase is ReverseSyncPhase.ARMING)
            eventually(run.slots, run.told)
            assert run.status().cutover.state is CutoverState.ARMING_REVERSE
            run.kubectl("delete", "migration", NAME, "--wait=false")
            run.until_back(lambda back: back.metadata.deletion_timestamp is not None)
        run.until_it_is_gone()


def stranger(run: WayBackRun) -> None:
    """A person's ReverseSync of the Migration's name."""
    named = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ReverseSync", "metadata": {"name": NAME}}
    run.kubectl("create", "-f", "-", input=json.dumps({**named, "spec": {"migrationRef": {"name": NAME}}}))


def test_a_namespace_deleted_after_the_switch_comes_to_its_end(
    cluster: KubernetesCluster, namespace: str, moving: ItemMove, polardb: PolarDBServer
) -> None:
    """No pod can be made there any more, so the slot may stay: then the operator's log says how to drop it."""
    filled(moving)
    inner = f"{namespace}-b"
    cluster.kubectl("create", "namespace", inner)
    with prepared(cluster, inner, moving, polardb, own=namespace) as run, everywhere(cluster, namespace), run.begun():
        run.until(awaiting, CUTOVER_SECONDS)
        run.approve()
        run.until_state(CutoverState.SWITCHED)
        (slot,) = run.slots()
        cluster.kubectl("delete", "namespace", inner, "--timeout=200s", timeout=210)
        told = f"SELECT pg_drop_replication_slot('{slot}')" in run.operator.log_file.read_text()
        assert told or run.slots() == []


@contextmanager
def everywhere(cluster: KubernetesCluster, namespace: str) -> Iterator[None]:
    """The account of that namespace has the chart's rights in all: a Role goes with its namespace."""
    name = f"{ACCOUNT}-{namespace}"
    rules = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": chart_rules()}
    cluster.kubectl("create", "-f", "-", input=json.dumps({**rules, "metadata": {"name": name}}))
    who = f"--serviceaccount={namespace}:{ACCOUNT}"
    cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", who)
    try:
        yield
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", name)
