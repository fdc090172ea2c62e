"""The whole of `whimbrel run` on item tables killed in every phase; its life ends by an independent comparison."""

import random

import pytest

from support.item_faults import working
from support.item_moves import ItemMove, fill
from support.killed_run import kill_in_every_phase
from support.live_run import Run
from support.seeds import over

pytestmark = pytest.mark.timeout(280)
ITEMS = 1500
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 800}}


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_a_run_killed_whole_in_every_phase(moving: ItemMove, seed: int) -> None:
    """SIGKILL to the run and its workers at a random time within each phase; the same command goes on each time."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    table = moving.table("orders")
    fill(moving.origin, table, range(ITEMS), seed)
    live = Run(moving, snapshot=SLOW_COPY)
    with working(moving, table, seed, ITEMS, pause=0.05) as stop:
        kill_in_every_phase(live, rng, stop)
    assert moving.differences(table) == []
