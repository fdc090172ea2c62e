"""A resource or its namespace deleted in the phases and states that the life's tests leave out (fault matrix, row 28).

Afterwards nothing runs, waits or holds a lock anywhere; what was copied and the control tables stay.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from support.churn import churning, make_churned
from support.cluster_run import NAME
from support.job_faults import FaultRun
from support.live_run import at_least
from support.moves import Move
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
ROWS = 500
QUICK = {"workers": 1, "chunkRows": 500}
SLOW = {"workers": 2, "chunkRows": 100, "rateLimit": {"rowsPerSecond": 150}}
STREAM = {"flushInterval": "50ms"}


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> FaultRun:
    """A Migration that is not applied yet, with tables and rows in its source."""
    made = FaultRun(cluster, namespace, postgres_move, mysql, mysql_database, snapshot=QUICK, stream=STREAM)
    make_churned(made, ROWS)
    return made


@contextmanager
def at_work(run: FaultRun, seed: int) -> Iterator[None]:
    print(f"seed {seed}")
    with run.begun(), churning(run, random.Random(seed), ROWS):
        yield


def condition(status: MigrationStatus, kind: str) -> str:
    return next((each.status for each in status.conditions if each.type == kind), "absent")


def nothing_runs(run: FaultRun) -> None:
    run.until_nothing_is_left()
    run.until_nobody_is_connected()


def what_was_made_stays(run: FaultRun) -> None:
    assert run.move.look("SELECT count(*), min(epoch) FROM whimbrel.migrations") == [(1, 1)]
    assert run.move.look("SELECT count(*) > 0 FROM whimbrel.workers") == [(True,)]
    assert int(run.move.look(f'SELECT count(*) FROM "{run.database}".words')[0][0]) > 0


def deleted(run: FaultRun) -> None:
    run.kubectl("delete", "migration", NAME, "--timeout=80s")
    nothing_runs(run)


@pytest.mark.parametrize("phase", [Phase.FOLLOWING, Phase.CUTTING_OVER])
def test_its_namespace_is_deleted(run: FaultRun, phase: Phase) -> None:
    """The operator's Lease stands elsewhere: one that loses its own namespace can clear nothing up any more."""
    run.operator.environment = {"WHIMBREL_NAMESPACE": "default"}
    with at_work(run, 1):
        if phase is Phase.CUTTING_OVER:
            run.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
            run.approve()
        run.until(at_least(phase))
        run.cluster.kubectl("delete", "namespace", run.namespace, "--timeout=80s", timeout=100)
        run.until_nobody_is_connected()
    run.cluster.kubectl("create", "namespace", run.namespace)
    what_was_made_stays(run)


def test_it_is_deleted_while_the_schema_is_made(run: FaultRun) -> None:
    with at_work(run, 2):
        run.until(at_least(Phase.SCHEMA))
        deleted(run)


def test_it_is_deleted_while_it_is_paused(run: FaultRun) -> None:
    run.manifest["spec"]["snapshot"] = SLOW
    with at_work(run, 3):
        run.until(lambda status: status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0)
        run.patch(paused=True)
        run.until(lambda status: condition(status, "Paused") == "True")
        deleted(run)
    what_was_made_stays(run)


def test_it_is_deleted_while_it_is_stalled(run: FaultRun) -> None:
    """Its worker is killed, and the next one finds no Secret."""
    run.manifest["spec"]["snapshot"] = SLOW
    with at_work(run, 4):
        run.until(lambda status: status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0)
        run.kubectl("delete", "secret", "postgres")
        run.kubectl("delete", "pods", "--all", "--wait=false")
        run.until(lambda status: condition(status, "Stalled") == "True")
        deleted(run)
    what_was_made_stays(run)


def validated(run: FaultRun, holds: Callable[[dict[str, object]], bool], **spec: object) -> None:
    """A Validation of the Migration, and its status as wished."""
    run.apply_validation("check", migrationRef={"name": NAME}, **spec)
    run.until_true(lambda: holds(run.validation("check")), "the validation is that far")


def test_it_is_deleted_with_a_finished_validation_beside_it(run: FaultRun) -> None:
    with at_work(run, 5):
        run.until(at_least(Phase.FOLLOWING))
        validated(run, lambda status: status.get("phase") == "Completed")
        run.kubectl("delete", "migration", NAME, "--timeout=80s")
        assert run.validation("check")["phase"] == "Completed", "what it found is kept"
        run.kubectl("delete", "validation", "check", "--timeout=60s")
        nothing_runs(run)
    what_was_made_stays(run)


def test_a_validation_is_deleted_while_it_runs(run: FaultRun) -> None:
    with at_work(run, 6):
        run.until(at_least(Phase.FOLLOWING))
        validated(run, lambda status: status.get("phase") == "Running", rateLimit={"rowsPerSecond": 10})
        checker = run.until_running(run.task_of("Validation"))
        run.kubectl("delete", "validation", "check", "--timeout=80s")
        assert checker["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in run.pods()}
        assert {each["metadata"]["labels"]["whimbrel.dev/kind"] for each in run.items("jobs,workerreports")} == {
            "Migration"
        }
        assert run.status().phase is Phase.FOLLOWING
        deleted(run)
    what_was_made_stays(run)
