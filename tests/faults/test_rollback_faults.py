"""SIGKILL to all of `whimbrel run` while the way back is armed, used and ended; the same command goes on each time."""

import random

import pytest

from support.both_ways_run import BothWays
from support.item_faults import Application
from support.item_moves import ItemMove, fill
from support.patience import eventually
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = pytest.mark.timeout(280)
ITEMS = 120


def killed(both: BothWays, rng: random.Random, state: CutoverState) -> None:
    """Run until that state has stood for a random time, then everything dies at once."""
    with both.started() as process:
        both.until(lambda status: status.cutover.state is state)
        patience = rng.randint(0, 20)

        def long_enough(status: MigrationStatus) -> bool:
            nonlocal patience
            patience -= 1
            return patience < 0 or status.cutover.state is not state

        both.until(long_enough)
        both.kill(process)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_a_run_killed_while_it_goes_there_and_back(moving: ItemMove, polardb: PolarDBServer, seed: int) -> None:
    print(f"seed {seed}")
    rng, both = random.Random(seed), BothWays(moving, polardb)
    table = moving.table("orders")
    fill(moving.origin, table, range(ITEMS), seed)
    with both.started():
        both.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        both.approve()
        both.until(lambda status: status.phase is Phase.CUTTING_OVER)
    killed(both, rng, CutoverState.ARMING_REVERSE)
    with both.started() as process:
        both.until(lambda status: status.phase is Phase.COMPLETED)
        both.kill(process)
    Application(moving.goal, table, rng, ITEMS).change(100)
    both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
    killed(both, rng, CutoverState.ROLLING_BACK)
    with both.started():
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        assert moving.differences(table) == []
        Application(moving.origin, table, rng, ITEMS).change(100)
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        both.equal(table)
        eventually(lambda: (both.back(), both.slots()) == (None, []), both.told)
