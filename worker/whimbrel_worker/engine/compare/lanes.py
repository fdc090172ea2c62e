"""Lanes: pairs of readers that work on parts of one table at once, a thread each. What they compare is elsewhere."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from whimbrel_worker.engine.ports import SourceReader, TargetReader


@dataclass(frozen=True, slots=True)
class Lane:
    """One reader a side."""

    source: SourceReader
    target: TargetReader


Job = Callable[[Lane], Iterator[None]]
"""Work in a lane; it gives a turn whenever it may be left."""


def in_lanes(lanes: Sequence[Lane], jobs: Sequence[Job]) -> None:
    """Do all jobs, each in the lane that is free first. The first error ends the others at their next turn."""
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failed = threading.Event()
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as pool:
        # With what the code around is about, for the log.
        working = [pool.submit(copy_context().run, _work, lane, waiting, failed) for lane in lanes[: len(jobs)]]
        wait(working, return_when=FIRST_EXCEPTION)
        if any(each.done() and each.exception() is not None for each in working):
            failed.set()
    errors = [error for each in working if (error := each.exception()) is not None]
    if errors:
        raise errors[0]


def _work(lane: Lane, waiting: SimpleQueue[Job], failed: threading.Event) -> None:
    while not failed.is_set():
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        turns = job(lane)
        for _ in turns:
            if failed.is_set():
                return
