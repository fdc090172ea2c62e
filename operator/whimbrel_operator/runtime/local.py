"""The runtime port on one machine: tasks are child processes, reports and orders are files. Decides nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from whimbrel_api.base import ObjectMeta, OwnerReference
from whimbrel_api.migration import Migration
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import ExitCode
from whimbrel_api.validation import Validation
from whimbrel_operator.domain.decision import Event, WantedTask, WantedWayBack, Work
from whimbrel_operator.domain.hook_jobs import WantedHook
from whimbrel_operator.domain.observed import (
    Memory,
    Observed,
    ObservedReverseSync,
    ObservedValidation,
    TaskRef,
    Tasks,
    TaskState,
)
from whimbrel_operator.domain.reverse.view import ReverseView
from whimbrel_operator.domain.validation import work_of
from whimbrel_operator.errors import NotAllowed, NotFound
from whimbrel_operator.runtime.files import make_folder, write_whole
from whimbrel_operator.runtime.instances import Instance, Known
from whimbrel_operator.runtime.port import Key, Observation, Status
from whimbrel_operator.runtime.processes import birth_of, is_alive, signal_group, spawn
from whimbrel_operator.runtime.store import LocalStore
from whimbrel_operator.specs.taskfile import task_file

WORKER = (sys.executable, "-m", "whimbrel_worker")
REPORT_INTERVAL = 1.0
GRACE = 20.0
_POLL = 0.02
_ABANDONED = ReportedError(
    category=ErrorCategory.UNEXPECTED,
    what="the process that had started this worker ended without stopping it",
    todo="nothing: the worker is started again and goes on from the target's control tables",
)


def utc_now() -> datetime:
    """The time now, with its zone."""
    return datetime.now(UTC)


class LocalRuntime:
    """Runs tasks as children of this process. `grace` in seconds between SIGTERM and SIGKILL."""

    def __init__(
        self,
        store: LocalStore,
        *,
        worker: Sequence[str] = WORKER,
        grace: float = GRACE,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store, self._worker, self._grace, self._clock = store, tuple(worker), grace, clock
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to a resource; None when it is gone."""
        try:
            resource = self._store.get(key)
        except NotFound:
            return None
        version = str(self._store.read_status(key)[1])
        tasks = self._tasks(key)
        if isinstance(resource, Migration):
            missing, children = self._missing(key, Work.of(resource)), self._validations_of(key)
            return Observed(resource, tasks, children, missing, memory, version, ways_back=self._ways_back_of(key))
        migration = self._migration_of(resource)
        if isinstance(resource, ReverseSync):
            back = ObservedReverseSync(resource, tasks, migration, (), memory, version)
            return replace(back, missing_secrets=self._missing(key, ReverseView(back, self._clock()).work))
        bare = ObservedValidation(resource, tasks, migration, (), memory, version)
        return replace(bare, missing_secrets=self._missing(key, work_of(bare)))

    async def apply(self, key: Key, wanted: Sequence[WantedTask]) -> None:
        """Start the instances that may start and do not run; give running ones their orders; end those too many."""
        for surplus in self._instances_of(key, wanted[0].ref.task_id, keep=[each.ref for each in wanted]):
            self._end(surplus)
        for each in wanted:
            self._bring_about(key, each)

    def _bring_about(self, key: Key, wanted: WantedTask) -> None:
        instance = self._instance(key, wanted.ref)
        known = instance.known()
        if known is not None and known.running:
            self._steer(instance, known, wanted)
        elif wanted.start and (known is None or known.exit_code != ExitCode.DONE or wanted.again):
            self._start(key, instance, known, wanted)

    async def remove(self, key: Key, task_id: str) -> None:
        """Tell the instances to stop; forget them once they are gone."""
        for instance in self._instances_of(key, task_id):
            self._end(instance)

    def _end(self, instance: Instance) -> None:
        known = instance.known()
        if known is not None and known.running:
            self._tell_to_stop(instance, known)
        elif instance.folder.exists():
            instance.forget()

    async def make_way_back(self, key: Key, wanted: WantedWayBack) -> None:
        """Keep a ReverseSync that belongs to this Migration; the loop takes it up."""
        owner = self._store.get(key).metadata
        belongs = OwnerReference(kind=key.kind, name=key.name, uid=owner.uid, controller=True)
        meta = ObjectMeta(name=wanted.name, namespace=key.namespace, owner_references=(belongs,))
        self._store.put(ReverseSync(metadata=meta, spec=wanted.spec))

    async def end_way_back(self, key: Key, found: ReverseSync) -> None:
        """Mark it as deleted; the loop forgets it once it has taken away what it made."""
        self._store.mark_deleted(Key(key.namespace, found.kind, found.metadata.name))

    async def run_hook(self, key: Key, wanted: WantedHook) -> None:
        """There is no cluster to run it. Raises NotAllowed."""
        raise NotAllowed(
            f"{wanted.run.run_id} cannot run",
            where=str(key),
            why="hooks and switches are Jobs of a cluster",
            todo="leave spec.cutover.hooks and spec.cutover.switch out, or use the operator",
        )

    async def end_hook(self, key: Key, run_id: str) -> None:
        """Nothing: none has ever run."""

    async def report(self, key: Key, status: Status, resource_version: str) -> None:
        """Write the status under its version. Raises StatusConflict."""
        self._store.write_status(key, status, int(resource_version))

    async def event(self, key: Key, event: Event) -> None:
        """Record an event."""
        self._store.add_event(key, event)

    def some_ended(self) -> bool:
        """Whether a child has ended that no pass has seen yet."""
        return any(child.poll() is not None for child in self._children.values())

    def recover(self, key: Key) -> None:
        """End what a former run has left behind. How it ended is not known, so it has failed."""
        left = [(each, known) for each in self._store.instances(key) if (known := each.known()) and known.running]
        alive = [known for _, known in left if is_alive(known.pid, known.birth)]
        for known in alive:
            signal_group(known.pid, signal.SIGTERM)
        self._await_end(lambda: any(is_alive(known.pid, known.birth) for known in alive))
        for known in alive:
            if is_alive(known.pid, known.birth):
                signal_group(known.pid, signal.SIGKILL)
        for instance, known in left:
            instance.keep(known.ended(ExitCode.FAILED, self._clock(), _last_error(instance) or _ABANDONED))

    def stop(self, keys: Sequence[Key]) -> None:
        """Tell all workers of these resources to stop, wait for them, kill those that do not in time."""
        found = [each for key in keys for each in self._store.instances(key)]
        running = [(each, known) for each in found if (known := each.known()) and known.running]
        for instance, known in running:
            self._tell_to_stop(instance, known)
        self._await_end(lambda: any(child.poll() is None for child in self._children.values()))
        for child in self._children.values():
            if child.poll() is None:
                signal_group(child.pid, signal.SIGKILL)
                child.wait()
        for key in keys:
            self._tasks(key)

    def _await_end(self, going: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._grace
        while going() and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _instance(self, key: Key, ref: TaskRef) -> Instance:
        return Instance(self._store.folder(key) / "tasks" / str(ref))

    def _instances_of(self, key: Key, task_id: str, keep: Sequence[TaskRef] = ()) -> list[Instance]:
        kept = {str(ref) for ref in keep}
        found = [each for each in self._store.instances(key) if each.name.rpartition("-")[0] == task_id]
        return [each for each in found if each.name not in kept]

    def _tasks(self, key: Key) -> Tasks:
        states = [state for each in self._store.instances(key) if (state := self._look(each)) is not None]
        return Tasks(tuple(sorted(states, key=lambda state: state.ref)))

    def _look(self, instance: Instance) -> TaskState | None:
        known = instance.known()
        if known is None:
            return None
        if known.running:
            known = self._reaped(instance, known)
        return instance.observed(known)

    def _reaped(self, instance: Instance, known: Known) -> Known:
        """What is known after looking whether the process has ended; a stubborn one is killed."""
        child = self._children.get(str(instance.folder))
        code = child.poll() if child is not None else ExitCode.FAILED
        if code is not None:
            self._children.pop(str(instance.folder), None)
            known = known.ended(code, self._clock(), _last_error(instance))
            instance.keep(known)
        elif known.stopping_since and self._clock() - datetime.fromisoformat(known.stopping_since) > self._patience:
            signal_group(known.pid, signal.SIGKILL)
        return known

    @property
    def _patience(self) -> timedelta:
        return timedelta(seconds=self._grace)

    def _steer(self, instance: Instance, known: Known, wanted: WantedTask) -> None:
        if known.stopping_since:
            return
        if known.fingerprint != wanted.fingerprint:
            self._tell_to_stop(instance, known)
        else:
            instance.give_orders(wanted.orders)

    def _tell_to_stop(self, instance: Instance, known: Known) -> None:
        if not known.stopping_since:
            instance.keep(replace(known, stopping_since=self._clock().isoformat()))
            signal_group(known.pid, signal.SIGTERM)

    def _start(self, key: Key, instance: Instance, known: Known | None, wanted: WantedTask) -> None:
        make_folder(instance.folder)
        instance.report_file.unlink(missing_ok=True)
        instance.give_orders(wanted.orders)
        secrets = {name: str(self._store.secret_folder(key.namespace, name)) for name in wanted.work.secret_names()}
        told = task_file(
            wanted,
            secrets=secrets,
            report_file=str(instance.report_file),
            orders_file=str(instance.orders_file),
            check_file=str(self._store.folder(key) / f"differences-{wanted.ref}.jsonl"),
            interval=REPORT_INTERVAL,
            spool=self._spool(key, wanted),
        )
        write_whole(instance.task_file, told.model_dump_json(by_alias=True).encode())
        child = spawn([*self._worker, str(instance.task_file)], instance.fresh_log(), _environment())
        self._children[str(instance.folder)] = child
        instance.keep(_begun(known, wanted, child.pid, self._clock()))

    def _spool(self, key: Key, wanted: WantedTask) -> str:
        """What stands for the volume on one machine: a folder of the claim's name, made where it is needed."""
        folder = self._store.spool_folder(key.namespace, wanted.spool_claim)
        return str(make_folder(folder)) if wanted.spool_claim else ""

    def _missing(self, key: Key, work: Work | None) -> tuple[str, ...]:
        names = work.secret_names() if work is not None else ()
        return tuple(name for name in names if not self._store.secret_folder(key.namespace, name).is_dir())

    def _validations_of(self, key: Key) -> tuple[Validation, ...]:
        found = (self._store.get(each) for each in self._store.list("Validation", key.namespace))
        return tuple(each for each in found if isinstance(each, Validation) and _refers_to(each, key.name))

    def _ways_back_of(self, key: Key) -> tuple[ReverseSync, ...]:
        found = (self._store.get(each) for each in self._store.list("ReverseSync", key.namespace))
        return tuple(each for each in found if isinstance(each, ReverseSync) and _leads_to(each, key.name))

    def _migration_of(self, resource: Validation | ReverseSync) -> Migration | None:
        ref = resource.spec.migration_ref
        if ref is None:
            return None
        try:
            found = self._store.get(Key(resource.metadata.namespace, "Migration", ref.name))
        except NotFound:
            return None
        return found if isinstance(found, Migration) else None


def _leads_to(back: ReverseSync, name: str) -> bool:
    ref = back.spec.migration_ref
    return back.metadata.name == name or (ref is not None and ref.name == name)


def _refers_to(validation: Validation, name: str) -> bool:
    ref = validation.spec.migration_ref
    return ref is not None and ref.name == name


def _environment() -> dict[str, str]:
    """This process's own, but for a pod's index: were this a pod of a Job, its workers would all take that one."""
    return {name: value for name, value in os.environ.items() if name != "JOB_COMPLETION_INDEX"}


def _last_error(instance: Instance) -> ReportedError | None:
    report, _ = instance.report()
    return report.last_error if report is not None else None


def _begun(known: Known | None, wanted: WantedTask, pid: int, now: datetime) -> Known:
    fresh = Known(
        kind=wanted.kind.value,
        task_id=wanted.ref.task_id,
        index=wanted.ref.index,
        started_at=now.isoformat(),
        pid=pid,
        birth=birth_of(pid),
        generation=wanted.generation,
        fingerprint=wanted.fingerprint,
        interval=REPORT_INTERVAL,
    )
    if known is None:
        return fresh
    return replace(fresh, failures=known.failures, last_failure_at=known.last_failure_at, last_error=known.last_error)
