"""Reads the shards of a table's stream: which there are, and their records, with every loss found. Streams are switched
on and off in streams; what a record says stands in records.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.streams.gaps import gap, no_shard, no_table, other_stream
from whimbrel_worker.endpoints.dynamodb.streams.records import item_changes
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, describe
from whimbrel_worker.engine.shard_ports import BEGINNING, FROM_HERE, ItemChange, Page, Shard, ShardRef, ShardRow
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.columns import Table

TRIMMED: Final = "TrimmedDataAccessException"
_EXPIRED: Final = "ExpiredIteratorException"
_INVALID: Final = "ValidationException"
_LIVE: Final = ("ENABLED", "ENABLING")
_SHARDS_A_PAGE: Final = 100
_RECORDS_A_PAGE: Final = 1000
_RENEWALS: Final = 10
"""Iterators in a row that expire before they are used, after which the service is given a rest."""
_LOOKS: Final = 5
"""Pages that are looked at for the oldest record left: an empty page proves nothing, but some must be the last."""
_KEPT_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it is described. `shards`: the service's own words for each."""

    arn: str
    status: str
    view: str
    shards: Sequence[Mapping[str, Any]]

    @property
    def is_live(self) -> bool:
        """Whether changes still go into it."""
        return self.status in _LIVE


@dataclass(slots=True)
class ShardLog:
    """The streams of one source. `client` asks for tables, `streams` for records. Safe for many threads."""

    client: Client
    streams: Client
    _arns: dict[str, str] = field(default_factory=dict)
    _firsts: dict[tuple[str, str], str] = field(default_factory=dict)
    _listing: threading.Lock = field(default_factory=threading.Lock)

    def forget(self, name: str) -> None:
        """Ask anew which stream the table has."""
        self._arns.pop(name, None)

    def arn(self, name: str) -> str:
        """The stream that the table has; empty without one."""
        known = self._arns.get(name)
        if known is None:
            described = describe(self.client, name)
            known = described.stream if described else ""
            if known:
                self._arns[name] = known
        return known

    def describe(self, arn: str) -> StreamState | None:
        """The stream with all its shards, or None when it is gone."""
        shards: list[Mapping[str, Any]] = []
        request: dict[str, object] = {"StreamArn": arn, "Limit": _SHARDS_A_PAGE}
        while True:
            try:
                said = self.streams.ask("DescribeStream", request)["StreamDescription"]
            except Refused as refusal:
                if refusal.code == NOT_FOUND:
                    return None
                raise
            shards += said.get("Shards") or ()
            if not said.get("LastEvaluatedShardId"):
                break
            request["ExclusiveStartShardId"] = said["LastEvaluatedShardId"]
        self._firsts.update({(arn, str(shard["ShardId"])): _first(shard) for shard in shards})
        return StreamState(arn, str(said.get("StreamStatus")), str(said.get("StreamViewType", "")), shards)

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now. Raises SourceLogLost when there is no stream any more."""
        arn = self.arn(table.source_name)
        state = self.describe(arn) if arn else None
        if state is None or not state.is_live:
            self.forget(table.source_name)
            raise other_stream(table.name, arn, self.arn(table.source_name))
        return [as_shard(table.name, state.arn, shard) for shard in state.shards]

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position, for ever until the shard has ended.

        Records that were read before are left out, by the number and never by the text of their sequence. Raises
        SourceLogLost when some are gone, Incompatible when the whole table is.
        """
        done, iterator = row.position, self._open(row, row.position)
        while iterator:
            asked = self.streams.clock()
            answer = self._page(row, done, iterator)
            changes = [change for change in item_changes(table, answer.get("Records") or ()) if _is_new(change, done)]
            done = changes[-1].sequence if changes else done
            iterator = answer.get("NextShardIterator") or ""
            yield Page(changes, asked, ended=not iterator)

    def verify(self, row: ShardRow) -> None:
        """Raise SourceLogLost unless all records after the row's position are still there."""
        self._open(row, row.position)

    def oldest(self, ref: ShardRef) -> tuple[str, float] | None:
        """Sequence number and time of the oldest record that is left; None when a few looks show none."""
        iterator = ""
        for _ in range(_LOOKS):
            iterator = iterator or self._iterator(ref, "TRIM_HORIZON")
            try:
                answer = self.streams.ask("GetRecords", {"ShardIterator": iterator, "Limit": 1})
            except Refused as refusal:
                if refusal.code not in (TRIMMED, _EXPIRED):
                    raise
                iterator = ""
                continue
            for record in answer.get("Records") or ():
                body = record["dynamodb"]
                return str(body["SequenceNumber"]), float(body.get("ApproximateCreationDateTime") or 0.0)
            iterator = answer.get("NextShardIterator") or ""
            if not iterator:
                break
        return None

    # --- iterators ---

    def _page(self, row: ShardRow, done: str, iterator: str) -> dict[str, Any]:
        """One answer; an iterator that has expired, or is said to stand before what is kept, is made anew."""
        for _ in range(_RENEWALS):
            request = orjson.dumps({"ShardIterator": iterator, "Limit": _RECORDS_A_PAGE})
            try:
                answer: dict[str, Any] = orjson.loads(self.streams.call("GetRecords", request))
            except Refused as refusal:
                if refusal.code not in (_EXPIRED, TRIMMED):
                    raise self._lost(row, done, refusal) from None
            else:
                return answer
            iterator = self._open(row, done)
        raise Transient(
            "the stream's iterators are refused as soon as they are made",
            where=f"{row.ref.table}, shard {row.ref.shard}",
            todo="nothing: it is tried again",
        )

    def _open(self, row: ShardRow, position: str) -> str:
        """An iterator that stands behind a position. Raises SourceLogLost when records behind it are gone."""
        try:
            if position == BEGINNING:
                return self._from_beginning(row)
            if position.startswith(FROM_HERE):
                return self._iterator(row.ref, "AT_SEQUENCE_NUMBER", position.removeprefix(FROM_HERE))
            return self._iterator(row.ref, "AFTER_SEQUENCE_NUMBER", position)
        except Refused as refusal:
            raise self._lost(row, position, refusal) from None

    def _from_beginning(self, row: ShardRow) -> str:
        """From the oldest record that is kept, unless one that is needed may be gone.

        Whether any is gone, the shard's first number says: it is refused once it was trimmed. What is gone is older
        than all that is left, so nothing that is needed is missing as long as a record left is as old as `skip_before`.
        """
        if self._is_trimmed(row):
            oldest = self.oldest(row.ref)
            if oldest is None or oldest[1] > row.skip_before:
                raise gap(row, BEGINNING, oldest)
        return self._iterator(row.ref, "TRIM_HORIZON")

    def _is_trimmed(self, row: ShardRow) -> bool:
        """Whether the shard has lost records, or may have: where its first number proves nothing, age decides."""
        first = self._first_of(row.ref)
        try:
            if first:
                self._iterator(row.ref, "AT_SEQUENCE_NUMBER", first)
                return False
        except Refused as refusal:
            if refusal.code == TRIMMED:
                return True
            if refusal.code != _INVALID:
                raise
        return bool(row.skip_before) and self.streams.clock() - row.skip_before > _KEPT_SECONDS

    def _first_of(self, ref: ShardRef) -> str:
        with self._listing:
            if (ref.stream, ref.shard) not in self._firsts:
                self.describe(ref.stream)
            return self._firsts.setdefault((ref.stream, ref.shard), "")

    def _iterator(self, ref: ShardRef, kind: str, sequence: str = "") -> str:
        request: dict[str, object] = {"StreamArn": ref.stream, "ShardId": ref.shard, "ShardIteratorType": kind}
        if sequence:
            request["SequenceNumber"] = sequence
        return str(self.streams.ask("GetShardIterator", request)["ShardIterator"])

    def latest(self, ref: ShardRef) -> str:
        """An iterator behind all records that are there now."""
        return self._iterator(ref, "LATEST")

    def _lost(self, row: ShardRow, position: str, refusal: Refused) -> Exception:
        """What a refusal means for reading on from a position; other refusals stay what they are."""
        if refusal.code == TRIMMED:
            return gap(row, position, self.oldest(row.ref))
        if refusal.code != NOT_FOUND:
            return refusal
        self.forget(row.ref.table)
        described = describe(self.client, row.ref.table)
        if described is None:
            return no_table(row.ref.table)
        if described.stream == row.ref.stream:
            return no_shard(row, position)
        return other_stream(row.ref.table, row.ref.stream, described.stream)


def as_shard(table: str, arn: str, shard: Mapping[str, Any]) -> Shard:
    """A shard as the engine sees it: closed once it has a last number."""
    closed = bool((shard.get("SequenceNumberRange") or {}).get("EndingSequenceNumber"))
    return Shard(ShardRef(table, arn, str(shard["ShardId"])), str(shard.get("ParentShardId") or ""), closed)


def _first(shard: Mapping[str, Any]) -> str:
    return str((shard.get("SequenceNumberRange") or {}).get("StartingSequenceNumber") or "")


def _is_new(change: ItemChange, done: str) -> bool:
    if done == BEGINNING:
        return True
    if done.startswith(FROM_HERE):
        return int(change.sequence) >= int(done.removeprefix(FROM_HERE))
    return int(change.sequence) > int(done)
