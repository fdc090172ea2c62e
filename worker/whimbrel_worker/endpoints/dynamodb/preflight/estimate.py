"""What a copy costs in time, table by table, against the day that a stream keeps. Pure.

An estimate of the lower end: the source's limits and the manifest's are known, the speed of the network and of the
target is assumed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from math import ceil
from typing import Any, Final

from whimbrel_api.migration import Mode, Spool
from whimbrel_api.reports import TableAssessment
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.tables.definition import ON_DEMAND, Described
from whimbrel_worker.engine.ports import Problem

STREAM_KEPT_SECONDS: Final = 24 * 3600.0
"""How long DynamoDB Streams keep a record (Developer Guide, "Change data capture for DynamoDB Streams")."""
ITEMS_PER_SECOND: Final = 5_000.0
"""Assumed of one worker; measured against two DynamoDB Local servers on two cores: 5,000 to 12,000 items of 447 B."""
BYTES_PER_SECOND: Final = 8e6
"""Assumed of one worker."""
_READ_UNIT: Final = 4096
"""Bytes of one strongly consistent read unit a second."""
_WRITE_UNIT: Final = 1024
"""Bytes of one write unit a second; every item is rounded up."""
_ON_DEMAND_READS: Final = 12_000
"""Read units a second that an on-demand table serves from its first day on."""
_ASSESSED: Final = 100
_FASTER: Final = (
    "give a volume for the changes in spec.stream.spool.claimName, or a Kinesis data stream with a longer retention in "
    "source.dynamodb.kinesisStreams; or raise snapshot.workers, capacityLimit and "
    "rateLimit, raise the table's read capacity, or move the tables in several migrations (tables.include)"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds all workers of the copy together back; None for no limit."""

    workers: int
    tables_in_parallel: int
    rows_per_second: float | None = None
    read_units: float | None = None
    write_units: float | None = None


def limits_of(file: TaskFile) -> Limits:
    """The limits that a manifest sets."""
    snapshot, capacity = file.snapshot, file.snapshot.capacity_limit
    return Limits(
        workers=snapshot.workers,
        tables_in_parallel=snapshot.tables_in_parallel,
        rows_per_second=snapshot.rate_limit.rows_per_second if snapshot.rate_limit else None,
        read_units=capacity.read_units_per_second if capacity else None,
        write_units=capacity.write_units_per_second if capacity else None,
    )


def table_seconds(table: Described, limits: Limits) -> float:
    """How long the table takes by its own: through one worker, and through its own read capacity."""
    reads = table.units("ReadCapacityUnits") or _ON_DEMAND_READS
    return max(
        table.items / ITEMS_PER_SECOND / limits.workers,
        table.size / BYTES_PER_SECOND / limits.workers,
        table.size / _READ_UNIT / reads,
    )


def total_seconds(tables: Sequence[Described], limits: Limits) -> float:
    """How long the whole copy takes: what all tables share, or the longest row of tables one after the other."""
    items = sum(table.items for table in tables)
    size = sum(table.size for table in tables)
    shared = [items / ITEMS_PER_SECOND / limits.workers, size / BYTES_PER_SECOND / limits.workers]
    if limits.rows_per_second:
        shared.append(items / limits.rows_per_second)
    if limits.read_units:
        shared.append(size / _READ_UNIT / limits.read_units)
    if limits.write_units:
        shared.append(sum(_write_units(table) for table in tables) / limits.write_units)
    return max([*shared, _longest_row([table_seconds(table, limits) for table in tables], limits.tables_in_parallel)])


def too_long(tables: Sequence[Described], file: TaskFile, kept: float = STREAM_KEPT_SECONDS) -> Iterator[Problem]:
    """A fatal problem where the copy would outlast what the streams keep; a warning where a spool keeps the rest.

    `kept`: for how many seconds the stream keeps changes that keeps them the shortest.
    """
    limits = limits_of(file)
    seconds, guard = total_seconds(tables, limits), kept * file.stream.retention_guard
    if file.mode is Mode.SNAPSHOT_ONLY or seconds <= guard:
        return
    largest = max(tables, key=lambda table: table_seconds(table, limits))
    items, size = sum(table.items for table in tables), sum(table.size for table in tables)
    yield Problem(
        f"the copy takes about {_hours(seconds)}, and the streams keep changes for {_hours(kept)} only",
        where=largest.name,
        why=f"{items:,} items of {size / 1e9:,.1f} GB with {limits.workers} workers; "
        f"allowed are {file.stream.retention_guard:.0%} of the retention, {_hours(guard)}; "
        f"{largest.name} alone takes {_hours(table_seconds(largest, limits))}",
        todo=_spooled(file.stream.spool) or _FASTER,
        fatal=file.stream.spool is None,
    )


def _spooled(spool: Spool | None) -> str:
    if spool is None:
        return ""
    return (
        f"nothing: changes are read into the volume {spool.claim_name} during the copy and applied after it; see that "
        "the volume has room for all that is written meanwhile"
    )


def assess(
    tables: Sequence[Described], limits: Limits, streams: Callable[[str], str] = lambda _: ""
) -> list[TableAssessment]:
    """Each table for a reader, the largest first, a hundred at most.

    `streams` names the Kinesis data stream that follows a table, if one does.
    """
    largest = sorted(tables, key=lambda table: -table.size)[:_ASSESSED]
    return [_assessment(table, limits, streams(table.name)) for table in largest]


def _assessment(table: Described, limits: Limits, kinesis: str) -> TableAssessment:
    return TableAssessment(
        name=table.name,
        items=table.items,
        size_bytes=table.size,
        key=[f"{name} ({kind})" for name, kind in table.key],
        indexes=[
            *(_index_words("global", index) for index in table.indexes("GlobalSecondaryIndexes")),
            *(_index_words("local", index) for index in table.indexes("LocalSecondaryIndexes")),
        ],
        billing_mode=table.billing,
        read_units=0 if table.billing == ON_DEMAND else table.units("ReadCapacityUnits"),
        write_units=0 if table.billing == ON_DEMAND else table.units("WriteCapacityUnits"),
        ttl_attribute=table.ttl,
        stream=f"Kinesis {kinesis}" if kinesis else table.view or "disabled",
        copy_seconds=round(table_seconds(table, limits), 1),
    )


def _index_words(kind: str, index: Any) -> str:
    attributes = ", ".join(element["AttributeName"] for element in index["KeySchema"])
    return f"{kind} {index['IndexName']} ({attributes}), projects {index['Projection'].get('ProjectionType', 'ALL')}"


def _write_units(table: Described) -> float:
    return table.items * ceil(table.size / table.items / _WRITE_UNIT) if table.items else 0.0


def _longest_row(seconds: Sequence[float], rows: int) -> float:
    """The longest of so many rows when the longest pieces are dealt first (Graham's LPT rule)."""
    ends = [0.0] * max(1, rows)
    heapify(ends)
    for piece in sorted(seconds, reverse=True):
        heapreplace(ends, ends[0] + piece)
    return max(ends)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
