"""Resources as Argo CD meets them: taken from whole lives over the in-memory runtime, with the health each shall have.

`python -m support.argo_files` makes the test data of charts/argocd from them.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from support.both_ways import AUTOMATIC, BACK, WITH_WAY_BACK
from support.life import Life
from support.memory_runtime import KEY, START, MemoryRuntime, migration
from support.way_back import AWAY
from support.way_back import Life as Back
from support.world import Failure, World
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.hooks import Hook, Hooks, HookState
from whimbrel_api.migration import CheckResult, Migration, MigrationStatus, Mode, Phase
from whimbrel_api.reports import ErrorCategory, ReportedError, UnreadLog
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import Validation, ValidationSpec
from whimbrel_operator.reconcile import Outcome, Reconciler
from whimbrel_operator.unreadable import stalled

Json = dict[str, Any]
Resource = Migration | Validation | ReverseSync
ARGOCD: Final = {"argocd.argoproj.io/tracking-id": "flights:whimbrel.dev/Migration:default/shop"}
PASSWORD: Final = Failure(
    code=ExitCode.CONFIGURATION,
    error=ReportedError(category=ErrorCategory.CONFIGURATION, what="MySQL refused the password", where="mysql:3306"),
)
UNREAD: Final = UnreadLog(changes=2, first="0/5", last="0/9", tables=["orders"])
LATE: Final = ReportedError(category=ErrorCategory.TRANSIENT, what="the server does not answer", where="mysql:3306")


@dataclass(frozen=True)
class Moment:
    """One resource at one moment, and the health that a person should see for it."""

    name: str
    health: str
    obj: Json

    @property
    def kind(self) -> str:
        """Migration, Validation or ReverseSync."""
        return str(self.obj["kind"])


def live(resource: Resource, **metadata: Any) -> Json:
    """The resource as an API server gives it out, with the status as the operator writes it."""
    meta = resource.metadata
    head = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "generation": meta.generation}
    spec = resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    status = resource.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {**head, "annotations": dict(ARGOCD), **metadata},
        "spec": spec,
        "status": status,
    }


class Told(Life):
    """A life that keeps the resources of each pass, those of its way back too."""

    def __init__(self, world: World | None = None, **spec: Any) -> None:
        super().__init__(world, **spec)
        self.seen: list[Json] = []

    def once(self) -> Outcome:
        outcome = super().once()
        self.seen.append(self.now)
        self.seen += [live(back.back) for back in self.runtime.ways_back.values()]
        return outcome

    @property
    def now(self) -> Json:
        """The Migration as it is."""
        return live(self.runtime.resource)

    def at(self, name: str, health: str) -> Moment:
        """The Migration as it is, as a moment."""
        return Moment(name, health, self.now)

    def first(self, name: str, health: str, phase: Phase, state: CutoverState = CutoverState.NOT_READY) -> Moment:
        """The first pass that ended in that phase and state."""
        where = (phase.value, state.value)
        found = (each for each in self.seen if each["kind"] == "Migration" and _where(each) == where)
        return Moment(name, health, next(found))


def _where(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["status"]["phase"], obj["status"]["cutover"]["state"]


def _may_go_back(obj: Mapping[str, Any]) -> bool:
    return any((each["type"], each["status"]) == ("RollbackReady", "True") for each in obj["status"]["conditions"])


def forth() -> Told:
    """From the first pass to the switch, by an approval."""
    life = Told(World(quiet=False))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until_state(CutoverState.FREEZING)
    life.go(2)
    life.world.quiet = True
    life.until_phase(Phase.COMPLETED)
    life.go(3)
    return life


def there_and_back(unread: UnreadLog | None = None) -> Told:
    """With a way back: the switch, then a rollback. `unread`: what was written after it had held the target."""
    life = Told(**(WITH_WAY_BACK | {"cutover": AUTOMATIC}))
    life.until_phase(Phase.COMPLETED)
    life.until(lambda _: life.said("RollbackReady")[0] == "True")
    life.runtime.patch(cutover=BACK)
    life.until_state(CutoverState.ROLLING_BACK)
    life.go(3)
    life.world.back_quiet, life.world.left_unread = 60.0, unread
    life.until_phase(Phase.FOLLOWING, 200)
    life.go(20)
    return life


def timed_out(mode: CutoverMode = CutoverMode.MANUAL) -> Told:
    """A cutover that was given up because the source never came to rest."""
    life = Told(World(quiet=False), cutover=Cutover(mode=mode, timeout="20s"))
    if mode is CutoverMode.MANUAL:
        life.until_state(CutoverState.AWAITING_APPROVAL)
        life.runtime.patch(cutover=Cutover(approved_plan=life.status.plan.hash, timeout="20s"))
    life.until_state(CutoverState.TIMED_OUT)
    life.until_phase(Phase.FOLLOWING)
    return life


def _forth() -> Iterator[Moment]:
    life = forth()
    yield life.first("preflight", "Progressing", Phase.PREFLIGHT)
    yield life.first("schema", "Progressing", Phase.SCHEMA)
    yield life.first("snapshot", "Progressing", Phase.SNAPSHOT)
    yield life.first("catch-up", "Progressing", Phase.CATCH_UP)
    yield life.first("following-not-ready", "Progressing", Phase.FOLLOWING)
    yield life.first("awaiting-approval", "Suspended", Phase.FOLLOWING, CutoverState.AWAITING_APPROVAL)
    yield life.first("freezing", "Progressing", Phase.CUTTING_OVER, CutoverState.FREEZING)
    yield life.first("draining", "Progressing", Phase.CUTTING_OVER, CutoverState.DRAINING)
    yield life.first("final-check", "Progressing", Phase.CUTTING_OVER, CutoverState.FINAL_CHECK)
    yield life.first("completed", "Healthy", Phase.COMPLETED, CutoverState.SWITCHED)


def _approved() -> Iterator[Moment]:
    life = Told()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    yield life.at("approved-not-seen", "Progressing")
    life.once()
    yield life.at("approved", "Progressing")


def _back() -> Iterator[Moment]:
    life = there_and_back()
    yield life.first("arming-reverse", "Progressing", Phase.CUTTING_OVER, CutoverState.ARMING_REVERSE)
    yield life.first("completed-with-way-back", "Healthy", Phase.COMPLETED, CutoverState.SWITCHED)
    yield Moment("ready-to-go-back", "Healthy", next(each for each in life.seen if _may_go_back(each)))
    yield life.first("rolling-back", "Progressing", Phase.COMPLETED, CutoverState.ROLLING_BACK)
    yield life.first("rolled-back-catch-up", "Progressing", Phase.CATCH_UP, CutoverState.ROLLED_BACK)
    yield life.at("rolled-back", "Suspended")
    yield there_and_back(UNREAD).at("written-after-rollback", "Degraded")


def _rollbacks() -> Iterator[Moment]:
    life = Told(**(WITH_WAY_BACK | {"cutover": AUTOMATIC}))
    life.until_phase(Phase.COMPLETED)
    life.until(lambda _: life.said("RollbackReady")[0] == "True")
    life.world.checks = [CheckResult.DIFFERENT]
    life.world.back_quiet = 60.0
    life.runtime.patch(cutover=BACK)
    life.until(lambda status: status.cutover.rollback.given_up)
    yield life.at("rollback-given-up", "Degraded")
    waits = Told(**(WITH_WAY_BACK | {"cutover": AUTOMATIC}))
    waits.until_phase(Phase.COMPLETED)
    waits.until(lambda _: waits.said("RollbackReady")[0] == "True")
    waits.world.lag = 60.0
    waits.go(3)
    waits.runtime.patch(cutover=BACK)
    waits.once()
    yield waits.at("rollback-waits", "Progressing")


def _given_up() -> Iterator[Moment]:
    life = timed_out()
    yield life.first("timing-out", "Progressing", Phase.CUTTING_OVER, CutoverState.TIMED_OUT)
    yield life.at("timed-out", "Suspended")
    yield timed_out(CutoverMode.AUTOMATIC).at("timed-out-automatic", "Progressing")


def _steered() -> Iterator[Moment]:
    life = Told()
    life.until_phase(Phase.FOLLOWING)
    life.runtime.patch(paused=True)
    life.go(3)
    yield life.at("paused", "Suspended")
    life.runtime.patch(paused=False, cancel=True)
    life.once()
    yield life.at("cancelling", "Progressing")
    life.until_phase(Phase.CANCELLED)
    life.go(2)
    yield life.at("cancelled", "Degraded")
    once = Told(mode=Mode.SNAPSHOT_ONLY)
    once.until_phase(Phase.COMPLETED)
    once.go(2)
    yield once.at("completed-snapshot-only", "Healthy")


def _troubled() -> Iterator[Moment]:
    life = Told(World(failures={TaskKind.PREFLIGHT: PASSWORD}))
    life.go(5)
    yield life.at("stalled", "Degraded")
    retried = Told()
    retried.until_phase(Phase.SNAPSHOT)
    retried.world.failures = {TaskKind.SNAPSHOT: Failure(code=ExitCode.FAILED, error=LATE)}
    retried.go(3)
    yield retried.at("retrying", "Progressing")
    stopped = Told(World(stopped_table="shop.orders"))
    stopped.until_phase(Phase.FOLLOWING)
    stopped.go(3)
    yield stopped.at("table-stopped", "Degraded")
    different = Told(World(checks=[CheckResult.DIFFERENT]))
    different.until(lambda status: status.validation.result is CheckResult.DIFFERENT)
    different.once()
    yield different.at("different", "Degraded")
    near = Told(World(retention=86_400.0))
    near.until_phase(Phase.FOLLOWING)
    near.runtime.patch(paused=True)
    near.go(1, step=70_000.0)
    near.go(2)
    yield near.at("retention-near", "Degraded")
    yield from _hooked()


def _hooked() -> Iterator[Moment]:
    hook = Hook(name="start", image="tools:1", service_account_name="mover")
    life = Told(cutover=Cutover(mode=CutoverMode.AUTOMATIC, hooks=Hooks(after_switch=[hook])))
    life.until(lambda status: bool(status.cutover.hooks))
    yield life.at("hook-runs", "Progressing")
    job = next(iter(life.runtime.hooks.values()))
    life.runtime.hooks[job.run_id] = replace(
        job, state=HookState.FAILED, finished_at=life.runtime.now, message="exit code 1"
    )
    life.go(2)
    yield life.at("hook-failed", "Degraded")


def _unseen() -> Iterator[Moment]:
    fresh = {key: item for key, item in live(migration()).items() if key != "status"}
    yield Moment("new", "Progressing", fresh)
    yield Moment("pending", "Progressing", live(migration(MigrationStatus(observed_generation=1))))
    why = "spec.source.mysql.port: given 0; allowed: 1 to 65535"
    yield Moment("refused", "Degraded", fresh | {"status": stalled(fresh, "InvalidSpec", why, START)})


def migrations() -> list[Moment]:
    """Every phase and state of a Migration, and what can befall it."""
    made = (_unseen, _forth, _approved, _back, _rollbacks, _given_up, _steered, _troubled)
    return [moment for make in made for moment in make()]


class _Comparison:
    """A Validation of a Migration, a second at a time."""

    def __init__(self, world: World, phase: Phase | None = Phase.FOLLOWING) -> None:
        spec = ValidationSpec(migration_ref=SecretRef(name="shop"))
        resource = Validation(metadata=ObjectMeta(name="compare", uid="c0"), spec=spec)
        named = migration(MigrationStatus(phase=phase, epoch=1)) if phase is not None else None
        self.runtime = MemoryRuntime(world, resource, migration=named)
        self.reconciler = Reconciler(self.runtime, self.runtime.clock)

    def after(self, seconds: int) -> Json:
        """As it is after so many passes."""
        for _ in range(seconds):
            asyncio.run(self.reconciler.reconcile(KEY))
            self.runtime.advance()
        return live(self.runtime.resource)


def validations() -> list[Moment]:
    """Every phase and result of a Validation."""
    away = World(failures={TaskKind.CHECK: PASSWORD})
    spec = ValidationSpec(migration_ref=SecretRef(name="shop"))
    fresh = Validation(metadata=ObjectMeta(name="compare", generation=2), spec=spec)
    found = [
        Moment("not-seen", "Progressing", live(fresh)),
        Moment("waiting", "Progressing", _Comparison(World(), None).after(2)),
        Moment("running", "Progressing", _Comparison(World()).after(2)),
        Moment("stalled", "Degraded", _Comparison(away).after(4)),
    ]
    healths = {CheckResult.EQUAL: "Healthy", CheckResult.DIFFERENT: "Degraded", CheckResult.INCONCLUSIVE: "Degraded"}
    for result, health in healths.items():
        found.append(Moment(result.value.lower(), health, _Comparison(World(checks=[result])).after(6)))
    return found


def _backs() -> Iterator[tuple[str, str, Back, Callable[[Back], object]]]:
    yield "arming", "Progressing", Back(), lambda life: life.turn()
    yield "streaming", "Healthy", Back(), lambda life: life.turns(4)
    yield "paused", "Suspended", Back(), _pause
    yield "slot-in-danger", "Degraded", Back(), lambda life: _changed(life, wal_status="unreserved")
    yield "slot-lost", "Degraded", Back(), lambda life: _changed(life, wal_status="lost")
    yield "table-stopped", "Degraded", Back(), lambda life: _changed(life, stopped_table="orders")
    yield "retrying", "Progressing", Back(), lambda life: _changed(life, failures={TaskKind.REVERSE: AWAY})
    yield "stalled", "Degraded", Back(), lambda life: _changed(life, failures={TaskKind.REVERSE: PASSWORD})
    yield "silent", "Progressing", Back(), _silence
    yield "ended", "Progressing", Back(), _end


def _pause(life: Back) -> None:
    life.turns(4)
    life.spec(paused=True)
    life.turns(2)


def _changed(life: Back, **world: object) -> None:
    life.turns(4)
    for name, value in world.items():
        setattr(life.runtime.world, name, value)
    life.turns(3)


def _silence(life: Back) -> None:
    life.turns(4)
    life.runtime.silent.add("reverse")
    life.turns(30)


def _end(life: Back) -> None:
    life.turns(4)
    life.delete()
    for _ in range(10):
        if life.turn().released:
            return
    raise AssertionError(f"not released: {life.status}")


def reverse_syncs() -> list[Moment]:
    """Every phase of a ReverseSync, and what can befall it."""
    found = [Moment("not-seen", "Progressing", live(Back().runtime.resource))]
    for name, health, life, do in _backs():
        do(life)
        found.append(Moment(name, health, live(life.runtime.resource)))
    held = next(each for each in there_and_back().seen if each["kind"] == "ReverseSync" and each["status"].get("held"))
    return [*found, Moment("held", "Progressing", held)]


def moments() -> list[Moment]:
    """All of them."""
    return [*migrations(), *validations(), *reverse_syncs()]
