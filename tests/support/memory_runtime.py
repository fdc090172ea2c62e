"""The runtime port in memory: workers are turns of a `World`, time is what the test says. For tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from support.world import World
from whimbrel_api.base import ObjectMeta, OwnerReference, SecretRef
from whimbrel_api.endpoints import MySQLSource, PostgreSQLTarget, Source, Target
from whimbrel_api.hooks import HookState
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import ExitCode, Orders
from whimbrel_api.validation import Validation
from whimbrel_operator.domain.decision import Event, WantedTask, WantedWayBack
from whimbrel_operator.domain.hook_jobs import HookJob, WantedHook
from whimbrel_operator.domain.observed import (
    Memory,
    Observed,
    ObservedReverseSync,
    ObservedValidation,
    TaskRef,
    Tasks,
    TaskState,
)
from whimbrel_operator.errors import StatusConflict
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key, Observation, Status
from whimbrel_operator.specs.taskfile import task_file

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY = Key("default", "Migration", "shop")
UID = "5d0f"
SOURCE = Source(mysql=MySQLSource(host="mysql", credentials_secret_ref=SecretRef(name="src")))
TARGET = Target(postgresql=PostgreSQLTarget(host="pg", database="app", credentials_secret_ref=SecretRef(name="dst")))


def migration(status: MigrationStatus | None = None, generation: int = 1, **spec: object) -> Migration:
    """A Migration with everything at its default but what is given, in snake_case."""
    whole = MigrationSpec.model_validate({"source": SOURCE, "target": TARGET, **spec})
    meta = ObjectMeta(name="shop", generation=generation, uid=UID)
    return Migration(metadata=meta, spec=whole, status=status or MigrationStatus())


@dataclass
class MemoryRuntime:
    """One resource. `lost` names task ids whose reports do not arrive; `frozen_reports` those that stay as they are."""

    world: World
    resource: Migration | Validation | ReverseSync
    now: datetime = START
    version: int = 0
    instances: dict[TaskRef, tuple[TaskState, WantedTask]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    started: list[TaskRef] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    missing: tuple[str, ...] = ()
    others: tuple[Validation, ...] = ()
    migration: Migration | None = None
    ways_back: dict[str, "MemoryRuntime"] = field(default_factory=dict)
    strangers: tuple[ReverseSync, ...] = ()
    hooks: dict[str, HookJob] = field(default_factory=dict)

    def clock(self) -> datetime:
        """The time that the test has set."""
        return self.now

    def advance(self, seconds: float = 1.0) -> None:
        """Let time pass and every running worker take a turn."""
        self.now += timedelta(seconds=seconds)
        for ref, (state, wanted) in list(self.instances.items()):
            if state.running and ref.task_id not in self.silent:
                self.instances[ref] = (self._turn(state, wanted), wanted)
        for back in self.ways_back.values():
            back.advance(seconds)

    def _turn(self, state: TaskState, wanted: WantedTask) -> TaskState:
        told = task_file(wanted, secrets={}, report_file="r", orders_file="o", check_file="c", interval=1.0)
        report, code = self.world.work(told, wanted.orders, self.now)
        spoken = replace(state, report=None if state.ref.task_id in self.lost else report)
        if code is None:
            return spoken
        over = replace(spoken, running=False, exit_code=int(code), finished_at=self.now)
        if code in (ExitCode.DONE, ExitCode.TOLD_TO_STOP):
            return replace(over, failures=0)
        return replace(over, failures=state.failures + 1, last_failure_at=self.now, last_error=report.last_error)

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to the resource."""
        tasks = Tasks(tuple(state for state, _ in self.instances.values()))
        version = str(self.version)
        if isinstance(self.resource, Migration):
            back = (*self.strangers, *(each.back for each in self.ways_back.values()))
            hooks = tuple(self.hooks.values())
            return Observed(self.resource, tasks, self.others, self.missing, memory, version, hooks, ways_back=back)
        if isinstance(self.resource, ReverseSync):
            return ObservedReverseSync(self.resource, tasks, self.migration, self.missing, memory, version)
        return ObservedValidation(self.resource, tasks, self.migration, self.missing, memory, version)

    @property
    def back(self) -> ReverseSync:
        """The resource, where it is a ReverseSync."""
        assert isinstance(self.resource, ReverseSync)
        return self.resource

    async def make_way_back(self, key: Key, wanted: WantedWayBack) -> None:
        """A ReverseSync of its own in the same world, as long as it is there; `pass_over_ways_back` has it work."""
        belongs = OwnerReference(kind=key.kind, name=key.name, uid=UID, controller=True)
        made = sum(act.startswith("make") for act in self.acts)
        meta = ObjectMeta(name=wanted.name, uid=f"back{made}", owner_references=(belongs,))
        made_one = ReverseSync(metadata=meta, spec=wanted.spec)
        self.ways_back.setdefault(wanted.name, MemoryRuntime(self.world, made_one, now=self.now))
        self.acts.append(f"make {wanted.name}")

    async def end_way_back(self, key: Key, found: ReverseSync) -> None:
        """Mark it as deleted."""
        back = self.ways_back[found.metadata.name]
        meta = back.resource.metadata.model_copy(update={"deletion_timestamp": self.now})
        back.resource = back.resource.model_copy(update={"metadata": meta})
        self.acts.append(f"end {found.metadata.name}")

    async def pass_over_ways_back(self) -> None:
        """A pass over each ReverseSync; one that is released is no more."""
        for name, back in list(self.ways_back.items()):
            back.now = self.now
            back.migration = self.resource if isinstance(self.resource, Migration) else None
            outcome = await Reconciler(back, back.clock).reconcile(Key("default", "ReverseSync", name))
            if outcome.released:
                del self.ways_back[name]
                self.acts.append(f"gone {name}")

    async def apply(self, key: Key, wanted: Sequence[WantedTask]) -> None:
        """Start, restart, give orders, or forget those too many."""
        task_id, kept = wanted[0].ref.task_id, [each.ref for each in wanted]
        for ref in [ref for ref in self.instances if ref.task_id == task_id and ref not in kept]:
            self._forget(ref)
        for each in wanted:
            self._bring_about(each)

    def _bring_about(self, wanted: WantedTask) -> None:
        state, before = self.instances.get(wanted.ref, (None, wanted))
        if state is not None and state.running:
            if before.fingerprint == wanted.fingerprint:
                self.instances[wanted.ref] = (state, wanted)
            else:
                self._forget(wanted.ref)
        elif wanted.start and (state is None or not state.done or wanted.again):
            self._start(state, wanted)

    def _start(self, state: TaskState | None, wanted: WantedTask) -> None:
        fresh = TaskState(wanted.kind, wanted.ref, self.now, report_interval=1.0, generation=wanted.generation)
        if state is not None:
            kept = (state.failures, state.last_failure_at, state.last_error)
            fresh = replace(fresh, failures=kept[0], last_failure_at=kept[1], last_error=kept[2])
        self.instances[wanted.ref] = (fresh, wanted)
        self.started.append(wanted.ref)
        self.acts.append(f"start {wanted.ref}")

    async def remove(self, key: Key, task_id: str) -> None:
        """Forget the instances at once."""
        for ref in [ref for ref in self.instances if ref.task_id == task_id]:
            self._forget(ref)

    def _forget(self, ref: TaskRef) -> None:
        if self.instances.pop(ref, None) is not None:
            self.acts.append(f"remove {ref}")

    async def run_hook(self, key: Key, wanted: WantedHook) -> None:
        """Begin it, where it may begin and is not there."""
        run = wanted.run
        if wanted.start and run.run_id not in self.hooks:
            job = HookJob(run.run_id, run.point, run.work.name, f"shop-{run.run_id}", HookState.RUNNING, self.now)
            self.hooks[run.run_id] = job
            self.acts.append(f"hook {run.run_id}")

    async def end_hook(self, key: Key, run_id: str) -> None:
        """Take it away at once."""
        if self.hooks.pop(run_id, None) is not None:
            self.acts.append(f"end hook {run_id}")

    async def report(self, key: Key, status: Status, resource_version: str) -> None:
        """Write the status under its version."""
        if int(resource_version) != self.version:
            raise StatusConflict("the status was written meanwhile", where=str(key))
        self.version += 1
        self.resource = self.resource.model_copy(update={"status": status})
        self.acts.append("report")

    async def event(self, key: Key, event: Event) -> None:
        """Record an event."""
        self.events.append(event)

    def patch(self, **spec: object) -> None:
        """Change the spec: a new generation."""
        changed = self.resource.spec.model_copy(update=spec)
        meta = self.resource.metadata.model_copy(update={"generation": self.resource.metadata.generation + 1})
        self.resource = self.resource.model_copy(update={"spec": changed, "metadata": meta})

    def write_status(self, status: Status) -> None:
        """What a hand does to the status subresource."""
        self.version += 1
        self.resource = self.resource.model_copy(update={"status": status})

    def orders(self, task_id: str) -> Orders:
        """The orders that a worker has."""
        return self.instances[TaskRef(task_id)][1].orders
