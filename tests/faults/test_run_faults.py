"""The whole of `whimbrel run` killed in every phase, over seeds; each life ends by an independent comparison."""

import random
import time

import pytest

from support.churn import CHURNED, churning, make_churned
from support.live_run import LiveRun, at_least
from support.moves import Move
from whimbrel_api.migration import CutoverState, MigrationStatus, Phase
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 1500}}
MOMENTS = (Phase.PREFLIGHT, Phase.SCHEMA, Phase.SNAPSHOT, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING)


def approvable(status: MigrationStatus) -> bool:
    """All gates but the person's are open, or that is long over."""
    waiting = status.cutover.state is CutoverState.AWAITING_APPROVAL
    return status.phase is Phase.COMPLETED or status.phase is Phase.CUTTING_OVER or waiting


@pytest.mark.parametrize(("seed", "target"), [(1, "dsql_move"), (2, "postgres_move"), (3, "dsql_move")])
def test_a_run_killed_whole_in_every_phase(
    request: pytest.FixtureRequest, mysql: MySQLServer, mysql_database: str, seed: int, target: str
) -> None:
    """SIGKILL to the run and its workers at a random time within each phase; the same command goes on each time."""
    move: Move = request.getfixturevalue(target)
    rng = random.Random(seed)
    print(f"seed {seed}, {target}")
    live = LiveRun(move, mysql, mysql_database, snapshot=SLOW_COPY, stream={"flushInterval": "50ms"})
    make_churned(live, 1000)
    killed = 0
    with churning(live, rng, 1000) as stop:
        for moment in MOMENTS:
            with live.started() as run:
                live.until(at_least(moment))
                time.sleep(rng.uniform(0, 0.5))  # the moment of death, not a wait for anything
                killed += live.kill(run)
        with live.started() as run:
            live.until(approvable)
            live.approve()
            live.until(at_least(Phase.CUTTING_OVER))
            time.sleep(rng.uniform(0, 0.5))
            killed += live.kill(run)
        stop.set()
        with live.started() as run:
            live.until(lambda status: status.cutover.freeze_position != "" or status.phase is Phase.COMPLETED)
            time.sleep(rng.uniform(0, 1.5))
            killed += live.kill(run)
        with live.started() as run:
            assert live.ended(run) == 0, live.log()
    assert killed >= 4, "workers were under way when they died"
    assert live.status().phase is Phase.COMPLETED
    assert live.differences(CHURNED) == []
    assert live.workers() == {}
