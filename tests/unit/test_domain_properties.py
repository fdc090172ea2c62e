"""What must always hold, whatever happens in whatever order: random lives of a migration, checked after every pass."""

import asyncio
import itertools

from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from support.both_ways import WITH_WAY_BACK
from support.memory_runtime import KEY, MemoryRuntime, migration
from support.world import Failure, World, number
from whimbrel_api.cutover import Cutover
from whimbrel_api.migration import CheckResult, MigrationSpec, MigrationStatus, Phase
from whimbrel_api.reports import CANCELLED, REFUSED, ROLLED_BACK, SWITCHED, TRAFFIC_STEPS
from whimbrel_api.tasks import ExitCode, Orders, TaskKind
from whimbrel_operator.domain.decision import Decision
from whimbrel_operator.domain.migration.decide import decide
from whimbrel_operator.domain.migration.phases import ANYWHERE, BY_PHASE, CANCELLING, ENDS
from whimbrel_operator.domain.migration.plan import plan_hash
from whimbrel_operator.domain.observed import Memory, Observed
from whimbrel_operator.reconcile import Reconciler

TIMEOUT = "40s"
FORWARD = (TaskKind.STREAM, TaskKind.SNAPSHOT)
GATES = ("LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "RetentionSafe", "CutoverDue", "CutoverApproved")
ALLOWED = {
    (row.phase, leave.to) for row in BY_PHASE.values() for leave in (*row.exits, *ANYWHERE, *CANCELLING.exits)
} | {(row.phase, Phase.PREFLIGHT) for row in BY_PHASE.values()}


class Chaos:
    """A migration to which anything may happen."""

    def __init__(self, *, back: bool = False) -> None:
        more = WITH_WAY_BACK if back else {}
        self.runtime = MemoryRuntime(World(), migration(cutover=Cutover(timeout=TIMEOUT), **more))
        self.reconciler = Reconciler(self.runtime, self.runtime.clock)
        self.old = [MigrationStatus()]

    @property
    def status(self) -> MigrationStatus:
        status = self.runtime.resource.status
        assert isinstance(status, MigrationStatus)
        return status

    @property
    def spec(self) -> MigrationSpec:
        spec = self.runtime.resource.spec
        assert isinstance(spec, MigrationSpec)
        return spec

    def tick(self) -> None:
        before = self.status
        if self.runtime.now.second % 5 == 0:
            self.check_determinism()
        asyncio.run(self._pass())
        self.check_step(before, self.status)
        self.check_no_echo()
        self.old.append(self.status)
        self.runtime.advance()

    async def _pass(self) -> None:
        await self.reconciler.reconcile(KEY)
        await self.runtime.pass_over_ways_back()

    def check_no_echo(self) -> None:
        """What flows forward must never come back, nor an automatism move the traffic to and fro."""
        states = (state for state, _ in self.runtime.instances.values())
        forward = [state.ref for state in states if state.running and state.kind in FORWARD]
        assert not (forward and self.runtime.ways_back)
        if any(entry.step == "rolled-back" for entry in self.runtime.world.record.journal):
            assert self.runtime.world.rolled_back_on is CheckResult.EQUAL
            assert self.runtime.world.held_at_rollback

    def check_determinism(self) -> None:
        observed = asyncio.run(self.runtime.observe(KEY, Memory()))
        assert isinstance(observed, Observed)
        first: Decision = decide(observed, self.runtime.now)
        assert decide(observed, self.runtime.now) == first
        assert len({wanted.ref for wanted in first.wanted}) == len(first.wanted)

    def check_step(self, before: MigrationStatus, after: MigrationStatus) -> None:
        record = self.runtime.world.record
        if after.phase is not before.phase:
            note(f"{self.runtime.now:%M:%S} {before.phase} → {after.phase}")
            assert (before.phase, after.phase) in ALLOWED
        if after.phase is Phase.CUTTING_OVER and before.phase is not Phase.CUTTING_OVER:
            assert all(each.status == "True" for each in after.conditions if each.type in GATES)
            assert self.spec.cutover.approved_plan == plan_hash(self.spec, record.plan_attempt)
            assert not self.spec.cutover.rollback
        if after.phase is Phase.COMPLETED:
            assert record.last("switched") is not None
            assert self.runtime.world.switched_on is CheckResult.EQUAL
            assert self.runtime.world.armed_at_switch or not self.spec.reverse_sync.enabled
        self.check_verdicts()
        if after.checkpoint.position:
            assert number(after.checkpoint.position) <= number(self.runtime.world.position)
        if after.phase in ENDS:
            still = [ref for ref, (state, _) in self.runtime.instances.items() if state.running]
            assert not still or before.phase not in ENDS or self.spec.reverse_sync.enabled

    def check_verdicts(self) -> None:
        """Nothing that was written is lost, and what was switched was not given up as well."""
        world = self.runtime.world
        told = [entry for entry in world.record.journal if entry.step in (REFUSED, *TRAFFIC_STEPS)]
        for entry, following in itertools.pairwise(told):
            assert entry.step != SWITCHED or following.step in (ROLLED_BACK, CANCELLED)
        switches = [entry.detail for entry in told if entry.step == SWITCHED]
        assert not switches or switches[-1] == world.switched_at

    def act(self, action: str, pick: int) -> None:
        """What may happen; where an action does not apply now, and for "nothing", nothing does."""
        self._by_hand(action, pick)
        self._in_the_world(action, pick)
        self._to_workers(action, pick)
        self._on_the_way_back(action, pick)

    def _by_hand(self, action: str, pick: int) -> None:
        world, runtime = self.runtime.world, self.runtime
        match action:
            case "wipe":
                runtime.write_status(MigrationStatus())
            case "rewind":
                runtime.write_status(self.old[pick % len(self.old)])
            case "approve":
                self.approve(self.status.plan.hash)
            case "approve an old plan":
                self.approve(plan_hash(self.spec, world.record.plan_attempt - 1))
            case "withdraw":
                self.approve("")
            case "operator restarts":
                self.reconciler = Reconciler(runtime, runtime.clock)
            case "pause" | "resume":
                runtime.patch(paused=action == "pause")
            case "clock jumps":
                runtime.advance((-300.0, 600.0, 4000.0)[pick % 3])
            case "cancel" if pick % 10 == 0:
                runtime.patch(cancel=True)

    def _in_the_world(self, action: str, pick: int) -> None:
        world = self.runtime.world
        match action:
            case "write":
                world.position = f"p{number(world.position) + 1}"
            case "fence late" if world.fences:
                world.work(world.fences[pick % len(world.fences)], Orders(), self.runtime.now)
            case "write at the fence":
                world.writes_at_fence = True
            case "source away" | "source back":
                world.unreadable = action == "source away"
            case "writes go on" | "writes end":
                world.quiet = action == "writes end"
            case "lag" | "no lag":
                world.lag = {"lag": 60.0, "no lag": 0.1}[action]
            case "lag unknown":
                world.lag = None
            case "differs" | "inconclusive":
                world.checks = [CheckResult.DIFFERENT if action == "differs" else CheckResult.INCONCLUSIVE]
            case "mend":
                world.failures = {}

    def _to_workers(self, action: str, pick: int) -> None:
        world, runtime = self.runtime.world, self.runtime
        running = sorted(ref for ref, (state, _) in runtime.instances.items() if state.running)
        match action:
            case "reports lost" | "workers silent" if running:
                lost = runtime.lost if action == "reports lost" else runtime.silent
                lost.add(running[pick % len(running)].task_id)
            case "reports back":
                runtime.lost.clear()
                runtime.silent.clear()
                for back in runtime.ways_back.values():
                    back.silent.clear()
            case "tasks forgotten":
                runtime.instances.clear()
            case "fail" if running:
                kind = runtime.instances[running[pick % len(running)]][0].kind
                codes = (ExitCode.FAILED, ExitCode.CONFIGURATION, ExitCode.FENCED_OUT, ExitCode.TOLD_TO_STOP)
                world.failures = {kind: Failure(code=codes[pick % len(codes)])}

    def _on_the_way_back(self, action: str, pick: int) -> None:
        world, runtime = self.runtime.world, self.runtime
        match action:
            case "roll back" | "no rollback":
                self.ask(rollback=action == "roll back")
            case "target quiet" | "target written":
                world.back_quiet = 60.0 if action == "target quiet" else 0.0
                if action == "target written":
                    world.back_changed_at = runtime.now
                    world.back_position = f"0/{pick + 1}"
            case "way back silent" if runtime.ways_back:
                runtime.ways_back["shop"].silent.add("reverse")
            case "way back deleted" if runtime.ways_back and pick % 5 == 0:
                asyncio.run(runtime.end_way_back(KEY, runtime.ways_back["shop"].back))

    def approve(self, plan: str) -> None:
        self.ask(approved_plan=plan)

    def ask(self, **cutover: object) -> None:
        self.runtime.patch(cutover=self.spec.cutover.model_copy(update=cutover))


ACTIONS = (
    *("wipe", "rewind", "write", "writes go on", "writes end", "lag", "no lag", "lag unknown", "differs"),
    *("inconclusive", "approve", "approve", "approve", "approve an old plan", "withdraw", "reports lost"),
    *("workers silent", "reports back", "tasks forgotten", "operator restarts", "fail", "mend", "pause"),
    *("resume", "clock jumps", "cancel", "nothing"),
    *("fence late", "write at the fence", "source away", "source back"),
)
BACK_ACTIONS = (
    *("roll back", "roll back", "no rollback", "target quiet", "target quiet", "target written"),
    *("way back silent", "way back deleted"),
)
BACK_STEP = st.tuples(st.sampled_from((*ACTIONS, *BACK_ACTIONS)), st.integers(0, 1000), st.integers(0, 9))
STEP = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1000), st.integers(0, 9))
BEGIN = st.sampled_from((0, 5, 12))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(begin=BEGIN, steps=st.lists(STEP, min_size=4, max_size=16))
def test_what_must_always_hold(begin: int, steps: list[tuple[str, int, int]]) -> None:
    chaos = Chaos()
    for _ in range(begin):
        chaos.tick()
    for action, pick, seconds in steps:
        note(f"{chaos.runtime.now:%M:%S} {action} {pick}")
        chaos.act(action, pick)
        for _ in range(seconds):
            chaos.tick()


@settings(max_examples=12, deadline=None, print_blob=True)
@given(steps=st.lists(STEP, max_size=8))
@example(steps=[("wipe", 0, 4), ("wipe", 0, 6), ("clock jumps", 0, 0)])
def test_whatever_has_happened_it_ends_once_all_is_well_again(steps: list[tuple[str, int, int]]) -> None:
    chaos = Chaos()
    for action, pick, seconds in steps:
        note(f"{chaos.runtime.now:%M:%S} {action} {pick}")
        chaos.act(action, pick)
        for _ in range(seconds):
            chaos.tick()
    for action in ("reports back", "mend", "resume", "writes end", "no lag", "source back"):
        chaos.act(action, 1)
    chaos.runtime.world.checks = []
    for _ in range(700):
        if chaos.status.phase in ENDS:
            return
        if chaos.status.plan.hash:
            chaos.approve(chaos.status.plan.hash)
        chaos.tick()
    raise AssertionError(f"still in {chaos.status.phase}, {chaos.status.cutover}, {chaos.runtime.instances.keys()}")


def lived(chaos: Chaos, steps: list[tuple[str, int, int]]) -> None:
    for action, pick, seconds in steps:
        note(f"{chaos.runtime.now:%M:%S} {action} {pick}")
        chaos.act(action, pick)
        for _ in range(seconds):
            chaos.tick()


def until(chaos: Chaos, phase: Phase, within: int = 700) -> None:
    """All is well again, and what is asked for is done."""
    for _ in range(within):
        if chaos.status.phase is phase or chaos.status.phase is Phase.CANCELLED:
            return
        if chaos.status.plan.hash and chaos.status.phase is not Phase.COMPLETED:
            chaos.approve(chaos.status.plan.hash)
        chaos.tick()
    raise AssertionError(f"still in {chaos.status.phase}, {chaos.status.cutover}, {chaos.runtime.instances.keys()}")


def well(chaos: Chaos) -> None:
    for action in (
        "reports back",
        "mend",
        "resume",
        "writes end",
        "no lag",
        "source back",
        "no rollback",
        "target quiet",
    ):
        chaos.act(action, 1)
    chaos.runtime.world.checks = []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(begin=st.sampled_from((0, 12, 45, 80)), steps=st.lists(BACK_STEP, min_size=4, max_size=16))
def test_what_must_always_hold_with_a_way_back(begin: int, steps: list[tuple[str, int, int]]) -> None:
    chaos = Chaos(back=True)
    for second in range(begin):
        if second == 12:
            chaos.approve(chaos.status.plan.hash)
        chaos.tick()
    lived(chaos, steps)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(steps=st.lists(BACK_STEP, max_size=8))
@example(steps=[("wipe", 387, 0), ("clock jumps", 0, 0)])
def test_whatever_has_happened_it_goes_there_and_back(steps: list[tuple[str, int, int]]) -> None:
    chaos = Chaos(back=True)
    until(chaos, Phase.COMPLETED)
    lived(chaos, steps)
    well(chaos)
    until(chaos, Phase.COMPLETED)
    for _ in range(5):
        chaos.tick()
    if not chaos.runtime.ways_back:
        return  # somebody deleted it: nothing leads back
    chaos.ask(rollback=True)
    until(chaos, Phase.FOLLOWING)
    assert chaos.status.phase is Phase.CANCELLED or chaos.status.cutover.rolled_back_at is not None
