"""Kinesis data streams as a table's change log: shards, positions before the first read, and what is lost.

How one shard is read stands in reading; the streams themselves in streams. A shard is a row for each
table that the stream carries, because each table has a position of its own; a reader leaves the other tables' out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.kinesis.reading import KinesisShard
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import (
    Destination,
    KinesisStreams,
    StreamState,
    arn_of,
    as_shard,
)
from whimbrel_worker.endpoints.dynamodb.streams.gaps import destination_off, other_stream, scattered
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, describe, each
from whimbrel_worker.engine.shard_ports import Page, Shard, ShardRow, ShardState
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Table

_SAFETY_SECONDS: Final = 15 * 60.0
"""How much older than the capture a change may be and still be applied: until then it may not have arrived."""


@dataclass(slots=True)
class KinesisLog:
    """The Kinesis data streams of one source; `keep_ttl`: whether deletes by time to live are applied."""

    streams: KinesisStreams
    keep_ttl: bool = True

    def require(self, table: str) -> tuple[Destination, StreamState]:
        """The table's stream, into which its changes go now. Raises Incompatible."""
        destination = self.streams.destination(table)
        if not destination.is_written:
            raise not_followed(table, self.streams.named(table), destination)
        self.streams.forget(destination.arn)
        state = self.streams.state(destination.arn)
        if state is None or not state.is_readable:
            raise not_readable(table, destination.arn, state)
        if state.scatters:
            raise not_ordered(table, destination.arn)
        return destination, state

    def capture(self, tables: Sequence[Table]) -> list[ShardRow]:
        """Rows for all shards of the tables' streams, with positions not after this moment.

        A closed shard is Done: what it holds was written before, and a consistent read later sees it. An open one is
        read from a margin before this moment on: a change that was made before it may still be on its way.
        """
        moment = self.streams.client.clock()
        return [row for found in each(lambda table: self._rows(table, moment), tables) for row in found]

    def _rows(self, table: Table, moment: float) -> list[ShardRow]:
        self.require(table.source_name)
        rows: list[ShardRow] = []
        for shard in self.shards(table):
            row = ShardRow(shard.ref, shard.parent, adjacent=shard.adjacent, skip_before=moment - _SAFETY_SECONDS)
            done = ShardRow(shard.ref, shard.parent, ShardState.DONE, adjacent=shard.adjacent)
            rows.append(done if shard.closed else row)
        return rows

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now. Raises SourceLogLost when changes no longer go into it."""
        name = table.source_name
        try:
            destination = self.streams.destination(name)
        except Refused as refusal:
            if refusal.code == NOT_FOUND:
                raise other_stream(table.name, "", "") from refusal
            raise
        if not destination.is_written:
            raise destination_off(table.name, self.streams.named(name), destination.status)
        listed, state = self.streams.listed(destination.arn), self.streams.state(destination.arn)
        if listed is None or state is None:
            self.streams.forget(destination.arn)
            raise other_stream(table.name, destination.arn, "")
        if state.scatters:
            raise scattered(table.name, destination.arn)
        return [as_shard(table.name, state.stream, shard) for shard in listed]

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position, for ever until the shard has ended. Raises SourceLogLost, Incompatible."""
        return self._shard(row).pages(table)

    def verify(self, row: ShardRow) -> None:
        """Raise SourceLogLost unless all records after the row's position are still there."""
        self._shard(row).needed_from()

    def has_stream(self, table: str, stream: str) -> bool:
        """Whether the table is there. Raises SourceLogLost when its changes no longer go into this very stream."""
        if describe(self.streams.client, table) is None:
            return False
        destination = self.streams.destination(table)
        if not destination.is_written:
            raise destination_off(table, stream, destination.status)
        state = self.streams.state(destination.arn)
        if state is None or state.stream != stream:
            raise other_stream(table, stream, state.stream if state else "")
        return True

    def kept(self, stream: str) -> float:
        """How many seconds a stream keeps a record; none where it is gone."""
        state = self.streams.state(arn_of(stream))
        return state.kept if state else 0.0

    def _shard(self, row: ShardRow) -> KinesisShard:
        return KinesisShard(self.streams, row, self.keep_ttl)


def not_followed(table: str, named: str, found: Destination) -> Incompatible:
    """The table's changes do not go into the stream that the manifest names."""
    return Incompatible(
        "the table's changes do not go into its Kinesis data stream",
        where=table,
        why=f"{named} is {found.status}" if found.arn else f"{named} is no streaming destination of the table",
        todo=f"aws dynamodb enable-kinesis-streaming-destination --table-name {table} --stream-arn "
        f"{found.arn or 'ARN-OF-THE-STREAM'} --enable-kinesis-streaming-configuration "
        "ApproximateCreationDateTimePrecision=MICROSECOND, wait until it is ACTIVE, then try again",
    )


def not_readable(table: str, arn: str, state: StreamState | None) -> Incompatible:
    """The stream is not there, or not yet."""
    return Incompatible(
        "the table's Kinesis data stream cannot be read",
        where=table,
        why=f"{arn} is {state.status if state else 'not there'}",
        todo="create it, or wait until it is ACTIVE, and enable it as the table's destination",
    )


def not_ordered(table: str, arn: str) -> Incompatible:
    """The stream's records are not sent to shards by their keys."""
    return Incompatible(
        "the table's Kinesis data stream spreads an item's changes over all shards",
        where=table,
        why=f"the record distribution strategy of {arn} is AUTO; order is restored within a shard, so an item's changes"
        " have to share one",
        todo=f"aws kinesis update-stream-record-distribution-strategy --stream-arn {arn} --record-distribution-strategy"
        " USER_PARTITION_KEY, then try again",
    )
