"""Faults of workers that run as Jobs, on a real API server; each life ends by an independent comparison (fault matrix).

Whole migrations are run here; deletion stands in test_job_ends, the same faults without a cluster beside this file.
"""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.churn import CHURNED, churning, make_churned
from support.job_faults import FaultRun, FaultyNode, Json, exit_code, faulty_node, process_of, until_ended
from support.live_run import at_least
from support.moves import Move
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]
ROWS = 600
TABLES = dict.fromkeys(CHURNED, ROWS)
STREAM = {"flushInterval": "50ms"}
TARGETS = over((1, "postgres_move"), (4, "dsql_move"), (2, "postgres_move"), (3, "postgres_move"), at_least=2)


@pytest.fixture(scope="module")
def node(cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyNode]:
    if not cluster.pids:
        pytest.skip("the nodes of a cluster that the tests did not start are not cordoned, frozen or lost")
    with faulty_node(cluster, tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture
def given(node: FaultyNode) -> Iterator[FaultyNode]:
    """The node as it was, whatever the test before did to it."""
    node.give()
    yield node
    node.give()


def slow(rows_per_second: int, workers: int = 1) -> dict[str, Any]:
    return {"workers": workers, "chunkRows": 100, "rateLimit": {"rowsPerSecond": rows_per_second}}


@dataclass
class Place:
    """Where a migration runs: a cluster's namespace, a source database, either target by its fixture's name."""

    request: pytest.FixtureRequest
    cluster: KubernetesCluster
    namespace: str
    mysql: MySQLServer
    database: str

    def run(self, target: str, copy: dict[str, Any]) -> FaultRun:
        """A Migration that is not applied yet, with tables and rows in its source."""
        move: Move = self.request.getfixturevalue(target)
        made = FaultRun(self.cluster, self.namespace, move, self.mysql, self.database, snapshot=copy, stream=STREAM)
        make_churned(made, ROWS)
        return made


@pytest.fixture
def place(
    request: pytest.FixtureRequest, cluster: KubernetesCluster, namespace: str, mysql: MySQLServer, mysql_database: str
) -> Place:
    return Place(request, cluster, namespace, mysql, mysql_database)


@pytest.fixture
def run(place: Place) -> FaultRun:
    """A slow copy to PostgreSQL."""
    return place.run("postgres_move", slow(100))


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


@pytest.mark.parametrize(("seed", "target"), TARGETS)
def test_rows_1_and_2_workers_killed_around_their_commits(
    place: Place, given: FaultyNode, seed: int, target: str
) -> None:
    """The copy in silence, so that its rows can be counted; the stream under traffic, inside a transaction or after."""
    rng = random.Random(seed)
    copy, stream = (
        f"snapshot.after_commit:{rng.randint(1, 12)}",
        f"stream.{rng.choice(['before_commit', 'before_commit', 'after_commit'])}:{rng.randint(5, 25)}",
    )
    print(f"seed {seed}, {target}, {copy}, {stream}")
    run = place.run(target, {"workers": 1, "chunkRows": rng.choice([100, 150, 400])})
    given.give(WHIMBREL_FAILPOINT=copy)
    with run.begun():
        run.until_killed("snapshot")
        assert run.copied() != TABLES, "it was killed on the way"
        assert failures(run, "snapshot") == 1
        given.give(WHIMBREL_FAILPOINT=stream)
        run.until(at_least(Phase.CATCH_UP))
        assert run.copied() == TABLES, "nothing lost, nothing twice"
        with churning(run, rng):
            run.until_killed("stream")
            given.give()
            killed = run.status()
            run.until(lambda status: status.stream.changes_applied > 0 and status.stream.lag_seconds is not None)
        assert run.status().epoch == killed.epoch == 1
        run.until_equal()
        assert failures(run, "stream") == 1


def failures(run: FaultRun, task: str) -> int:
    """How many pods of a task have failed."""
    return len([pod for pod in run.pods(task) if pod["status"]["phase"] == "Failed"])


@pytest.mark.parametrize("seed", over(1, 2))
def test_row_4_zombies_are_fenced_out(run: FaultRun, given: FaultyNode, seed: int) -> None:
    """Worker and node fall asleep together, the cluster gives the pod up, a successor works, and both wake up again."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    with run.begun(), churning(run, rng) as stop:
        first = rng.randint(1, 4)
        run.until_true(lambda: bool(run.pods("snapshot")) and run.chunks_done() >= first, "it copies")
        with succeeded(run, given, "snapshot") as zombie:
            done = run.chunks_done()
            run.until_true(lambda: run.chunks_done() > done, "the successor copies")
            assert run.move.look("SELECT 1 FROM whimbrel.chunks WHERE state <> 'done' LIMIT 1"), "there is more to copy"
            wakes_up_fenced(given, zombie)
        run.patch(snapshot={"rateLimit": {"rowsPerSecond": 50_000}})
        run.until(following)
        with succeeded(run, given, "stream") as zombie:
            applied = run.status().stream.changes_applied
            run.until(lambda status: following(status) and status.stream.changes_applied > applied)
            wakes_up_fenced(given, zombie)
        stop.set()
        run.until_equal()
        assert run.status().epoch == 1


def completed(status: MigrationStatus) -> bool:
    return status.phase is Phase.COMPLETED


def following(status: MigrationStatus) -> bool:
    return at_least(Phase.FOLLOWING)(status) and status.stream.lag_seconds is not None


@contextmanager
def succeeded(run: FaultRun, node: FaultyNode, task: str) -> Iterator[Json]:
    """A worker asleep together with its node, and a successor of it that runs elsewhere."""
    pod = run.until_running(task)
    assert pod["spec"]["nodeName"] == node.name
    os.kill(process_of(pod), signal.SIGSTOP)
    node.freeze()
    try:
        node.is_passed_over()
        run.give_up(pod)
        run.until_running(task, but=pod["metadata"]["uid"])
        yield pod
    finally:
        node.thaw()
        node.receives()


def wakes_up_fenced(node: FaultyNode, pod: Json) -> None:
    process = process_of(pod)
    os.kill(process, signal.SIGCONT)
    until_ended(process)
    assert exit_code(process) == ExitCode.FENCED_OUT, node.worker_log(pod)
    assert "FencedOut" in node.worker_log(pod)


def test_a_lost_node_is_told_and_its_work_goes_on_elsewhere(
    run: FaultRun, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    """No successor comes as long as the cluster believes in the node; the status says so, and what helps."""
    with faulty_node(cluster, tmp_path) as lost, run.begun(), churning(run, random.Random(7)) as stop:
        pod = run.until_running("snapshot")
        run.until_true(lambda: run.chunks_done() >= 1, "it copies")
        lost.stop(signal.SIGKILL)
        lost.is_passed_over()
        run.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=1", "--wait=false")
        said = message(run.until(lambda status: "does not end" in message(status)))
        print(said)
        assert f"kubectl delete node {lost.name}" in said
        assert run.status().phase is Phase.SNAPSHOT
        lost.is_given_up()
        run.until_running("snapshot", but=pod["metadata"]["uid"])
        run.patch(snapshot={"rateLimit": {"rowsPerSecond": 50_000}})
        run.until(lambda status: following(status) and "does not end" not in message(status))
        stop.set()
        run.until_equal()
        assert run.status().epoch == 1


def message(status: MigrationStatus) -> str:
    return next((each.message for each in status.conditions if each.type == "Reconciling"), "")


PHASES = (Phase.PREFLIGHT, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER)
WIPED = ({"op": "remove", "path": "/status"},)


def hands(old: dict[str, Any]) -> dict[str, tuple[Json, ...]]:
    """What may be done to a status by hand, as JSON patches; `old` is one of an earlier phase."""
    return {
        "wiped": WIPED,
        "emptied": ({"op": "add", "path": "/status", "value": {}},),
        "rewound": ({"op": "add", "path": "/status", "value": old},),
        "set back": ({"op": "add", "path": "/status/phase", "value": "Preflight"},),
        "forged as completed": (
            {"op": "add", "path": "/status/phase", "value": "Completed"},
            {"op": "add", "path": "/status/progress", "value": "100%"},
        ),
        "forged as switched": ({"op": "add", "path": "/status/cutover", "value": {"state": "Switched"}},),
    }


@pytest.mark.parametrize(("seed", "target"), over((1, "postgres_move"), (2, "dsql_move"), (3, "postgres_move")))
def test_row_10_a_status_wiped_rewound_or_forged_in_every_phase(place: Place, seed: int, target: str) -> None:
    rng, run = random.Random(seed), place.run(target, slow(600, workers=2))
    print(f"seed {seed}, {target}")
    old: dict[str, Any] = {}
    with run.begun(), churning(run, rng) as stop:
        for phase in PHASES:
            if phase is Phase.CUTTING_OVER:
                run.until(awaiting)
                run.approve()
            run.until(at_least(phase))
            old = old or run.resource()["status"]
            hand = rng.choice(list(hands(old)))
            print(f"{phase.value}: {hand}")
            tampered(run, hands(old)[hand], phase)
        stop.set()
        run.until(completed)
        assert run.differences(CHURNED) == []
        known, epoch = run.began(), run.status().epoch
        for hand in ("wiped", "rewound"):
            run.tamper(*hands(old)[hand])
            status = run.until(completed)
            assert (run.began(), status.epoch) == (known, epoch), "begun anew"
    assert run.differences(CHURNED) == []


def tampered(run: FaultRun, hand: tuple[Json, ...], phase: Phase) -> None:
    """Lay hands on the status, and wait until it shows again what the target knows."""
    begun = phase is not Phase.PREFLIGHT
    done, known, epoch = (run.chunks_done(), run.began(), run.status().epoch) if begun else (0, [], 0)
    run.tamper(*hand)
    before = run.resource()["metadata"]["resourceVersion"]
    run.until_true(lambda: run.resource()["metadata"]["resourceVersion"] != before, "the operator writes a status")
    if not begun:
        return

    def rebuilt(status: MigrationStatus) -> bool:
        over = phase is not Phase.CUTTING_OVER and status.phase is Phase.COMPLETED
        return at_least(phase)(status) and not over and status.epoch == epoch

    run.until(rebuilt)
    assert run.began() == known, "the target is not begun anew"
    assert run.chunks_done() >= done, "no chunk that was done is copied again"
