"""The loop of the local runtime: what ends a run. No worker is started that does anything."""

import sys
from pathlib import Path

from support.memory_runtime import migration
from whimbrel_api.cutover import CutoverState, CutoverStatus
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator import loop
from whimbrel_operator.runtime.store import LocalStore, Resource

IDLE = (sys.executable, "-c", "import signal; signal.pause()")


def test_a_status_forged_between_the_pass_and_the_look_ends_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = store.put(migration())

    def forge(_: Resource) -> None:
        found, version = store.read_status(key)
        store.write_status(key, found.model_copy(update={"phase": Phase.COMPLETED}), version)

    result = loop.run(store, [key], timeout=0, on_change=forge, worker=IDLE, grace=0.1, handle_signals=False)
    assert not result.finished
    assert result.timed_out


def test_an_end_that_was_decided_ends_the_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = store.put(migration())
    switched = CutoverStatus(state=CutoverState.SWITCHED)
    store.write_status(key, MigrationStatus(phase=Phase.COMPLETED, cutover=switched), 0)
    result = loop.run(store, [key], timeout=5, worker=IDLE, grace=0.1, handle_signals=False)
    assert result.finished
    assert result.resources[0].status.phase is Phase.COMPLETED
