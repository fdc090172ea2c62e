"""Row 10 of the fault matrix: the status wiped, rewound or forged under a running migration over real servers.

It is rebuilt from the target's control tables, no phase is skipped, and each life ends by an independent comparison.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from support.churn import CHURNED, churning, make_churned
from support.live_run import LiveRun, at_least
from support.moves import Move
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 1500}}
Status = dict[str, Any]


def read(live: LiveRun) -> Status:
    """The status as it lies in its file."""
    found: Status = json.loads(live.status_file.read_text())["status"]
    return found


def wipe(live: LiveRun, _old: Status) -> None:
    live.status_file.unlink()


def empty(live: LiveRun, _old: Status) -> None:
    live.rewrite({})


def rewind(live: LiveRun, old: Status) -> None:
    live.rewrite(old)


def forge(live: LiveRun, _old: Status) -> None:
    """It claims to be at its end."""
    live.rewrite(read(live) | {"phase": "Completed", "progress": "100%"})


HANDS: tuple[Callable[[LiveRun, Status], None], ...] = (wipe, empty, rewind, forge)


def chunks_done(live: LiveRun) -> int:
    return int(live.move.look("SELECT count(*) FROM whimbrel.chunks WHERE state = 'done'")[0][0])


def began(live: LiveRun) -> list[tuple[Any, ...]]:
    """What the target knows of the migration and must never be begun anew: epoch and start position."""
    return live.move.look("SELECT epoch, start_position FROM whimbrel.migrations")


def tampered(live: LiveRun, hand: Callable[[LiveRun, Status], None], old: Status, phase: Phase) -> None:
    """Lay hands on the status, and wait until it shows again what the target knows."""
    done, known, epoch = chunks_done(live), began(live), live.status().epoch
    hand(live, old)

    def rebuilt(status: MigrationStatus) -> bool:
        return at_least(phase)(status) and status.phase is not Phase.COMPLETED and status.epoch == epoch

    live.until(rebuilt)
    assert began(live) == known, "the target is not begun anew"
    assert chunks_done(live) >= done, "no chunk that was done is copied again"


@pytest.mark.parametrize(("seed", "target"), [(1, "postgres_move"), (2, "dsql_move"), (3, "postgres_move")])
def test_row_10_a_status_wiped_rewound_or_forged_in_every_phase(
    request: pytest.FixtureRequest, mysql: MySQLServer, mysql_database: str, seed: int, target: str
) -> None:
    move: Move = request.getfixturevalue(target)
    rng = random.Random(seed)
    print(f"seed {seed}, {target}")
    live = LiveRun(move, mysql, mysql_database, snapshot=SLOW_COPY, stream={"flushInterval": "50ms"})
    make_churned(live, 1500)
    with churning(live, rng, 1500) as stop, live.started() as run:
        live.until(lambda status: bool(status.plan.hash))
        old = read(live)
        live.until(lambda status: status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0)
        tampered(live, rng.choice(HANDS), old, Phase.SNAPSHOT)
        live.until(at_least(Phase.CATCH_UP))
        tampered(live, rng.choice(HANDS), old, Phase.CATCH_UP)
        live.until(at_least(Phase.FOLLOWING))
        for hand in rng.sample(HANDS, 2):
            tampered(live, hand, old, Phase.FOLLOWING)
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        live.approve()
        live.until(at_least(Phase.CUTTING_OVER))
        rng.choice(HANDS)(live, old)
        stop.set()
        assert live.ended(run) == 0, live.log()
    status, known = live.status(), began(live)
    assert status.phase is Phase.COMPLETED
    assert live.differences(CHURNED) == []
    old_hands(live, old, known, status)


def old_hands(live: LiveRun, old: Status, known: list[tuple[Any, ...]], status: MigrationStatus) -> None:
    """After the end: whatever the status says, the target says that it is over, and nothing is fenced or copied."""
    for hand in (wipe, rewind):
        hand(live, old)
        with live.started() as run:
            assert live.ended(run) == 0, live.log()
        assert live.status().phase is Phase.COMPLETED
        assert live.status().epoch == status.epoch
        assert began(live) == known
    assert live.differences(CHURNED) == []
