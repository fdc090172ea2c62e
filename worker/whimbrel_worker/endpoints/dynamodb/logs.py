"""Which change log a table has, DynamoDB Streams or a Kinesis data stream, and the one interface of both.

What each log does stands in streams and in kinesis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.endpoints.dynamodb.kinesis.log import KinesisLog
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import is_kinesis
from whimbrel_worker.endpoints.dynamodb.preflight.estimate import STREAM_KEPT_SECONDS
from whimbrel_worker.endpoints.dynamodb.streams.gaps import other_stream
from whimbrel_worker.endpoints.dynamodb.streams.shards import ShardLog
from whimbrel_worker.endpoints.dynamodb.streams.switch import StreamSwitch, capture
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import describe
from whimbrel_worker.engine.shard_ports import Page, Shard, ShardRef, ShardRow
from whimbrel_worker.values.columns import Table


@dataclass(slots=True)
class Logs:
    """The change logs of one source. Safe for many threads."""

    own: ShardLog
    kinesis: KinesisLog
    _switch: StreamSwitch = field(init=False)

    def __post_init__(self) -> None:
        self._switch = StreamSwitch(self.own.client, self.own)

    def by_kinesis(self, table: str) -> bool:
        """Whether a Kinesis data stream follows the table."""
        return bool(self.kinesis.streams.named(table))

    def lacking(self, names: Sequence[str]) -> list[str]:
        """The tables without a stream that one is to be enabled for. Raises Incompatible for one that is not ours."""
        for name in names:
            if self.by_kinesis(name):
                self.kinesis.require(name)
        return self._switch.lacking([name for name in names if not self.by_kinesis(name)])

    def enable(self, names: Sequence[str]) -> list[str]:
        """Enable the streams that are missing and wait until all are active. Returns the tables that had none."""
        return self._switch.enable([name for name in names if not self.by_kinesis(name)])

    def disable(self, names: Sequence[str]) -> None:
        """Disable the streams; tables without one, or that are gone, are fine."""
        self._switch.disable(names)

    def capture(self, tables: Sequence[Table]) -> list[ShardRow]:
        """All shards of the tables' streams with positions not after this moment; before the first read."""
        own = [table for table in tables if not self.by_kinesis(table.source_name)]
        others = [table for table in tables if self.by_kinesis(table.source_name)]
        return [*(capture(self.own, own) if own else ()), *self.kinesis.capture(others)]

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now. Raises SourceLogLost when there is no stream any more."""
        return self.kinesis.shards(table) if self.by_kinesis(table.source_name) else self.own.shards(table)

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position, one a request, for ever until the shard has ended."""
        return self.kinesis.read(table, row) if is_kinesis(row.ref.stream) else self.own.read(table, row)

    def verify(self, row: ShardRow) -> None:
        """Raise SourceLogLost unless all records after the row's position are still there."""
        if is_kinesis(row.ref.stream):
            self.kinesis.verify(row)
        else:
            self.own.verify(row)

    def has_stream(self, table: str, stream: str) -> bool:
        """Whether the table is there. Raises SourceLogLost when its stream is another one."""
        if is_kinesis(stream):
            return self.kinesis.has_stream(table, stream)
        self.own.forget(table)
        described = describe(self.own.client, table)
        if described is not None and described.stream != stream:
            raise other_stream(table, stream, described.stream)
        return described is not None

    def kept(self, ref: ShardRef) -> float:
        """For how many seconds the shard's stream keeps a record."""
        return self.kinesis.kept(ref.stream) if is_kinesis(ref.stream) else STREAM_KEPT_SECONDS
