"""Items on a real cluster: DynamoDB to PolarDB from apply to Completed, with workers that die on the way."""

import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from support.cluster_run import NAME, MigrationRun
from support.item_faults import working
from support.item_moves import ItemMove, fill
from support.job_faults import KILLED, Json, process_of, state_of
from support.live_run import at_least
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
ITEMS = 300
SLOW_COPY = {"workers": 2, "chunkRows": 100, "rateLimit": {"rowsPerSecond": 20}}
GATES = {"lag": "30s", "samples": 1}


@pytest.fixture
def run(cluster: KubernetesCluster, namespace: str, moving: ItemMove) -> Iterator[MigrationRun]:
    """A Migration of two pods a task that is not applied yet."""
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start are no processes of this machine")
    made = MigrationRun(cluster, namespace, moving, snapshot=SLOW_COPY, stream={"workers": 2}, thresholds=GATES)
    yield made
    made.operator.stop()


@pytest.mark.parametrize("seed", over(1))
def test_from_apply_to_completed_with_a_worker_killed_in_copy_and_stream(
    run: MigrationRun, moving: ItemMove, seed: int
) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    orders, stock = (filled(moving, name, ITEMS) for name in ("orders", "stock"))
    kept = moving.table("kept", StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
    with run.begun(), working(moving, orders, seed, ITEMS, pause=0.25) as stop:
        run.until(copying)
        kill_one(run, "snapshot", rng)
        run.patch(snapshot={"rateLimit": {"rowsPerSecond": 50_000}})
        run.until(at_least(Phase.CATCH_UP))
        applied = run.until(applying).stream.changes_applied
        kill_one(run, "stream", rng)
        run.until(lambda status: status.stream.changes_applied > applied)
        run.until(awaiting)
        assert streams(moving, orders, stock, kept) == [True, True, True]
        run.approve()
        run.until(lambda status: status.cutover.state is not CutoverState.AWAITING_APPROVAL)
        stop.set()
        status = run.until(lambda status: status.phase is Phase.COMPLETED)
        assert status.cutover.state is CutoverState.SWITCHED
        assert status.epoch == 2
        assert moving.differences(orders, stock, kept) == []
        assert streams(moving, orders, stock, kept) == [False, False, True], "only those enabled here are put back"
        assert shown(run) == [
            NAME, "Completed", "100%", moving.origin.endpoint, moving.goal.endpoint,
            str(status.snapshot.rows_copied), "Switched", "2",
        ]  # fmt: skip
        run.kubectl("delete", "migration", NAME, "--timeout=60s")
        run.until_nothing_is_left()


def filled(move: ItemMove, name: str, count: int) -> str:
    """A table of the source with so many items."""
    table = move.table(name)
    fill(move.origin, table, range(count))
    return table


def copying(status: MigrationStatus) -> bool:
    return status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0


def applying(status: MigrationStatus) -> bool:
    return at_least(Phase.CATCH_UP)(status) and status.stream.changes_applied > 0


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def kill_one(run: MigrationRun, task: str, rng: random.Random) -> None:
    """As the kernel does when a pod takes too much memory; the other pod of the task goes on, a new one takes over."""
    victim = rng.choice(until_two_run(run, task))
    os.kill(process_of(victim), signal.SIGKILL)
    uid = victim["metadata"]["uid"]

    def killed() -> bool:
        ended = [state_of(pod).get("terminated", {}) for pod in pods(run, task) if pod["metadata"]["uid"] == uid]
        return [each.get("exitCode") for each in ended] == [KILLED]

    run.until_true(killed, f"the pod of {task} is killed")


def until_two_run(run: MigrationRun, task: str) -> list[Json]:
    def running() -> list[Json]:
        return [pod for pod in pods(run, task) if "running" in state_of(pod)]

    run.until_true(lambda: len(running()) == 2, f"two pods of {task} run")
    return running()


def pods(run: MigrationRun, task: str) -> list[Json]:
    return [pod for pod in run.items("pods") if pod["metadata"]["labels"].get("whimbrel.dev/task") == task]


def streams(move: ItemMove, *tables: str) -> list[bool]:
    """Which of the source's tables have a stream."""
    client = client_of(move.origin)
    told: list[dict[str, Any]] = [client.describe_table(TableName=table)["Table"] for table in tables]
    return [bool(table.get("StreamSpecification", {}).get("StreamEnabled")) for table in told]


def shown(run: MigrationRun) -> list[str]:
    """The cells that kubectl shows of the Migration and that are not empty, without its age."""
    line = run.kubectl("get", "mig", NAME, "-o", "wide", "--no-headers")
    print(line)
    name, phase, progress, _, *rest = line.split()
    return [name, phase, progress, *rest]
