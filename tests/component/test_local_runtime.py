"""The local runtime with real child processes, which play workers without databases (`support.fake_worker`)."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import fake_worker
from support.memory_runtime import KEY, migration
from support.world import Failure, World
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.cutover import CutoverMode, CutoverState
from whimbrel_api.migration import CheckResult, Migration, Phase, Snapshot
from whimbrel_api.reports import ErrorCategory, Record, ReportedError
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import Validation, ValidationPhase, ValidationSpec
from whimbrel_operator.errors import AlreadyRunning
from whimbrel_operator.loop import RunResult, run
from whimbrel_operator.runtime.processes import birth_of, is_alive
from whimbrel_operator.runtime.store import Key, LocalStore, Resource

COPIED = World(record=Record(exists=True, source_id="s1", epoch=1, start_position="p1", snapshot_complete=True))
WORKER = (sys.executable, str(Path(fake_worker.__file__)))
RUNNER = """
import sys
from pathlib import Path
from whimbrel_operator.loop import run
from whimbrel_operator.runtime.store import Key, LocalStore
run(LocalStore(Path(sys.argv[1])), [Key("default", "Migration", "shop")], worker=sys.argv[2:], grace=3)
"""


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not so within its time"
        time.sleep(0.02)


class Laptop:
    """A state directory, a world, and workers over both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "state")
        self.world_file = folder / "world.json"
        self.set_world(COPIED)
        self.store.put_secret("default", "src", {"username": "u", "password": "s3cret-word"})
        self.store.put_secret("default", "dst", {"username": "u", "password": "s3cret-word"})

    def set_world(self, world: World) -> None:
        fresh = self.folder / "world.fresh"
        fresh.write_text(world.model_dump_json())
        fresh.replace(self.world_file)

    def world(self) -> World:
        return World.model_validate_json(self.world_file.read_text())

    def run(self, *keys: Key, **options: object) -> RunResult:
        settings = {"worker": WORKER, "grace": 3.0, "timeout": 40.0, "handle_signals": False, **options}
        return run(self.store, keys or (KEY,), **settings)  # type: ignore[arg-type]

    def migration(self) -> Migration:
        found = self.store.get(KEY)
        assert isinstance(found, Migration)
        return found

    def pids(self) -> list[tuple[int, str]]:
        known = [each.known() for each in self.store.instances(KEY)]
        return [(each.pid, each.birth) for each in known if each is not None and each.running]

    @contextlib.contextmanager
    def runner(self) -> Iterator["subprocess.Popen[bytes]"]:
        """`whimbrel run` as another process."""
        argv = [sys.executable, "-c", RUNNER, str(self.store.root), *WORKER]
        child = subprocess.Popen(argv)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait(10)
            until(lambda: not any(is_alive(*each) for each in self.pids()))


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    laptop = Laptop(tmp_path)
    monkeypatch.setenv("WHIMBREL_WORLD", str(laptop.world_file))
    return laptop


def phase_is(phase: Phase) -> Callable[[list[Resource]], bool]:
    return lambda resources: resources[0].status.phase is phase


def test_a_migration_runs_to_its_end_and_leaves_no_process(laptop: Laptop) -> None:
    laptop.set_world(World())
    laptop.store.put(migration(cutover={"mode": CutoverMode.AUTOMATIC}, snapshot=Snapshot(workers=3)))
    seen: list[str] = []
    result = laptop.run(on_change=lambda resource: seen.append(resource.status.phase.value))
    assert result.finished, laptop.store.log_tail(KEY)
    order = [phase.value for phase in Phase if phase is not Phase.CANCELLED][1:]
    assert list(dict.fromkeys(seen)) == order
    assert laptop.migration().status.cutover.state is CutoverState.SWITCHED
    assert laptop.store.instances(KEY) == []
    assert [event.reason for event in laptop.store.events(KEY)][-2:] == ["Switched", "CutoverSwitched"]


def test_approval_pause_and_resume_reach_a_running_migration(laptop: Laptop) -> None:
    laptop.store.put(migration())
    with laptop.runner() as child:
        until(lambda: laptop.migration().status.cutover.state is CutoverState.AWAITING_APPROVAL)
        laptop.store.patch_spec(KEY, {"paused": True})
        until(lambda: laptop.store.instances(KEY) == [])
        assert laptop.migration().status.phase is Phase.FOLLOWING
        laptop.store.patch_spec(KEY, {"paused": False})
        laptop.store.patch_spec(KEY, {"cutover": {"approvedPlan": laptop.migration().status.plan.hash}})
        until(lambda: laptop.migration().status.phase is Phase.COMPLETED)
        assert child.wait(10) == 0


def test_two_runs_of_one_resource_do_not_work_at_once(laptop: Laptop) -> None:
    laptop.store.put(migration())
    with laptop.runner() as child:
        until(lambda: laptop.migration().status.phase is Phase.FOLLOWING)
        with pytest.raises(AlreadyRunning, match=f"process {child.pid} works on it already"):
            laptop.run()


def test_a_killed_runner_leaves_no_worker_and_the_next_run_goes_on(laptop: Laptop) -> None:
    laptop.store.put(migration())
    with laptop.runner() as child:
        until(lambda: laptop.migration().status.phase is Phase.FOLLOWING and len(laptop.pids()) > 0)
        before = laptop.pids()
        child.kill()
        child.wait(10)
        until(lambda: not any(is_alive(*each) for each in before))
    result = laptop.run(until=lambda resources: resources[0].status.cutover.state is CutoverState.AWAITING_APPROVAL)
    assert result.finished
    assert laptop.world().record.epoch == 1


def test_an_orphan_of_a_former_run_is_ended_first(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.store.put(migration())
    laptop.run(until=phase_is(Phase.FOLLOWING))
    orphan = subprocess.Popen(["sleep", "300"], start_new_session=True)
    instance = next(each for each in laptop.store.instances(KEY) if each.name == "stream-0")
    known = instance.known()
    assert known is not None
    changed = {"exit_code": None, "pid": orphan.pid, "birth": birth_of(orphan.pid)}
    instance.keep(type(known)(**{**known.__dict__, **changed}))
    reaper = threading.Thread(target=orphan.wait)
    reaper.start()
    laptop.run(once=True)
    reaper.join(5)
    assert orphan.returncode == -signal.SIGTERM


def test_another_process_with_the_same_number_is_left_alone(laptop: Laptop) -> None:
    laptop.store.put(migration())
    laptop.run(until=phase_is(Phase.FOLLOWING))
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        instance = next(each for each in laptop.store.instances(KEY) if each.name == "stream-0")
        known = instance.known()
        assert known is not None
        instance.keep(type(known)(**{**known.__dict__, "exit_code": None, "pid": stranger.pid, "birth": "1"}))
        laptop.run(once=True)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_interrupt_stops_the_workers_and_a_later_run_goes_on(laptop: Laptop) -> None:
    laptop.store.put(migration())
    with laptop.runner() as child:
        until(lambda: laptop.migration().status.phase is Phase.FOLLOWING and len(laptop.pids()) > 0)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
    codes = [known.exit_code for each in laptop.store.instances(KEY) if (known := each.known()) is not None]
    assert codes
    assert set(codes) <= {ExitCode.TOLD_TO_STOP, ExitCode.DONE}
    assert laptop.run(until=lambda found: found[0].status.cutover.state is CutoverState.AWAITING_APPROVAL).finished


def test_a_worker_that_ignores_the_request_is_killed(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.store.put(migration())
    monkeypatch.setenv("WHIMBREL_STUBBORN", "1")
    seen: list[tuple[int, str]] = []

    def following(resources: list[Resource]) -> bool:
        seen.extend(laptop.pids())
        return resources[0].status.phase is Phase.FOLLOWING

    laptop.run(until=following, grace=0.3)
    assert seen
    assert not any(is_alive(*each) for each in seen)


def test_failures_are_tried_again_with_a_growing_wait_over_restarts(laptop: Laptop) -> None:
    error = ReportedError(
        category=ErrorCategory.CONFIGURATION, what="the password is wrong", where="mysql:3306", todo="fix Secret src"
    )
    laptop.set_world(World(failures={TaskKind.PREFLIGHT: Failure(code=ExitCode.CONFIGURATION, error=error)}))
    laptop.store.put(migration())
    laptop.run(until=lambda found: any(c.type == "Stalled" and c.status == "True" for c in found[0].status.conditions))
    stalled = next(c for c in laptop.migration().status.conditions if c.type == "Stalled")
    assert stalled.reason == "ConfigurationError"
    for part in ("the password is wrong", "mysql:3306", "fix Secret src"):
        assert part in stalled.message
    result = laptop.run(timeout=1.5)
    assert result.timed_out
    known = laptop.store.instances(KEY)[0].known()
    assert known is not None
    assert known.failures == 1, "a restart must not cut the wait short"
    laptop.store.patch_spec(KEY, {"snapshot": {"workers": 1}})

    def failed_twice(_: object) -> bool:
        again = laptop.store.instances(KEY)[0].known()
        return again is not None and again.failures == 2

    laptop.run(until=failed_twice)
    assert failed_twice(None), "a changed spec is tried again"


def test_a_lost_status_is_rebuilt_from_the_target(laptop: Laptop) -> None:
    laptop.store.put(migration(cutover={"mode": CutoverMode.AUTOMATIC}))
    assert laptop.run().finished
    (laptop.store.folder(KEY) / "status.json").unlink()
    seen: list[str] = []
    assert laptop.run(on_change=lambda resource: seen.append(resource.status.phase.value)).finished
    assert list(dict.fromkeys(seen)) == ["Preflight", "Completed"]


def test_a_missing_secret_is_named_and_nothing_starts(laptop: Laptop) -> None:
    laptop.store.put(migration(source={"mysql": {"host": "h", "credentialsSecretRef": {"name": "other"}}}))
    laptop.run(timeout=0.5)
    stalled = next(c for c in laptop.migration().status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "SecretNotFound")
    assert "Secret other not found" in stalled.message
    assert laptop.store.instances(KEY) == []


def test_secrets_reach_workers_as_private_files_only(laptop: Laptop) -> None:
    laptop.store.put(migration())
    laptop.run(until=phase_is(Phase.FOLLOWING))
    holding = []
    for path in laptop.folder.rglob("*"):
        if path.is_file() and b"s3cret-word" in path.read_bytes():
            holding.append(path)
            assert path.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in holding) == ["password", "password"]
    assert laptop.store.root.stat().st_mode & 0o077 == 0


def test_a_validation_of_a_running_migration(laptop: Laptop) -> None:
    laptop.store.put(migration())
    spec = ValidationSpec(migration_ref=SecretRef(name="shop"), workers=2)
    key = laptop.store.put(Validation(metadata=ObjectMeta(name="compare"), spec=spec))
    result = laptop.run(KEY, key, until=lambda found: found[1].status.phase is ValidationPhase.COMPLETED)
    assert result.finished
    status, _ = laptop.store.read_status(key)
    assert status.result is CheckResult.EQUAL  # type: ignore[union-attr]
    assert laptop.migration().status.phase in (Phase.FOLLOWING, Phase.CATCH_UP)


def test_once_is_a_single_pass(laptop: Laptop) -> None:
    laptop.store.put(migration())
    result = laptop.run(once=True)
    assert not result.finished
    assert laptop.migration().status.phase is Phase.PREFLIGHT
    assert laptop.pids() == []


def test_the_workers_log_is_kept_and_shown(laptop: Laptop) -> None:
    laptop.store.put(migration())
    laptop.run(until=phase_is(Phase.FOLLOWING))
    assert laptop.store.log_tail(KEY)["stream-0"] == ["stream stream begins"]
    assert os.environ["WHIMBREL_WORLD"]
