"""A bounded number of threads over any number of shards: each is with one thread at a time, the longest due first.

What a shard's turn does stands in reading.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

from whimbrel_worker.engine.shard_ports import ShardRef
from whimbrel_worker.engine.shards.reading import Reading

_JOIN_SECONDS: Final = 30.0


class Pool:
    """`ended` hears of each shard that is read to its end, in the thread that read it; `failed` of a thread's error."""

    def __init__(self, threads: int, ended: Callable[[Reading], None], failed: Callable[[BaseException], None]) -> None:
        self._ended, self._failed = ended, failed
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Reading]] = []
        self._turns: dict[ShardRef, int] = {}
        self._numbers = itertools.count()
        self._readings: dict[ShardRef, Reading] = {}
        self._stopping = False
        self._most, self._threads = threads, list[threading.Thread]()

    def readings(self) -> list[Reading]:
        """All shards in here."""
        with self._changed:
            return list(self._readings.values())

    def holds(self, ref: ShardRef) -> bool:
        """Whether this shard is in here, dropped or not."""
        return ref in self._readings

    def add(self, reading: Reading) -> None:
        """Read this shard."""
        with self._changed:
            self._readings[reading.ref] = reading
            self._schedule(reading, 0.0)
            if len(self._threads) < min(self._most, len(self._readings)) and not self._stopping:
                self._hire()

    def drop(self, ref: ShardRef) -> None:
        """Give this shard back once its page is done."""
        with self._changed:
            reading = self._readings.get(ref)
            if reading is not None and not reading.dropped:
                reading.dropped = True
                if ref in self._turns:
                    self._schedule(reading, 0.0)

    def hasten(self) -> None:
        """Let every shard that waits have its turn now."""
        with self._changed:
            for ref in list(self._turns):
                self._schedule(self._readings[ref], 0.0)

    def finish(self, timeout: float = _JOIN_SECONDS) -> bool:
        """Let the pages that are under way be done, begin no other. Whether all threads have ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _hire(self) -> None:
        """One thread more: no more of them than shards, as each keeps the memory of its greatest page."""
        thread = threading.Thread(target=self._work, name=f"shards-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _schedule(self, reading: Reading, wait: float) -> None:
        """A shard waits in one turn only: the newest; older ones in the heap count for nothing."""
        turn = next(self._numbers)
        self._turns[reading.ref] = turn
        heapq.heappush(self._due, (time.monotonic() + wait, turn, reading))
        self._changed.notify()

    def _work(self) -> None:
        try:
            while (reading := self._next()) is not None:
                self._serve(reading)
        except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
            self._failed(error)

    def _serve(self, reading: Reading) -> None:
        wait = None if reading.dropped else reading.step()
        if wait is not None:
            with self._changed:
                if not reading.dropped:
                    self._schedule(reading, wait)
                    return
        reading.let_go()
        with self._changed:
            self._readings.pop(reading.ref, None)
        self._ended(reading)

    def _next(self) -> Reading | None:
        with self._changed:
            while not self._stopping:
                wait = self._until_due()
                if wait is not None and wait <= 0:
                    _, _, reading = heapq.heappop(self._due)
                    del self._turns[reading.ref]
                    return reading
                self._changed.wait(wait)
            return None

    def _until_due(self) -> float | None:
        while self._due and self._turns.get(self._due[0][2].ref) != self._due[0][1]:
            heapq.heappop(self._due)
        return self._due[0][0] - time.monotonic() if self._due else None
