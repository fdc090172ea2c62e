"""A migration's life on a real cluster: from apply to Completed, and what people and machines do to it on the way."""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.churn import CHURNED, churning, make_churned
from support.cluster_run import NAME, ClusterRun
from support.live_run import at_least
from support.moves import Move
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(300)
ROWS = 1500
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 400}}
CRAWLING_COPY = {"workers": 2, "chunkRows": 100, "rateLimit": {"rowsPerSecond": 120}}
QUICK_COPY = {"workers": 2, "chunkRows": 500}
STREAM = {"flushInterval": "50ms"}


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> Iterator[ClusterRun]:
    """A Migration that is not applied yet, with tables and rows in its source."""
    made = ClusterRun(cluster, namespace, postgres_move, mysql, mysql_database, snapshot=SLOW_COPY, stream=STREAM)
    make_churned(made, ROWS)
    yield made
    made.operator.stop()


def copying(status: MigrationStatus) -> bool:
    return status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def completed(status: MigrationStatus) -> bool:
    return status.phase is Phase.COMPLETED


def condition(status: MigrationStatus, kind: str) -> str:
    return next((each.status for each in status.conditions if each.type == kind), "absent")


def readers(run: ClusterRun) -> int:
    """How many connections of the migration's account the source has; one that ends is seen a moment later."""
    with closing(run.mysql.connect()) as connection, connection.cursor() as cursor:
        told = "SELECT count(*) FROM information_schema.processlist WHERE user = %s"
        deadline = time.monotonic() + 10
        while True:
            cursor.execute(told, (run.mysql.migration.user,))
            (found,) = cursor.fetchone() or (0,)
            if not found or time.monotonic() > deadline:
                return int(found)
            time.sleep(0.1)


@pytest.mark.parametrize("seed", over(1, 2))
def test_from_apply_to_completed_with_the_operator_killed_on_the_way(run: ClusterRun, seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    moments = {"copying": copying, "catching up": at_least(Phase.CATCH_UP), "awaiting approval": awaiting}
    killed = {name for name in moments if rng.random() < 0.7}
    print(f"killed while {sorted(killed)}")
    with run.begun(), churning(run, rng, ROWS) as stop:
        for name, moment in moments.items():
            run.until(moment)
            if name in killed:
                run.operator.kill()
                run.operator.start()
        run.until(awaiting)
        run.approve()
        run.until(at_least(Phase.CUTTING_OVER))
        stop.set()
        run.operator.kill()
        run.operator.start()
        status = run.until(completed)
        assert status.cutover.state is CutoverState.SWITCHED
        assert condition(status, "Succeeded") == "True"
        assert run.differences(CHURNED) == []
        run.until_true(
            lambda: {"Switched", "SnapshotComplete"} <= {reason for reason, _ in run.events()}, "its events are there"
        )
        assert [each for each in run.left() if each.startswith(("Job", "Pod"))] == []
        run.kubectl("delete", "migration", NAME, "--timeout=60s")
        run.until_nothing_is_left()
    assert readers(run) == 0


@pytest.mark.parametrize(
    "phase", [Phase.PREFLIGHT, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER]
)
def test_deleting_it_in_any_phase_leaves_nothing_that_runs(run: ClusterRun, phase: Phase) -> None:
    if phase not in (Phase.PREFLIGHT, Phase.SNAPSHOT):
        run.manifest["spec"]["snapshot"] = QUICK_COPY
    with run.begun(), churning(run, random.Random(3), ROWS):
        if phase is Phase.CUTTING_OVER:
            run.until(awaiting)
            run.approve()
        run.until(at_least(phase))
        run.kubectl("delete", "migration", NAME, "--timeout=80s")
        run.until_nothing_is_left()
        assert readers(run) == 0
        assert run.kubectl("get", "migrations", "-o", "name") == ""


def test_deleting_its_namespace_leaves_nothing_that_runs(run: ClusterRun) -> None:
    """The operator's Lease stands elsewhere: one that loses its own namespace can clear nothing up any more."""
    run.operator.environment = {"WHIMBREL_NAMESPACE": "default"}
    with run.begun():
        run.until(copying)
        run.cluster.kubectl("delete", "namespace", run.namespace, "--timeout=80s", timeout=100)
        assert readers(run) == 0
    run.cluster.kubectl("create", "namespace", run.namespace)


def test_deleted_while_no_operator_runs_it_ends_its_workers_and_goes_when_one_is_back(run: ClusterRun) -> None:
    with run.begun():
        run.until(copying)
        run.operator.kill()
        run.kubectl("delete", "migration", NAME, "--wait=false")
        run.operator.start()
        run.until_nothing_is_left()
    assert readers(run) == 0


def test_made_again_under_its_name_it_resumes_from_the_target(run: ClusterRun) -> None:
    with run.begun():
        run.until(at_least(Phase.CATCH_UP))
        run.kubectl("delete", "migration", NAME, "--timeout=60s")
        run.execute("DELETE FROM words WHERE id < 'w5'")
        run.apply()
        status = run.until(awaiting)
        assert status.epoch == 1
        assert run.move.look("SELECT count(*) FROM whimbrel.migrations") == [(1,)]
    assert run.differences(CHURNED) == []


def test_paused_and_resumed_and_edited_in_flight(run: ClusterRun) -> None:
    run.manifest["spec"]["snapshot"] = CRAWLING_COPY
    with run.begun(), churning(run, random.Random(4), ROWS):
        run.until(copying)
        run.patch(paused=True)
        run.until(lambda status: condition(status, "Paused") == "True")
        run.until_no_job_runs()
        held = run.status()
        assert held.phase is Phase.SNAPSHOT
        run.patch(paused=False, snapshot={"workers": 3, "rateLimit": {"rowsPerSecond": 300}})
        run.until(lambda status: status.snapshot.rows_copied > held.snapshot.rows_copied)
        run.patch(snapshot={"workers": 1, "rateLimit": {"rowsPerSecond": 50_000}}, thresholds={"lag": "4s"})
        status = run.until(awaiting)
        assert status.epoch == held.epoch == 1
        assert status.observed_generation == run.resource()["metadata"]["generation"]
    assert run.differences(CHURNED) == []


def test_the_api_server_goes_away_and_comes_back(run: ClusterRun) -> None:
    run.manifest["spec"]["snapshot"] = CRAWLING_COPY
    with run.begun(), churning(run, random.Random(5), ROWS) as stop:
        run.until(copying)
        left = "SELECT count(*) FROM whimbrel.chunks WHERE state <> 'done'"
        run.cluster.stop_api_server()
        try:
            assert run.move.look(left) != [(0,)]
            run.until_target(left, [(0,)])
        finally:
            run.cluster.start_api_server()
        run.operator.stop()
        run.operator.start()
        run.until(awaiting)
        stop.set()
        run.approve()
        run.until(completed)
    assert run.differences(CHURNED) == []


def test_a_rotated_secret_is_used_without_a_restart(run: ClusterRun, tmp_path: Path) -> None:
    run.manifest["spec"]["snapshot"] = QUICK_COPY
    user, old = run.mysql.migration.user, run.mysql.migration.password
    folder = tmp_path / "rotated"
    folder.mkdir()
    for path in Path(run.move.secrets["mysql"]).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "password").write_text("rotated-" + old)
    try:
        with run.begun(), churning(run, random.Random(6), ROWS) as stop:
            run.until(awaiting)
            stream = run.pod_of("stream")
            run.give_secret("mysql", folder)
            run.until_pod_sees("password", f"rotated-{old}")
            run.execute(f"ALTER USER '{user}'@'%' IDENTIFIED BY 'rotated-{old}'")
            run.break_source_connections()
            stop.set()
            run.execute("INSERT INTO words VALUES ('after the rotation', 1, '')")
            run.until_target(f"SELECT count(*) FROM \"{run.database}\".words WHERE n = 1 AND id LIKE 'after%'", [(1,)])
            assert run.pod_of("stream") == stream
            run.approve()
            run.until(completed)
    finally:
        run.execute(f"ALTER USER '{user}'@'%' IDENTIFIED BY '{old}'")
    assert run.differences(CHURNED) == []
