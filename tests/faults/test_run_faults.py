"""The whole of `whimbrel run` killed in every phase, over seeds; each life ends by an independent comparison."""

import random

import pytest

from support.churn import CHURNED, churning, make_churned
from support.killed_run import kill_in_every_phase
from support.live_run import LiveRun
from support.moves import Move
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 1500}}


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
    with churning(live, rng, 1000) as stop:
        kill_in_every_phase(live, rng, stop)
    assert live.differences(CHURNED) == []
