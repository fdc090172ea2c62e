"""Rows 5, 6, 9, 10 and 28 of the fault matrix for a cutover with a way back and its rollback, on a real API server.

Two operators, dead operators, a broken API server, statuses that are wiped, a way back that somebody deletes. Each life
ends by an independent comparison, or with nothing left on cluster and server.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from support.api_faults import Faulty
from support.cluster_run import NAME
from support.cluster_ways_back import CUTOVER_SECONDS, WayBackRun, awaiting
from support.item_faults import Application
from support.item_moves import ItemMove, fill
from support.mortals import Mortal
from support.operator_forge import Forge, forge
from support.patience import eventually
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.reverse_sync import ReverseSyncPhase
from whimbrel_testbed.kubernetes.api_proxy import Asked, Cut, Fault, Refuse, Wait, no_fault
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = [pytest.mark.timeout(1000), pytest.mark.slow]
ITEMS = 120
REFUSALS = (Refuse(409), Refuse(429, 1), Refuse(429), Refuse(500), Refuse(503, 1), Cut(False), Cut(True))


class FaultyWayBack(WayBackRun, Faulty):
    """A Migration with a way back whose operators come through proxies."""

    def sound(self) -> None:
        """Nothing ran twice, and never in both directions."""
        assert self.ledger.doubled == []

    def wipe(self) -> None:
        """The status is gone, and comes back."""
        self.kubectl("patch", "migration", NAME, "--subresource=status", "--type=json", "-p", _WIPED)


_WIPED = '[{"op": "remove", "path": "/status"}]'


@pytest.fixture(scope="module")
def maker() -> Iterator[Forge]:
    with forge() as made:
        yield made


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, moving: ItemMove, polardb: PolarDBServer, maker: Forge
) -> Iterator[FaultyWayBack]:
    """A Migration that is not applied yet; what it starts ends with the test."""
    if not cluster.pids:
        pytest.skip("a proxy needs the server certificate of a cluster that the test bed started")
    made = FaultyWayBack(cluster, namespace, moving, polardb)
    with ExitStack() as stack:
        stack.callback(made.clean_server)
        made.prepare(maker, stack)
        yield made


@pytest.fixture
def table(moving: ItemMove) -> str:
    """A table of the source with items."""
    made = moving.table("orders")
    fill(moving.origin, made, range(ITEMS))
    return made


class Broken:
    """While it is `on`, each operator's first word about a way back is refused, and a share of all else."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self.on = rng, False
        self.struck: Counter[str] = Counter()

    def rule(self, asked: Asked) -> Fault | None:
        if not self.on or asked.watch or "/leases" in asked.path:
            return None
        made = asked.method == "POST" and asked.path.endswith("/reversesyncs")
        if made and self.struck["made"] < 2:
            self.struck["made"] += 1
            return self._rng.choice(REFUSALS)
        if self._rng.random() < 0.1:
            return Wait(self._rng.uniform(0.0, 1.5))
        if self._rng.random() > 0.1:
            return None
        fault = self._rng.choice(REFUSALS)
        if isinstance(fault, Refuse) and fault.status == 409 and not asked.writes:
            fault = Refuse(500)
        self.struck[str(fault.status) if isinstance(fault, Refuse) else "cut"] += 1
        return fault


@pytest.mark.parametrize("seed", over(1, 2))
def test_rows_5_9_and_28_two_operators_and_refusals_while_it_is_armed_then_somebody_deletes_it(
    run: FaultyWayBack, moving: ItemMove, table: str, seed: int
) -> None:
    print(f"seed {seed}")
    broken = Broken(random.Random(seed))
    first, behind = run.operator_behind()
    second, beside = run.operator_behind(WHIMBREL_NAMESPACE=run.lease_elsewhere())
    run.operator = second
    behind.rule = beside.rule = broken.rule
    run.apply()
    with run.supervised(first), run.supervised(second):
        run.until(awaiting, CUTOVER_SECONDS)
        broken.on = True
        run.approve()
        run.until_state(CutoverState.SWITCHED)
        broken.on = False
        assert moving.differences(table) == []
        Application(moving.goal, table, random.Random(seed), ITEMS).change(50)
        run.until_equal(table)
        run.kubectl("delete", "reversesync", NAME, "--timeout=90s")
        run.until_said("RollbackReady", "False", "WayBackGone")
        run.until_server_is_clean()
        run.wipe()
        run.until_state(CutoverState.SWITCHED)
        run.until_said("RollbackReady", "False", "WayBackGone")
        assert len(run.ledger.ways_back) == 1, "it is made once and never again"
        run.kubectl("delete", "migration", NAME, "--wait=false")
        run.until_it_is_gone()
    writes = [sum(each.writes and "/leases" not in each.path for each in proxy.log) for proxy in (behind, beside)]
    print(f"{dict(broken.struck)}, writes of each: {writes}; {run.ledger.figures()}")
    assert broken.struck["made"] == 2
    assert min(writes) > 10, "only one of them has worked"
    run.sound()


@pytest.mark.parametrize(("seed", "most"), over((1, 12), (2, 30)))
def test_row_6_killed_at_its_kth_call_there_and_back(
    run: FaultyWayBack, moving: ItemMove, table: str, seed: int, most: int
) -> None:
    """Before the call or after it, over and over, from the approval on; k may grow, so that the life has an end."""
    rng = random.Random(seed)
    print(f"seed {seed}, k up to {most}")
    operator, proxy = run.operator_behind()
    run.operator = operator
    mortal = Mortal(run, operator, lambda lives: (rng.randint(1, most + lives), rng.random() < 0.5))
    run.apply()
    with run.supervised(operator, mortal.born):
        run.until(awaiting, CUTOVER_SECONDS)
        proxy.rule = mortal.rule
        run.approve()
        run.until_state(CutoverState.SWITCHED)
        Application(moving.goal, table, random.Random(seed), ITEMS).change(100)
        run.roll_back()
        run.until_state(CutoverState.ROLLED_BACK)
        assert moving.differences(table) == []
        Application(moving.origin, table, random.Random(seed), ITEMS).change(100)
        eventually(lambda: run.back() is None, run.told)
        run.until_server_is_clean()
        run.until_equal(table)
        proxy.rule = no_fault
        run.kubectl("delete", "migration", NAME, "--wait=false")
        run.until_it_is_gone()
    print(f"{mortal.lives} lives, killed at {dict(mortal.deaths)}; {run.ledger.figures()}")
    assert mortal.lives > 3
    assert len(run.ledger.ways_back) == 1
    run.sound()


@pytest.mark.parametrize("seed", over(1, 2))
def test_row_10_a_status_wiped_while_it_is_armed_after_the_switch_and_on_the_way_back(
    run: FaultyWayBack, moving: ItemMove, table: str, seed: int
) -> None:
    """A seal that nobody knows of is given up; after the switch the way back stays; a rollback begins again."""
    rng = random.Random(seed)
    patience = rng.randint(0, 40)
    print(f"seed {seed}: wiped after {patience} looks on the way back")
    operator, _ = run.operator_behind()
    run.operator = operator
    run.apply()
    with run.supervised(operator):
        run.until(awaiting, CUTOVER_SECONDS)
        with run.nothing_arms():
            run.approve()
            run.until_back(lambda back: back.status.phase is ReverseSyncPhase.ARMING, CUTOVER_SECONDS)
            run.wipe()
            run.until_back(lambda back: back.metadata.deletion_timestamp is not None)
        run.until(lambda status: awaiting(status) and status.plan.attempt == 2, CUTOVER_SECONDS)
        run.approve()
        run.until_state(CutoverState.SWITCHED)
        run.wipe()
        Application(moving.goal, table, rng, ITEMS).change(100)
        run.until_equal(table)
        run.roll_back()
        run.until_state(CutoverState.ROLLING_BACK)
        looks = count()
        run.until_true(lambda: next(looks) >= patience, "it has been on its way back for a while")
        run.wipe()
        run.until_state(CutoverState.ROLLED_BACK)
        assert moving.differences(table) == []
        Application(moving.origin, table, rng, ITEMS).change(100)
        eventually(lambda: run.back() is None, run.told)
        run.until_server_is_clean()
        run.until_equal(table)
        assert run.status().plan.attempt == 3
    assert len(run.ledger.ways_back) == 2
    run.sound()
