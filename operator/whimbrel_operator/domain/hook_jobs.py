"""A hook or switch of one cutover, as it is asked for and as its Job is observed. When one runs is told in hooks."""

from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.hooks import Hook, HookPoint, HookState, SwitchStep


@dataclass(frozen=True)
class HookRun:
    """One hook or switch of one attempt. `run_id` tells it from all others of the Migration, in 63 characters."""

    point: HookPoint
    work: Hook | SwitchStep
    run_id: str
    attempt: int


@dataclass(frozen=True)
class HookJob:
    """The Job of a run as it is found. `deleting`: it goes as soon as its pod has ended."""

    run_id: str
    point: HookPoint
    name: str
    job: str
    state: HookState
    started_at: datetime
    finished_at: datetime | None = None
    message: str = ""
    deleting: bool = False


@dataclass(frozen=True)
class WantedHook:
    """A run whose Job shall go on. `start` False: what is there may end, nothing is started."""

    run: HookRun
    start: bool = True
