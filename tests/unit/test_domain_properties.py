"""What must always hold, whatever happens in whatever order: random lives of a migration, checked after every pass."""

import asyncio

from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from support.memory_runtime import KEY, MemoryRuntime, migration
from support.world import Failure, World, number
from whimbrel_api.migration import CheckResult, Cutover, MigrationSpec, MigrationStatus, Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_operator.domain.decide import decide
from whimbrel_operator.domain.decision import Decision
from whimbrel_operator.domain.observed import Memory, Observed
from whimbrel_operator.domain.phases import ANYWHERE, BY_PHASE, CANCELLING, ENDS
from whimbrel_operator.domain.plan import plan_hash
from whimbrel_operator.reconcile import Reconciler

TIMEOUT = "40s"
GATES = ("LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "RetentionSafe", "CutoverDue", "CutoverApproved")
ALLOWED = {
    (row.phase, leave.to) for row in BY_PHASE.values() for leave in (*row.exits, *ANYWHERE, *CANCELLING.exits)
} | {(row.phase, Phase.PREFLIGHT) for row in BY_PHASE.values()}


class Chaos:
    """A migration to which anything may happen."""

    def __init__(self) -> None:
        self.runtime = MemoryRuntime(World(), migration(cutover=Cutover(timeout=TIMEOUT)))
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
        asyncio.run(self.reconciler.reconcile(KEY))
        self.check_step(before, self.status)
        self.old.append(self.status)
        self.runtime.advance()

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
        if after.phase is Phase.COMPLETED:
            assert record.last("switched") is not None
            assert self.runtime.world.switched_on is CheckResult.EQUAL
        if after.checkpoint.position:
            assert number(after.checkpoint.position) <= number(self.runtime.world.position)
        if after.phase in ENDS:
            assert not [
                ref for ref, (state, _) in self.runtime.instances.items() if state.running and before.phase in ENDS
            ]

    def act(self, action: str, pick: int) -> None:  # noqa: PLR0912 (one case an action)
        world, runtime = self.runtime.world, self.runtime
        running = sorted(ref for ref, (state, _) in runtime.instances.items() if state.running)
        match action:
            case "wipe":
                runtime.write_status(MigrationStatus())
            case "rewind":
                runtime.write_status(self.old[pick % len(self.old)])
            case "write":
                world.position = f"p{number(world.position) + 1}"
            case "writes go on" | "writes end":
                world.quiet = action == "writes end"
            case "lag" | "no lag":
                world.lag = {"lag": 60.0, "no lag": 0.1}[action]
            case "lag unknown":
                world.lag = None
            case "differs" | "inconclusive":
                world.checks = [CheckResult.DIFFERENT if action == "differs" else CheckResult.INCONCLUSIVE]
            case "approve":
                self.approve(self.status.plan.hash)
            case "approve an old plan":
                self.approve(plan_hash(self.spec, world.record.plan_attempt - 1))
            case "withdraw":
                self.approve("")
            case "reports lost" | "workers silent" if running:
                lost = runtime.lost if action == "reports lost" else runtime.silent
                lost.add(running[pick % len(running)].task_id)
            case "reports back":
                runtime.lost.clear()
                runtime.silent.clear()
            case "tasks forgotten":
                runtime.instances.clear()
            case "operator restarts":
                self.reconciler = Reconciler(runtime, runtime.clock)
            case "fail" if running:
                kind = runtime.instances[running[pick % len(running)]][0].kind
                codes = (ExitCode.FAILED, ExitCode.CONFIGURATION, ExitCode.FENCED_OUT, ExitCode.TOLD_TO_STOP)
                world.failures = {kind: Failure(code=codes[pick % len(codes)])}
            case "mend":
                world.failures = {}
            case "pause" | "resume":
                runtime.patch(paused=action == "pause")
            case "clock jumps":
                runtime.advance((-300.0, 600.0, 4000.0)[pick % 3])
            case "cancel" if pick % 10 == 0:
                runtime.patch(cancel=True)
            case _:
                return

    def approve(self, plan: str) -> None:
        self.runtime.patch(cutover=Cutover(timeout=TIMEOUT, approved_plan=plan))


ACTIONS = (
    *("wipe", "rewind", "write", "writes go on", "writes end", "lag", "no lag", "lag unknown", "differs"),
    *("inconclusive", "approve", "approve", "approve", "approve an old plan", "withdraw", "reports lost"),
    *("workers silent", "reports back", "tasks forgotten", "operator restarts", "fail", "mend", "pause"),
    *("resume", "clock jumps", "cancel", "nothing"),
)
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
    for action in ("reports back", "mend", "resume", "writes end", "no lag"):
        chaos.act(action, 1)
    chaos.runtime.world.checks = []
    for _ in range(700):
        if chaos.status.phase in ENDS:
            return
        if chaos.status.plan.hash:
            chaos.approve(chaos.status.plan.hash)
        chaos.tick()
    raise AssertionError(f"still in {chaos.status.phase}, {chaos.status.cutover}, {chaos.runtime.instances.keys()}")
