"""The loop of the local runtime: reconcile until all is done, or until told to stop. One process a resource."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from whimbrel_api.migration import Migration
from whimbrel_api.validation import Validation, ValidationPhase
from whimbrel_operator.domain.migration.aftermath import is_over
from whimbrel_operator.domain.reverse.end import is_released
from whimbrel_operator.reconcile import Outcome, Reconciler
from whimbrel_operator.runtime.files import HeldLock
from whimbrel_operator.runtime.local import GRACE, WORKER, LocalRuntime, utc_now
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.store import LocalStore, Resource

PERIOD = 0.5
_LOOK = 0.05


@dataclass(frozen=True)
class RunResult:
    """How a run ended: `finished`: what was waited for is so; else why not, or one pass was asked."""

    resources: list[Resource] = field(default_factory=list)
    finished: bool = False
    interrupted: bool = False
    timed_out: bool = False


def at_end(resource: Resource) -> bool:
    """Whether nothing is left to do for a resource. A way back ends only where it is being deleted."""
    if isinstance(resource, Migration):
        return is_over(resource)
    if isinstance(resource, Validation):
        return resource.status.phase is ValidationPhase.COMPLETED
    return is_released(resource.status) is not None


def all_at_end(resources: Sequence[Resource]) -> bool:
    """Whether nothing is left to do for any of them."""
    return all(at_end(resource) for resource in resources)


def run(
    store: LocalStore,
    keys: Sequence[Key],
    *,
    once: bool = False,
    timeout: float | None = None,
    until: Callable[[Sequence[Resource]], bool] | None = None,
    on_change: Callable[[Resource], None] | None = None,
    worker: Sequence[str] = WORKER,
    grace: float = GRACE,
    handle_signals: bool = True,
    stop: threading.Event | None = None,
) -> RunResult:
    """Reconcile these resources until all are at their end, `until` holds, `timeout` seconds pass or a signal comes.

    `once`: a single pass. Workers are told to stop before it returns, whatever the reason; a later run goes on from the
    target's control tables. Call it from the thread that lives longest: workers die with it.
    Raises AlreadyRunning, NotFound.
    """
    told = stop or threading.Event()
    runtime = LocalRuntime(store, worker=worker, grace=grace)
    with _reserved(store, keys, runtime) as working, _signals(told, wanted=handle_signals):
        session = _Session(working, until=until or all_at_end, on_change=on_change, told=told)
        try:
            return asyncio.run(session.work(once=once, timeout=timeout))
        finally:
            runtime.stop(working.keys)


class _Working:
    """The resources that this process works on: those it was given, and the ways back that Migrations among them make.

    Each is reserved while it is here.
    """

    def __init__(self, store: LocalStore, runtime: LocalRuntime) -> None:
        self.store, self.runtime = store, runtime
        self.keys: list[Key] = []
        self._locks: dict[Key, HeldLock] = {}
        self._made: set[Key] = set()

    def take(self, key: Key) -> None:
        """Reserve a resource and end what a former run of it has left. Raises AlreadyRunning, NotFound."""
        if key not in self._locks:
            self._locks[key] = self.store.lock(key)
            self.keys.append(key)
            self.runtime.recover(key)

    def take_made(self) -> None:
        """Take up the ways back that belong to a Migration here."""
        uids = {self.store.get(key).metadata.uid for key in self.keys if key.kind == "Migration"}
        for key in self.store.list("ReverseSync") if uids else ():
            found = self.store.get(key)
            if key not in self._locks and any(found.metadata.belongs_to(uid) for uid in uids):
                self.take(key)
                self._made.add(key)

    def forget(self, key: Key) -> None:
        """A way back has taken away what it made: nothing of it is kept, if a Migration here had made it."""
        if key in self._made:
            self._made.discard(key)
            self.keys.remove(key)
            self._locks.pop(key).release()
            self.store.delete(key)

    def release(self) -> None:
        """Reserve nothing any more."""
        for lock in self._locks.values():
            lock.release()


@contextlib.contextmanager
def _reserved(store: LocalStore, keys: Sequence[Key], runtime: LocalRuntime) -> Iterator[_Working]:
    working = _Working(store, runtime)
    try:
        for key in dict.fromkeys(keys):
            working.take(key)
        yield working
    finally:
        working.release()


@contextlib.contextmanager
def _signals(told: threading.Event, *, wanted: bool) -> Iterator[None]:
    """SIGINT and SIGTERM ask the loop to end; the former handlers come back afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM) if wanted else ()
    former = {number: signal.signal(number, lambda *_: told.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Session:
    """One run over a set of resources."""

    def __init__(
        self,
        working: _Working,
        *,
        until: Callable[[Sequence[Resource]], bool],
        on_change: Callable[[Resource], None] | None,
        told: threading.Event,
    ) -> None:
        self._working, self._until, self._on_change, self._told = working, until, on_change, told
        self._store, self._runtime = working.store, working.runtime
        self._reconciler = Reconciler(self._runtime, utc_now)

    async def work(self, *, once: bool, timeout: float | None) -> RunResult:
        """Pass after pass: at once where a phase changed, else when a file changes, a worker ends or time is up."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            outcomes = await self._pass()
            resources = [self._store.get(key) for key in self._working.keys]
            finished = self._finished(resources, outcomes)
            timed_out = time.monotonic() >= deadline
            if finished or once or self._told.is_set() or timed_out:
                interrupted = not finished and self._told.is_set()
                return RunResult(resources, finished, interrupted, timed_out and not finished and not interrupted)
            if not any(outcome.moved for outcome in outcomes):
                await self._rest()

    def _finished(self, resources: Sequence[Resource], outcomes: Sequence[Outcome]) -> bool:
        """Whether what was waited for is so, and decided: a status written by others ends nothing before it was judged
        by what the target says.
        """
        decided = all(outcome.status == resource.status for outcome, resource in zip(outcomes, resources, strict=True))
        return decided and not any(outcome.looking for outcome in outcomes) and self._until(resources)

    async def _pass(self) -> list[Outcome]:
        """One pass over each; a way back that a Migration has made in it has its own in the same one."""
        outcomes: dict[Key, Outcome] = {}
        self._working.take_made()
        while waiting := [key for key in self._working.keys if key not in outcomes]:
            key = waiting[0]
            outcomes[key] = outcome = await self._reconciler.reconcile(key)
            if outcome.changed and self._on_change is not None:
                self._on_change(self._store.get(key))
            if outcome.released:
                self._working.forget(key)
            self._working.take_made()
        return [outcomes[key] for key in self._working.keys]

    async def _rest(self) -> None:
        before, deadline = self._signature(), time.monotonic() + PERIOD
        while time.monotonic() < deadline and not self._told.is_set():
            await asyncio.sleep(_LOOK)
            if self._runtime.some_ended() or self._signature() != before:
                return

    def _signature(self) -> tuple[tuple[str, int], ...]:
        """The files whose change is worth a pass, with the times of their last change."""
        found = []
        for key in self._working.keys:
            folder = self._store.folder(key)
            for path in (folder / "resource.json", folder / "overlay.json", *folder.glob("tasks/*/report.json")):
                with contextlib.suppress(FileNotFoundError):
                    found.append((str(path), path.stat().st_mtime_ns))
        return tuple(sorted(found))
