"""The whole of `whimbrel run` on item tables killed in every phase; its life ends by an independent comparison."""

import random
import time

import pytest

from support.item_faults import working
from support.item_moves import ItemMove, fill
from support.live_run import Run, at_least
from support.seeds import over
from whimbrel_api.migration import CutoverState, MigrationStatus, Phase

pytestmark = pytest.mark.timeout(280)
ITEMS = 1500
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 800}}
MOMENTS = (Phase.PREFLIGHT, Phase.SCHEMA, Phase.SNAPSHOT, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING)


def approvable(status: MigrationStatus) -> bool:
    """All gates but the person's are open, or that is long over."""
    waiting = status.cutover.state is CutoverState.AWAITING_APPROVAL
    return status.phase is Phase.COMPLETED or status.phase is Phase.CUTTING_OVER or waiting


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_a_run_killed_whole_in_every_phase(moving: ItemMove, seed: int) -> None:
    """SIGKILL to the run and its workers at a random time within each phase; the same command goes on each time."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    table = moving.table("orders")
    fill(moving.origin, table, range(ITEMS), seed)
    live = Run(moving, snapshot=SLOW_COPY)
    killed = 0
    with working(moving, table, seed, ITEMS, pause=0.05) as stop:
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
    assert moving.differences(table) == []
    assert live.workers() == {}
