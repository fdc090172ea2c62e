"""Reading and writing side by side: a thread reads batches ahead, bounded in bytes, and its errors come out where
they are used."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from whimbrel_worker.values.blocks import RowBlock
from whimbrel_worker.values.columns import Row

Batch = Sequence[Row]
_AHEAD_BYTES: Final = 8 << 20
_AHEAD_BATCHES: Final = 2
_PATIENCE_SECONDS: Final = 30.0
"""How long the end of a read that is under way is waited for; it is needed for nothing any more."""


class _Ahead:
    """Batches that were read and not used yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._ended = self._abandoned = False
        self._failure: BaseException | None = None

    def put(self, batch: Batch) -> bool:
        """Add a batch once there is room. Returns false when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._has_room(_size(batch)))
            if not self._abandoned:
                self._batches.append(batch)
                self._bytes += _size(batch)
                self._changed.notify_all()
            return not self._abandoned

    def end(self, failure: BaseException | None) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let the reader stop."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def get(self) -> Batch | None:
        """The next batch, or None at the end. Raises what the reader raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._ended)
            if self._batches:
                batch = self._batches.popleft()
                self._bytes -= _size(batch)
                self._changed.notify_all()
                return batch
        if self._failure is not None:
            raise self._failure
        return None

    def _has_room(self, size: int) -> bool:
        return not self._batches or (self._bytes + size <= _AHEAD_BYTES and len(self._batches) < _AHEAD_BATCHES)


def _size(batch: Batch) -> int:
    return batch.size if isinstance(batch, RowBlock) else 0


@contextlib.contextmanager
def read_ahead(batches: Iterator[Batch]) -> Iterator[Callable[[], Batch | None]]:
    """A function that gives the next batch, or None after the last; a thread of their own reads them ahead of its
    callers."""
    ahead = _Ahead()

    def read() -> None:
        failure: BaseException | None = None
        try:
            for batch in batches:
                if not ahead.put(batch):
                    break
        except BaseException as error:  # noqa: BLE001 - handed to the thread that uses the batches
            failure = error
        finally:
            with contextlib.suppress(AttributeError):
                batches.close()  # type: ignore[attr-defined]  # generators have it: it frees the connection
            ahead.end(failure)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield ahead.get
    finally:
        ahead.abandon()
        thread.join(_PATIENCE_SECONDS)
