"""Traffic in a thread of its own: how it is started, watched and ended. What it does stands with each kind."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

from whimbrel_testbed.cache import TestbedError

C = TypeVar("C")


class Background(ABC, Generic[C]):
    """A context, or `start` and `stop`. Subclasses are dataclasses; `unit` is what `rate` counts in a second."""

    unit: ClassVar[str]
    fails_by: ClassVar[tuple[type[Exception], ...]]
    """Errors that end the traffic early; `stop` tells of them."""
    seed: int
    rate: float

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._counts = self.none()
        self._error: Exception | None = None

    @abstractmethod
    def none(self) -> C:
        """Nothing done yet."""

    @abstractmethod
    def work(self, stop: threading.Event, note: Callable[[C], None]) -> None:
        """Go on until stopped; `note` is told about once a second what was done so far."""

    def start(self) -> Self:
        """Start; the seed is printed, so that a failure can be repeated."""
        print(f"traffic: seed {self.seed}, {self.rate} {self.unit}/s", flush=True)
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()
        return self

    @property
    def counts(self) -> C:
        """What was done up to about a second ago."""
        return self._counts

    def stop(self) -> C:
        """End it after what is under way; raise TestbedError where it had failed. May be called again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.raise_failure()
        return self._counts

    def raise_failure(self) -> None:
        """Raise TestbedError where it has failed."""
        if self._error is not None:
            raise TestbedError(f"the traffic ended early: {self._error}") from self._error

    def _run(self) -> None:
        try:
            self.work(self._stop, self._note)
        except self.fails_by as error:
            self._error = error

    def _note(self, counts: C) -> None:
        self._counts = counts

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._stop.set()
