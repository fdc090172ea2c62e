"""Faults of workers that run as Jobs, on a real API server; each life ends by an independent comparison (fault matrix).

Whole migrations are run here; deletion stands in test_job_ends, the same faults without a cluster beside this file.
"""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.churn import CHURNED, churning, make_churned
from support.job_faults import FaultRun, FaultyNode, Json, exit_code, faulty_node, process_of, until_ended
from support.live_run import at_least
from support.moves import Move
from whimbrel_api.migration import CutoverState, MigrationStatus, Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(300)
ROWS = 600
TABLES = dict.fromkeys(CHURNED, ROWS)
STREAM = {"flushInterval": "50ms"}
TARGETS = [(1, "postgres_move"), (2, "postgres_move"), (3, "postgres_move"), (4, "dsql_move")]


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


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> FaultRun:
    """A Migration to PostgreSQL that is not applied yet, with tables and rows in its source."""
    made = FaultRun(cluster, namespace, postgres_move, mysql, mysql_database, snapshot=slow(2000), stream=STREAM)
    make_churned(made, ROWS)
    return made


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


@pytest.mark.parametrize(("seed", "target"), TARGETS)
def test_rows_1_and_2_workers_killed_around_their_commits(
    request: pytest.FixtureRequest, given: FaultyNode, cluster: KubernetesCluster, namespace: str, mysql: MySQLServer,
    mysql_database: str, seed: int, target: str,
) -> None:  # fmt: skip
    """The copy in silence, so that its rows can be counted; the stream under traffic, inside a transaction or after."""
    move, rng = request.getfixturevalue(target), random.Random(seed)
    copy, stream = (
        f"snapshot.after_commit:{rng.randint(1, 12)}",
        f"stream.{rng.choice(['before_commit', 'before_commit', 'after_commit'])}:{rng.randint(5, 25)}",
    )
    print(f"seed {seed}, {target}, {copy}, {stream}")
    copying = {"workers": 1, "chunkRows": rng.choice([100, 150, 400])}
    run = FaultRun(cluster, namespace, move, mysql, mysql_database, snapshot=copying, stream=STREAM)
    make_churned(run, ROWS)
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


@pytest.mark.parametrize("seed", [1, 2])
def test_row_4_zombies_are_fenced_out(run: FaultRun, given: FaultyNode, seed: int) -> None:
    """Worker and node fall asleep together, the cluster gives the pod up, a successor works, and both wake up again."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    run.manifest["spec"]["snapshot"] = slow(100)
    with run.begun(), churning(run, rng) as stop:
        first = rng.randint(1, 4)
        run.until_true(lambda: bool(run.pods("snapshot")) and run.chunks_done() >= first, "it copies")
        with succeeded(run, given, "snapshot") as zombie:
            done = run.chunks_done()
            run.until_true(lambda: run.chunks_done() > done, "the successor copies")
            wakes_up_fenced(given, zombie)
            assert run.chunks_done() < 3 * ROWS // 100, "it woke up while the successor copied"
        run.patch(snapshot={"rateLimit": {"rowsPerSecond": 50_000}})
        run.until(following)
        with succeeded(run, given, "stream") as zombie:
            run.until(following)
            wakes_up_fenced(given, zombie)
        stop.set()
        run.until_equal()
        assert run.status().epoch == 1


def following(status: MigrationStatus) -> bool:
    return at_least(Phase.FOLLOWING)(status) and status.stream.lag_seconds is not None


@contextmanager
def succeeded(run: FaultRun, node: FaultyNode, task: str) -> Iterator[Json]:
    """A worker asleep together with its node, and a successor of it that runs elsewhere."""
    pod = run.until_running(task)
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
