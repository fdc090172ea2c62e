"""A ReverseSync on a real cluster: changes flow back from PolarDB, and nothing of it is left when it is deleted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cluster_run import WAIT_SECONDS, MigrationRun
from support.patience import eventually
from support.reverse_moves import ReverseMove, reverse_move
from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.reverse_sync import ReverseSyncStatus
from whimbrel_operator.domain.conditions import find
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
NAME, SLOT = "back", "whimbrel_cluster"
NAMES = {"slotName": SLOT, "publicationName": SLOT}


class BackRun(MigrationRun):
    """One ReverseSync `back` in a namespace of its own."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, move: ReverseMove, **spec: Any) -> None:
        super().__init__(cluster, namespace, move)
        target = {name: value for name, value in move.target["dynamodb"].items() if name != "dialect"}
        ends = {"source": move.source(), "target": {"dynamodb": target}, "tables": move.tables}
        named = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ReverseSync", "metadata": {"name": NAME}}
        self.manifest = {**named, "spec": {**ends, **NAMES, "checkpointInterval": "500ms", **spec}}

    def patch(self, **spec: Any) -> None:
        self.apply(**spec)

    def back(self) -> ReverseSyncStatus | None:
        """Its status; None once it is gone."""
        items = [each for each in self.items("reversesyncs") if each["metadata"]["name"] == NAME]
        return ReverseSyncStatus.model_validate(items[0].get("status", {})) if items else None

    def ready(self) -> tuple[str, str]:
        status = self.back()
        found = find(status.conditions, "Ready") if status is not None else None
        return (found.status, found.reason) if found is not None else ("", "")

    def is_ready(self, status: str, reason: str) -> None:
        eventually(lambda: self.ready() == (status, reason), self.told, seconds=WAIT_SECONDS)

    def told(self) -> object:
        return [self.back(), self.kubectl("get", "pods,jobs,workerreports"), self.operator.log()]

    def events(self) -> list[tuple[str, str]]:
        """Reason and text of each event about the ReverseSync."""
        return [
            (each.get("reason", ""), each.get("message", ""))
            for each in self.items("events")
            if each.get("involvedObject", {}).get("kind") == "ReverseSync"
        ]


@pytest.fixture
def move(tmp_path: Path, polardb: PolarDBServer, dynamodb: DynamoDBServer) -> Iterator[ReverseMove]:
    with reverse_move(tmp_path, polardb, dynamodb, reverse=NAMES) as made:
        yield made


@contextmanager
def begun(
    cluster: KubernetesCluster, namespace: str, move: ReverseMove, *, lease: str = "", **spec: Any
) -> Iterator[BackRun]:
    """`lease`: the operator's own namespace, where it is another one."""
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start cannot reach this machine's servers")
    made = BackRun(cluster, namespace, move, **spec)
    made.operator.environment["WHIMBREL_NAMESPACE"] = lease or namespace
    with made.begun() as run:
        yield run


def test_from_apply_over_a_pause_to_its_end(cluster: KubernetesCluster, namespace: str, move: ReverseMove) -> None:
    table = move.table()
    application = move.application(table, random.Random(3))
    with begun(cluster, namespace, move) as run:
        run.is_ready("True", "Streaming")
        application.change(100)
        eventually(lambda: move.differences(table) == [], run.told, seconds=WAIT_SECONDS)
        eventually(lambda: "whimbrel_reversesync_slot_retained_bytes{" in run.operator.probe("/metrics")[1], run.told)
        run.patch(paused=True)
        run.is_ready("False", "Paused")
        assert move.slots() == [SLOT]
        run.patch(paused=False)
        run.is_ready("True", "Streaming")
        run.kubectl("delete", "reversesync", NAME, "--timeout=60s")
        assert (move.slots(), SLOT in move.publications()) == ([], False)
        run.until_nothing_is_left()


def test_its_slot_is_taken_away_though_its_worker_is_gone(
    cluster: KubernetesCluster, namespace: str, move: ReverseMove
) -> None:
    move.table()
    with begun(cluster, namespace, move) as run:
        run.is_ready("True", "Streaming")
        run.operator.stop()
        run.kubectl("delete", "jobs", "--all", "--timeout=60s")
        assert move.slots() == [SLOT]
        run.kubectl("delete", "reversesync", NAME, "--wait=false")
        run.operator.start()
        eventually(lambda: run.back() is None, run.told, seconds=WAIT_SECONDS)
        assert (move.slots(), SLOT in move.publications()) == ([], False)


def test_a_server_that_lets_nobody_in_holds_it_until_a_person_lets_it_go(
    cluster: KubernetesCluster, namespace: str, move: ReverseMove
) -> None:
    closed = move.source()
    closed["polardb"]["credentialsSecretRef"] = {"name": "not-there"}
    with begun(cluster, namespace, move, source=closed) as run:
        run.is_ready("False", "ConfigurationError")
        run.kubectl("delete", "reversesync", NAME, "--wait=false")
        run.is_ready("False", "NotDisarmed")
        told = eventually(lambda: [text for reason, text in run.events() if reason == "NotDisarmed"], run.told)
        assert f"SELECT pg_drop_replication_slot('{SLOT}')" in told[0]
        run.patch(cleanup={"dropSlot": False, "dropPublication": False})
        eventually(lambda: run.back() is None, run.told, seconds=WAIT_SECONDS)
        run.until_nothing_is_left()


def test_a_namespace_that_is_deleted_does_not_wait_for_it_for_ever(
    cluster: KubernetesCluster, namespace: str, move: ReverseMove
) -> None:
    """The pods go with the namespace, so the slot may stay: the operator's log says how to drop it."""
    move.table()
    inner = f"{namespace}-b"
    cluster.kubectl("create", "namespace", inner)
    with begun(cluster, inner, move, lease=namespace) as run:
        run.is_ready("True", "Streaming")
        cluster.kubectl("delete", "namespace", inner, "--timeout=150s", timeout=160)
        told = f"SELECT pg_drop_replication_slot('{SLOT}')" in run.operator.log_file.read_text()
        assert told or move.slots() == []
