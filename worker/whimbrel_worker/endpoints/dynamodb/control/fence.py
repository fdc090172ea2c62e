"""Which control rows this process holds, for writes that check them. The rows themselves stand in worker_rows."""

import contextlib
import threading
from collections.abc import Iterator

from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import WorkerRow, held_check
from whimbrel_worker.engine.ports import Identity
from whimbrel_worker.errors import FencedOut


class Fence:
    """The rows that sessions of one target took last. Safe for many threads.

    A session that resolves a lost reply changes its row's attempt; whoever asks for a check meanwhile waits for that.
    """

    def __init__(self, control: ControlTable) -> None:
        self._control = control
        self._lock = threading.RLock()
        self._held: dict[Identity, WorkerRow] = {}

    def hold(self, identity: Identity, row: WorkerRow) -> None:
        """A session holds this row now."""
        with self._lock:
            self._held.pop(identity, None)
            self._held[identity] = row

    def let_go(self, identity: Identity) -> None:
        """A session is closed."""
        with self._lock:
            self._held.pop(identity, None)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While a session changes its row otherwise than by taking it."""
        with self._lock:
            yield

    def check(self) -> dict[str, object]:
        """A transaction's ConditionCheck on the row that was taken last. Raises FencedOut where none is held."""
        with self._lock:
            if not self._held:
                raise FencedOut(
                    "nothing may be written before a control row is taken",
                    where=self._control.where,
                    why="fencedWrites is set, so every write checks the worker's row",
                )
            identity, row = next(reversed(self._held.items()))
        return held_check(self._control, identity, row)
