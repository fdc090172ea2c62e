"""Row 9, at the source: a worker that stops or frees the writers dies, or stands still, at any moment of it.

In the end the source is open and the target's journal says so, or the freeze goes on as if nothing had been.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fix_servers import fresh_name
from support.freezing import (
    SUPER_READ_ONLY,
    Frozen,
    can_write,
    freezable,
    locking,
    postgres_target,
    record_of,
    steps,
)
from support.live_run import LiveRun
from support.moves import Move
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLAccess
from whimbrel_testbed.postgres import PostgresServer

pytestmark = pytest.mark.timeout(180)
ACCOUNTS = locking("app@%", "locked_before@%")
UNFREEZE = {"freeze": {"planAttempt": 2}}


@pytest.fixture(scope="module")
def source() -> Iterator[Frozen]:
    with freezable() as frozen:
        frozen.application("locked_before")
        frozen.run("ALTER USER locked_before@'%' ACCOUNT LOCK")
        yield frozen


@dataclass
class Stage:
    """A frozen server, its application, and a migration of its database."""

    source: Frozen
    app: MySQLAccess
    database: str
    move: Move

    def is_open(self) -> None:
        assert can_write(self.app, self.database)
        assert self.source.read_only() == (False, False)
        assert self.source.is_locked("locked_before"), "what was locked before stays so"
        assert record_of(self.move).standing_freeze is None


@pytest.fixture
def stage(source: Frozen, postgres: PostgresServer, postgres_database: str, tmp_path: Path) -> Stage:
    database = fresh_name()
    source.make(database)
    move = postgres_target(source.server.migration, database, postgres, postgres_database, tmp_path)
    return Stage(source, source.application(), database, move)


@pytest.fixture
def ready(stage: Stage) -> Stage:
    stage.move.prepare()
    return stage


def freeze(policy: dict[str, Any]) -> dict[str, Any]:
    return {"freeze": {"quietSeconds": 0.3, "stopWrites": policy, "planAttempt": 1}}


def killed(move: Move, kind: str, place: str, **fields: Any) -> None:
    assert move.start(kind, f"{place}:1", **fields).wait(60) == -signal.SIGKILL, move.log(kind)


@pytest.mark.parametrize("policy", [SUPER_READ_ONLY, ACCOUNTS], ids=["super", "accounts"])
@pytest.mark.parametrize("place", ["freeze.journalled", "freeze.stopped"])
def test_killed_while_freezing_it_goes_on_and_is_undone_as_it_was(
    ready: Stage, policy: dict[str, Any], place: str
) -> None:
    killed(ready.move, "freeze", place, **freeze(policy))
    assert steps(ready.move)[-1] == "freezing"
    if place == "freeze.stopped":
        assert not can_write(ready.app, ready.database)
        assert ready.move.run("freeze", **freeze(policy))[0] == 0
    assert ready.move.run("unfreeze", **UNFREEZE)[0] == 0
    ready.is_open()
    assert steps(ready.move)[-1] == "unfrozen"


@pytest.mark.parametrize(
    ("policy", "place"),
    [(ACCOUNTS, "unfreeze.read"), (SUPER_READ_ONLY, "unfreeze.journalled"), (ACCOUNTS, "unfreeze.undone")],
)
def test_killed_while_unfreezing_the_next_one_ends_it(ready: Stage, policy: dict[str, Any], place: str) -> None:
    assert ready.move.run("freeze", **freeze(policy))[0] == 0
    killed(ready.move, "unfreeze", place, **UNFREEZE)
    assert record_of(ready.move).standing_freeze is not None
    assert ready.move.run("freeze", **freeze(policy))[0] == ExitCode.FENCED_OUT, "its attempt is over"
    assert ready.move.run("unfreeze", **UNFREEZE)[0] == 0
    ready.is_open()
    assert steps(ready.move)[-2:] == ["unfreezing", "unfrozen"]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_freeze_that_stood_still_and_wakes_up_late_leaves_the_source_open(ready: Stage, seed: int) -> None:
    rng = random.Random(seed)
    policy, moment = rng.choice([SUPER_READ_ONLY, ACCOUNTS]), rng.choice([0.0, rng.uniform(0.0, 0.1)])
    print(f"seed {seed}: {policy['method']}, {moment:.3f} s after it had been journalled")
    zombie = ready.move.start("freeze", **freeze(policy))
    table = "SELECT 1 FROM whimbrel.journal WHERE step = 'freezing'"
    eventually(lambda: ready.move.look(table), often=0.002)
    time.sleep(moment)  # the moment at which it stands still, not a wait for anything
    os.kill(zombie.pid, signal.SIGSTOP)
    code, report = ready.move.run("unfreeze", **UNFREEZE)
    assert code == 0, report.last_error
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.wait(60)
    ready.is_open()


def test_a_run_killed_whole_while_the_source_is_frozen_opens_it_when_it_is_given_up(
    stage: Stage,
) -> None:
    policy = {"sourceFreeze": "Operator", "freeze": SUPER_READ_ONLY}
    live = LiveRun(stage.move, stage.source.server, stage.database, cutover=policy)
    with live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        live.approve()
        live.until(lambda _: stage.source.read_only() == (True, True))
        live.kill(run)
    assert live.status().cutover.source_frozen
    live.store.patch_spec(live.key, {"cutover": {"approvedPlan": ""}})
    with live.started():
        live.until(lambda status: status.phase is Phase.FOLLOWING)
        stage.is_open()
    assert "ApprovalWithdrawn" in [event.reason for event in live.events()]
