"""A slot's stream as changes of items: each row through the layout. What is done with them, the engine knows."""

from collections.abc import Callable, Iterator, Sequence

from whimbrel_worker.endpoints.polardb.log.changes import Committed, Event, Marker, RowChange, Truncated
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream
from whimbrel_worker.endpoints.polardb.rows.items import ItemWrite
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout
from whimbrel_worker.endpoints.polardb.slot.slots import HEARTBEAT
from whimbrel_worker.engine.reverse_ports import Beat, Emptied, Ended, ItemsChanged, Refused, ReverseEvent
from whimbrel_worker.errors import Incompatible

_MICROSECONDS = 1_000_000


class LayoutLog:
    """Implements engine.reverse_ports.ReverseLog."""

    def __init__(self, stream: ReplicationStream, layout: ItemLayout) -> None:
        self._stream, self._layout = stream, layout
        self.acknowledge: Callable[[int], None] = stream.acknowledge
        self.keep_alive: Callable[[], None] = stream.keep_alive
        self.close: Callable[[], None] = stream.close

    def poll(self, timeout_seconds: float) -> Sequence[ReverseEvent]:
        """What has come."""
        return [made for event in self._stream.poll(timeout_seconds) for made in self._made(event)]

    def _made(self, event: Event) -> Iterator[ReverseEvent]:
        match event:
            case RowChange():
                yield from self._change(event)
            case Committed():
                yield Ended(event.end_lsn)
            case Marker(prefix=prefix) if prefix == HEARTBEAT:
                yield Beat(event.content)
            case Truncated():
                for relation in event.relations:
                    if (table := self._layout.table_name(relation)) is not None:
                        yield Emptied(table, event.commit_lsn)
            case _:
                pass  # a marker of somebody else's

    def _change(self, change: RowChange) -> Iterator[ReverseEvent]:
        table = self._layout.table_name(change.relation)
        if table is None:
            return
        try:
            writes = self._layout.writes(change)
        except Incompatible as error:
            yield Refused(table, str(error), change.commit_lsn)
            return
        yield ItemsChanged(table, [_pair(write) for write in writes], change.commit_lsn, change.at / _MICROSECONDS)


def _pair(write: ItemWrite) -> tuple[tuple[bytes, ...], bytes | None]:
    return write.key, write.item
