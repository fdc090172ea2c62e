"""A comparison by plain reads that runs beside the migration. What is read, and how, stands with each stage."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from whimbrel_testbed.cache import TestbedError


class Comparison:
    """Both sides at one moment, called `when`. It reads in a thread of its own from now on."""

    def __init__(self, when: str, compare: Callable[[], list[str]]) -> None:
        self.when = when
        self._compare = compare
        self._found: Future[list[str]] = Future()
        self._began = time.monotonic()
        self._ended = self._began
        # A daemon: a demo that is broken off takes its servers away, and waits for no reader of theirs.
        threading.Thread(target=self._read, name="comparison", daemon=True).start()

    def ready(self) -> bool:
        """Whether it has ended."""
        return self._found.done()

    @property
    def took(self) -> float:
        """How many seconds it read, once it is done."""
        return self._ended - self._began

    @property
    def differences(self) -> list[str]:
        """What differs, in words; waits until it is done. Raises TestbedError where the reading failed."""
        return self._found.result()

    def _read(self) -> None:
        try:
            found = self._compare()
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            failure = TestbedError(f"the comparison {self.when} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._found.set_exception(failure)
        else:
            self._ended = time.monotonic()
            self._found.set_result(found)
