"""Looks at the Kinesis data streams that are to follow tables, before anything is done: permissions, state, retention.

Nothing is changed: who reads a stream and what it costs is its owner's affair, so it must be the table's destination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from whimbrel_worker.endpoints.dynamodb.kinesis.log import KinesisLog
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import Destination, StreamState, arn_of
from whimbrel_worker.endpoints.dynamodb.preflight.checks import Trials
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import each
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.endpoints.dynamodb.tables.discover import some
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import Incompatible

_READERS: Final = 4
"""A shard is read five times a second for all readers together, and each table of a stream reads for itself."""
_MILLISECOND: Final = "MILLISECOND"


@dataclass(slots=True)
class KinesisLook:
    """What a look at the streams found: by table what follows it, and problems of their own."""

    log: KinesisLog
    found: dict[str, tuple[Destination, StreamState]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def table(self, name: str) -> None:
        """Look at one table's stream, and read a record of one shard as a reader would."""
        try:
            destination, state = self.log.require(name)
        except Incompatible as error:
            self.problems.append(Problem(error.what, error.where, error.why, error.todo))
            return
        self.found[name] = destination, state
        kinesis = self.log.streams.kinesis
        for shard in (self.log.streams.listed(destination.arn) or ())[:1]:
            place = {"StreamARN": destination.arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = kinesis.ask("GetShardIterator", place)["ShardIterator"]
            kinesis.ask("GetRecords", {"ShardIterator": iterator, "Limit": 1})

    @property
    def kept(self) -> float | None:
        """For how many seconds the stream keeps records that keeps them the shortest; None without any."""
        return min((state.kept for _, state in self.found.values()), default=None)

    def judged(self, copy_seconds: float) -> list[Problem]:
        """All problems, those of streams with their tables. `copy_seconds`: how long the copy is estimated to take."""
        return [*self.problems, *_told(self.found, copy_seconds), *_shared(self.found), *_coarse(self.found)]


def look(log: KinesisLog, trials: Trials, tables: Sequence[Described]) -> KinesisLook:
    """Look at the streams of these tables; what may not be called is noted in `trials`."""
    found = KinesisLook(log)
    names = [table.name for table in tables if log.streams.named(table.name)]
    each(lambda name: trials.attempt(name, lambda: found.table(name)), names)
    return found


def _told(found: Mapping[str, tuple[Destination, StreamState]], copy_seconds: float) -> list[Problem]:
    if not found:
        return []
    streams = sorted({(arn_of(state.stream), state.kept, state.open_shards) for _, state in found.values()})
    words = [f"{arn} keeps {kept / 3600:.0f} hours in {shards} open shards" for arn, kept, shards in streams]
    return [
        Problem(
            f"tables are followed by Kinesis data streams ({len(found)}): {some(sorted(found))}",
            why=f"{'; '.join(words[:5])}; the copy takes about {copy_seconds / 3600:.1f} h; records may come"
            " twice and out of order there: they are put in order by their time, as far as they come"
            " within a minute of each other",
            todo="run a full comparison before the cutover; it finds what came later than that, and what DynamoDB left"
            " out as too large for a record of Kinesis (its metric FailedToReplicateRecordCount)",
            fatal=False,
        )
    ]


def _shared(found: Mapping[str, tuple[Destination, StreamState]]) -> list[Problem]:
    by_stream: dict[str, list[str]] = {}
    for name, (destination, _) in found.items():
        by_stream.setdefault(destination.arn, []).append(name)
    return [
        Problem(
            f"{len(names)} tables share one Kinesis data stream: {some(sorted(names))}",
            where=arn,
            why="a shard answers five reads a second, and each table reads the stream for itself, so the stream is"
            " followed with a delay",
            todo="nothing, if that is well enough; else give large tables a stream of their own",
            fatal=False,
        )
        for arn, names in sorted(by_stream.items())
        if len(names) > _READERS
    ]


def _coarse(found: Mapping[str, tuple[Destination, StreamState]]) -> list[Problem]:
    names = sorted(name for name, (destination, _) in found.items() if destination.precision in ("", _MILLISECOND))
    if not names:
        return []
    return [
        Problem(
            f"the times in Kinesis records are exact to the millisecond only ({len(names)}): {some(names)}",
            why="changes of one item within a millisecond are put in order by their images, which does not always tell",
            todo=f"aws dynamodb update-kinesis-streaming-destination --table-name {names[0]} --stream-arn "
            f"{found[names[0]][0].arn} --update-kinesis-streaming-configuration "
            "ApproximateCreationDateTimePrecision=MICROSECOND",
            fatal=False,
        )
    ]
