"""What a person is told when changes are gone before they were read. Pure; how that is found out stands in shards."""

from typing import Final

from whimbrel_worker.engine.shard_ports import BEGINNING, FROM_HERE, ShardRow
from whimbrel_worker.errors import Incompatible, SourceLogLost
from whimbrel_worker.values.moments import moment_text

_TODO: Final = (
    "empty the target's table and begin a new migration of it; a copy that is faster, or a stream that is never paused "
    "for a day, keeps this from happening again"
)


def gap(row: ShardRow, position: str, oldest: tuple[str, float] | None) -> SourceLogLost:
    """Records behind the position were trimmed unread. `oldest`: sequence number and time of the oldest one left."""
    if oldest is None:
        left = "none that could be read is left"
    else:
        left = f"the oldest left is {oldest[0]} of {moment_text(oldest[1])}"
    return SourceLogLost(
        "the table's stream no longer holds all changes that were not read yet",
        where=f"{row.ref.table}, shard {row.ref.shard} of {row.ref.stream}",
        why=f"needed is every record {_position(row, position)}; {left}; streams keep records for 24 hours",
        todo=_TODO,
    )


def no_shard(row: ShardRow, position: str, kept: str = "24 hours") -> SourceLogLost:
    """The stream is there and the shard is not any more: it was trimmed as a whole."""
    return SourceLogLost(
        "a shard of the table's stream is gone before it was read to its end",
        where=f"{row.ref.table}, shard {row.ref.shard} of {row.ref.stream}",
        why=f"needed is every record {_position(row, position)}; shards vanish {kept} after their last record",
        todo=_TODO,
    )


def unread(row: ShardRow, since: float, kept: float) -> SourceLogLost:
    """Kinesis no longer keeps all that is needed. `since`: what arrived before is in the target; 0 where nothing is.

    `kept`: how many seconds the stream keeps a record.
    """
    known = f"all is known to be in the target until {moment_text(since)} only" if since else "a parent is gone already"
    return SourceLogLost(
        "the table's Kinesis data stream no longer holds all changes that were not read yet",
        where=f"{row.ref.table}, shard {row.ref.shard} of {row.ref.stream}",
        why=f"needed is every record {_position(row, row.position)}; {known}; the stream keeps {kept / 3600:.0f} hours",
        todo=f"{_TODO}; aws kinesis increase-stream-retention-period keeps records for longer",
    )


def destination_off(table: str, stream: str, status: str) -> SourceLogLost:
    """The table's changes no longer go into the Kinesis data stream, or did not for a while."""
    return SourceLogLost(
        "the table's changes do not go into its Kinesis data stream any more",
        where=table,
        why=f"{stream} is {status} as the table's destination" if status else f"{stream} is no destination of it now",
        todo="see who disabled it or made the table anew; what was written meanwhile is in no stream: empty the "
        "target's table and begin a new migration of it",
    )


def scattered(table: str, arn: str) -> SourceLogLost:
    """The stream was set to spread records over all shards while it was followed."""
    return SourceLogLost(
        "the order of an item's changes is lost in the table's Kinesis data stream",
        where=table,
        why=f"the record distribution strategy of {arn} was changed to AUTO: an item's changes go into any shard now",
        todo=f"set it back (aws kinesis update-stream-record-distribution-strategy --stream-arn {arn} "
        "--record-distribution-strategy USER_PARTITION_KEY), empty the target's table and begin a new migration of it",
    )


def two_places(table: str, arn: str) -> Incompatible:
    """Records of one item have different partition keys, so that they go into different shards."""
    return Incompatible(
        "the order of an item's changes is not told by the table's Kinesis data stream",
        where=table,
        why=f"two records of one item came into {arn} with different partition keys, so an item's changes may lie in"
        " several shards; order is restored within a shard",
        todo="empty the target's table and begin a new migration of it that follows it by DynamoDB Streams (take it out"
        " of source.dynamodb.kinesisStreams), and report this",
    )


def no_table(table: str) -> Incompatible:
    """The whole table is gone, and its stream with it."""
    return Incompatible(
        "the table is no longer in the source",
        where=table,
        why="it was deleted, and its stream went with it; what the target holds of it stays as it is",
        todo="exclude it under tables.exclude, or restore it and begin a new migration of it",
    )


def other_stream(table: str, known: str, now: str) -> SourceLogLost:
    """The table's stream is another one than the one whose positions are kept, or there is none. Empty: no stream."""
    found = f"the table's stream is now {now}" if now and now != known else "the table has no enabled stream now"
    return SourceLogLost(
        "the table's stream was disabled, or the table was made anew",
        where=table,
        why=f"positions are kept for {known or 'a stream that was enabled before'}; {found}; what was written in "
        "between is in no stream",
        todo="see who disabled the stream or made the table anew; then empty the target's table and begin a new "
        "migration",
    )


def _position(row: ShardRow, position: str) -> str:
    if position.startswith(FROM_HERE):
        return f"from {position.removeprefix(FROM_HERE)} on"
    if position != BEGINNING:
        when = f" of {moment_text(row.last_change_at)}" if row.last_change_at else ""
        return f"after {position}{when}"
    return f"since {moment_text(row.skip_before)}" if row.skip_before else "since the shard's beginning"
