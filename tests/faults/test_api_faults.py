"""Rows 5 to 9 of the fault matrix: two operators, dead operators, lost events, silent watches, a broken API server.

On a real API server with workers that move real rows. Nothing is skipped, nothing runs twice, and each life ends by an
independent comparison.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import pytest

from support.api_faults import QUICK, SHORT_LEASE, FaultyRun
from support.churn import CHURNED, churning, make_churned
from support.cluster_run import NAME
from support.live_run import at_least
from support.mortals import Mortal
from support.moves import Move
from support.operator_forge import Forge, ForkedOperator, forge
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.kubernetes.api_proxy import Asked, Cut, Expire, Fail, Fault, Refuse, Wait, no_fault
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

ROWS = 200
PATIENCE = 500.0
AWAY = float(os.environ.get("WHIMBREL_TEST_AWAY_SECONDS", "60"))
"""600 is what the fault matrix says; the rest of the suite should not wait for it."""
pytestmark = pytest.mark.timeout(900 + AWAY)
SLOW_COPY = {"workers": 2, "chunkRows": 100, "rateLimit": {"rowsPerSecond": 60}}
CHUNKS_DONE = "SELECT count(*) FROM whimbrel.chunks WHERE state = 'done'"
REFUSALS = (Refuse(409), Refuse(429, 1), Refuse(429), Refuse(500), Refuse(503, 1), Refuse(503), Cut(False), Cut(True))
completed = at_least(Phase.COMPLETED)


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def log_of(operator: ForkedOperator) -> str:
    return operator.log_file.read_text()


@pytest.fixture(scope="module")
def maker() -> Iterator[Forge]:
    with forge() as made:
        yield made


@pytest.fixture
def unprepared(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> FaultyRun:
    if not cluster.pids:
        pytest.skip("a proxy needs the server certificate of a cluster that the test bed started")
    made = FaultyRun(cluster, namespace, postgres_move, mysql, mysql_database, **QUICK)
    make_churned(made, ROWS)
    return made


@pytest.fixture
def run(unprepared: FaultyRun, maker: Forge) -> Iterator[FaultyRun]:
    """A Migration that is not applied yet, with rows in its source; what it starts ends with the test."""
    with ExitStack() as stack:
        unprepared.prepare(maker, stack)
        yield unprepared


def lived_by_mortals(
    run: FaultyRun, draw: Callable[[int], tuple[int, bool]], *, every_call: bool = False, until: Phase = Phase.COMPLETED
) -> None:
    """A whole life and its end, worked on by operators that are killed again and again."""
    operator, proxy = run.operator_behind()
    run.operator = operator
    mortal = Mortal(run, operator, draw)
    mortal.every_call, proxy.rule = every_call, mortal.rule
    run.apply()
    with run.supervised(operator, mortal.born):
        run.until(completed, PATIENCE)
        run.assert_sound(CHURNED)
        run.kubectl("delete", "migration", NAME, "--wait=false")
        run.until_true(lambda: run.kubectl("get", "migrations", "-o", "name") == "", "the Migration is gone")
    run.until_nothing_is_left()
    print(f"{mortal.lives} lives, killed at {dict(mortal.deaths)}; {run.ledger.figures()}")
    assert run.ledger.doubled == []


def test_killed_at_every_k(run: FaultyRun) -> None:
    """The first at its first write, the next at its second …: before the call and after it by turns."""
    lived_by_mortals(run, lambda lives: (lives + 1, lives % 2 == 1))


@pytest.mark.parametrize(("seed", "most", "every_call"), over((1, 30, False), (2, 30, False), (3, 200, True)))
def test_killed_at_its_kth_call(run: FaultyRun, seed: int, most: int, every_call: bool) -> None:
    """Before the call or after it, over and over; k may grow, so that a life comes to its end."""
    rng = random.Random(seed)
    print(f"seed {seed}, k up to {most} of {'all calls' if every_call else 'the writes'}")
    lived_by_mortals(run, lambda lives: (rng.randint(1, most + lives // 2), rng.random() < 0.5), every_call=every_call)


@pytest.mark.parametrize("seed", over(1, 2))
def test_a_leader_that_stood_still_wakes_with_a_job_under_way(run: FaultyRun, seed: int) -> None:
    """Its last request reaches the API server long after another has taken over and gone on."""
    rng = random.Random(seed)
    chosen = rng.randint(1, 7)
    print(f"seed {seed}: stands still at Job {chosen}")
    first, behind = run.operator_behind(**SHORT_LEASE)
    second, _ = run.operator_behind(**SHORT_LEASE)
    run.operator = second
    stood, jobs = threading.Event(), count(1)

    def rule(asked: Asked) -> Fault | None:
        if asked.method != "POST" or not asked.path.endswith("/jobs") or next(jobs) != chosen:
            return None
        first.send(signal.SIGSTOP)
        stood.set()
        return Wait(16.0)

    behind.rule = rule
    run.apply()
    first.start()
    run.until_true(lambda: first.probe("/readyz")[1] == "ok: it leads\n", "the first leads")
    leader = run.holder()
    with run.supervised(second), churning(run, rng, ROWS) as stop:
        assert stood.wait(PATIENCE), run.story()
        run.until_true(lambda: run.holder() not in ("", leader), "the second holds the Lease")
        stood_at = run.status().phase
        threading.Timer(18.0, first.send, [signal.SIGCONT]).start()
        run.until(at_least(Phase.CUTTING_OVER), PATIENCE)
        stop.set()
        run.until(completed, PATIENCE)
        first.until_gone(30)
    assert "held by" in log_of(first) or "could not be renewed" in log_of(first)
    print(f"stood in {stood_at}; {run.ledger.figures()}")
    run.assert_sound(CHURNED)


@pytest.mark.parametrize("seed", over(1, 2, at_least=0))
def test_two_that_both_believe_to_lead(run: FaultyRun, seed: int) -> None:
    """Leases of two namespaces, one namespace watched; both stand still now and then, and their requests come late."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    first, behind = run.operator_behind()
    second, beside = run.operator_behind(WHIMBREL_NAMESPACE=run.lease_elsewhere())
    run.operator = second

    def rule(_: Asked) -> Fault | None:
        return Wait(rng.uniform(0.0, 1.5)) if rng.random() < 0.15 else None

    behind.rule = beside.rule = rule
    run.apply()
    with (
        run.supervised(first),
        run.supervised(second),
        churning(run, rng, ROWS) as stop,
        naps(random.Random(seed), first, second),
    ):
        run.until(at_least(Phase.CUTTING_OVER), PATIENCE)
        stop.set()
        run.until(completed, PATIENCE)
    writes = [sum(each.writes and "/leases" not in each.path for each in proxy.log) for proxy in (behind, beside)]
    print(f"writes of each: {writes}; {run.ledger.figures()}")
    assert min(writes) > 20, "only one of them has worked"
    run.assert_sound(CHURNED)


@contextmanager
def naps(rng: random.Random, *operators: ForkedOperator) -> Iterator[None]:
    """Now and then one of them stands still, for less than its Lease lasts."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(rng.uniform(0.2, 2.0)):
            chosen = rng.choice(operators)
            chosen.send(signal.SIGSTOP)
            stop.wait(rng.uniform(0.1, 1.5))
            chosen.send(signal.SIGCONT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for each in operators:
            each.send(signal.SIGCONT)


@pytest.mark.parametrize("seed", over(1, 2))
def test_events_are_lost_and_late_and_watches_break_and_expire(run: FaultyRun, seed: int) -> None:
    rng, happened = random.Random(seed), Counter[str]()
    print(f"seed {seed}")
    operator, proxy = run.operator_behind()
    run.operator = operator

    def events(_: Asked, event: Mapping[str, Any]) -> bool | float:
        if event["type"] == "BOOKMARK" or rng.random() < 0.3:
            return True
        happened["lost or late"] += 1
        return False if rng.random() < 0.7 else rng.uniform(0.0, 2.0)

    def rule(asked: Asked) -> Fault | None:
        if not asked.resumes or rng.random() < 0.4:
            return None
        happened["expired"] += 1
        return Expire()

    proxy.events, proxy.rule = events, rule
    run.apply()
    with run.supervised(operator) as starts, churning(run, rng, ROWS) as stop:
        while not at_least(Phase.CUTTING_OVER)(run.status()):
            stop.wait(rng.uniform(0.5, 4.0))
            happened["cut"] += proxy.watches
            proxy.cut_watches()
        stop.set()
        run.until(completed, PATIENCE)
        assert len(starts) == 1, f"the operator ended {len(starts) - 1} times\n{run.story()}"
    print(f"{dict(happened)}; {run.ledger.figures()}")
    run.assert_sound(CHURNED)


@pytest.mark.parametrize("fault", [Expire(as_event=False), Refuse(400), Fail(500)], ids=["410", "400", "ERROR 500"])
def test_a_watch_that_kopf_gives_up_ends_the_process_and_another_begins(run: FaultyRun, fault: Fault) -> None:
    """Such an operator would lead on, hear of nothing and say that it is well."""
    run.apply(paused=True)
    operator, proxy = run.operator_behind()
    run.operator = operator
    with run.supervised(operator) as starts:
        run.until(lambda status: any(each.type == "Paused" and each.status == "True" for each in status.conditions))
        run.until_true(lambda: proxy.watches >= 5, "all watches stand")
        proxy.rule = lambda asked: fault if asked.resumes and "/jobs" in asked.path else None
        proxy.cut_watches()
        began = time.monotonic()
        run.until_true(lambda: len(starts) > 1, "the operator has ended and another has begun", 40)
        print(f"another began after {time.monotonic() - began:.1f} s")
        proxy.rule = no_fault
        run.patch(paused=False)
        run.until(at_least(Phase.SNAPSHOT))


def test_what_goes_while_no_watch_stands_is_noticed(run: FaultyRun) -> None:
    """Deleted by force, so that nothing but the timer can tell: its daemon and its figures end, another is served."""
    run.apply(paused=True)
    operator, proxy = run.operator_behind()
    run.operator = operator
    operator.start()
    run.until(lambda status: any(each.type == "Paused" and each.status == "True" for each in status.conditions))
    run.until_true(lambda: 'name="shop"' in operator.probe("/metrics")[1], "it has figures")
    proxy.rule = lambda asked: Refuse(503) if asked.watch else None
    proxy.cut_watches()
    run.kubectl("delete", "migration", NAME, "--wait=false")
    run.kubectl("patch", "migration", NAME, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    began = time.monotonic()
    run.until_true(lambda: 'name="shop"' not in operator.probe("/metrics")[1], "its figures end", 40)
    asked = sum("/migrations/shop" in each.path for each in proxy.log)
    print(f"noticed after {time.monotonic() - began:.1f} s")
    proxy.rule = no_fault
    run.apply(paused=False)
    run.until(completed, PATIENCE)
    assert asked < sum("/migrations/shop" in each.path for each in proxy.log)
    run.assert_sound(CHURNED)


def test_watches_fall_silent(run: FaultyRun) -> None:
    """No byte and no end on any stream: what is known goes on by the timers, what is new waits for kopf's 70 s."""
    run.apply(cutover={"mode": "Manual"})
    operator, proxy = run.operator_behind()
    run.operator = operator
    operator.start()
    run.until(awaiting)
    silent = proxy.watches
    proxy.silence_watches()
    began = time.monotonic()
    late = {**run.manifest, "metadata": {"name": "late"}, "spec": {**run.manifest["spec"], "paused": True}}
    run.kubectl("apply", "-f", "-", input=json.dumps(late))
    run.approve()
    run.until(lambda status: status.observed_generation == 2, 20)
    acted = time.monotonic() - began
    served = lambda: bool(json.loads(run.kubectl("get", "migration", "late", "-o", "json")).get("status"))  # noqa: E731
    run.until_true(served, "a resource made meanwhile is served", 100)
    found = time.monotonic() - began
    run.until(completed, PATIENCE)
    done = time.monotonic() - began
    print(f"{silent} watches silent: approval {acted:.1f} s, a new resource {found:.1f} s, done {done:.1f} s")
    assert acted < 12
    assert found < 70 + 15
    assert silent >= 5
    run.assert_sound(CHURNED)


def test_the_api_server_is_away_for_longer_than_any_lease(run: FaultyRun) -> None:
    run.manifest["spec"]["snapshot"] = SLOW_COPY
    operator, proxy = run.operator_behind()
    run.operator, proxy.rewrite = operator, run.through(proxy)
    run.apply()
    with run.supervised(operator) as starts, churning(run, random.Random(1), ROWS) as stop:
        run.until(at_least(Phase.SNAPSHOT))
        run.until_true(lambda: run.move.look(CHUNKS_DONE)[0][0] > 0, "a part is copied")
        run.cluster.stop_api_server()
        began = time.monotonic()
        done = run.move.look(CHUNKS_DONE)
        run.until_target("SELECT count(*) FROM whimbrel.chunks WHERE state <> 'done'", [(0,)])
        assert run.move.look(CHUNKS_DONE) > done, "the copy was over before the API server was gone"
        print(f"all was copied {time.monotonic() - began:.1f} s after the API server had gone")
        while time.monotonic() < began + AWAY:
            time.sleep(0.2)
        run.cluster.start_api_server()
        back = time.monotonic()
        run.until(at_least(Phase.CUTTING_OVER), PATIENCE)
        print(f"cut over {time.monotonic() - back:.1f} s after its return")
        stop.set()
        run.until(completed, PATIENCE)
    print(f"away for {AWAY:.0f} s; the operator was started {len(starts)} times; {run.ledger.figures()}")
    run.assert_sound(CHURNED)


@pytest.mark.parametrize("seed", over(1, 2))
def test_the_api_server_refuses_at_random(run: FaultyRun, seed: int) -> None:
    """Every kind of request of the operator and of the workers; now and then nearly all of them for a while."""
    rng, happened = random.Random(seed), Counter[str]()
    print(f"seed {seed}")
    operator, proxy = run.operator_behind()
    run.operator, proxy.rewrite = operator, run.through(proxy)

    def rule(asked: Asked) -> Fault | None:
        burst = time.monotonic() % 10.0 < 1.5
        if rng.random() > (0.6 if burst else 0.04):
            return None
        fault = rng.choice(REFUSALS)
        if isinstance(fault, Refuse) and fault.status == 409 and not asked.writes:
            fault = Refuse(500)
        who = "operator" if asked.agent.startswith("whimbrel-operator") else "workers"
        happened[f"{who}: {fault.status if isinstance(fault, Refuse) else 'cut'}"] += 1
        return fault

    proxy.rule = rule
    run.apply()
    with run.supervised(operator) as starts, churning(run, rng, ROWS) as stop:
        run.until(at_least(Phase.CUTTING_OVER), PATIENCE)
        stop.set()
        run.until(completed, PATIENCE)
        proxy.rule = no_fault
        run.kubectl("delete", "migration", NAME, "--wait=false")
        run.until_nothing_is_left()
    print(f"{dict(happened)}; the operator was started {len(starts)} times; {run.ledger.figures()}")
    assert {"operator", "workers"} == {each.partition(":")[0] for each in happened}
    run.assert_sound(CHURNED)
