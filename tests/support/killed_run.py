"""A whole run killed again and again on its way through all phases. What it moves, and what is compared, tests say."""

import random
import threading
import time

from support.live_run import Run, at_least
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase

MOMENTS = (Phase.PREFLIGHT, Phase.SCHEMA, Phase.SNAPSHOT, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING)


def approvable(status: MigrationStatus) -> bool:
    """All gates but the person's are open, or that is long over."""
    waiting = status.cutover.state is CutoverState.AWAITING_APPROVAL
    return status.phase is Phase.COMPLETED or status.phase is Phase.CUTTING_OVER or waiting


def kill_in_every_phase(live: Run, rng: random.Random, application: threading.Event) -> None:
    """SIGKILL to the run and its workers at a random time within each phase; the same command goes on each time.

    `application` is set when the cutover asks for the writes to stop. The migration has Completed in the end.
    """
    killed = 0
    for moment in MOMENTS:
        with live.started() as run:
            live.until(at_least(moment))
            time.sleep(rng.uniform(0, 0.5))  # the moment of death, not a wait for anything
            killed += live.kill(run)
    with live.started() as run:
        live.until(approvable)
        live.approve()
        live.until(at_least(Phase.CUTTING_OVER))
        time.sleep(rng.uniform(0, 0.5))
        killed += live.kill(run)
    application.set()
    with live.started() as run:
        live.until(lambda status: status.cutover.freeze_position != "" or status.phase is Phase.COMPLETED)
        time.sleep(rng.uniform(0, 1.5))
        killed += live.kill(run)
    with live.started() as run:
        assert live.ended(run) == 0, live.log()
    assert killed >= 4, "workers were under way when they died"
    assert live.status().phase is Phase.COMPLETED
    assert live.workers() == {}
