"""Reads one shard of a Kinesis data stream for one table: where to begin, pages in the order that counts, every loss.

Kinesis says nothing when records were trimmed unread: it goes on with the oldest that is left. So each reader knows
until when it has seen all that arrived, and stops where that is further back than the stream keeps.

What a page proves: GetRecords with MillisBehindLatest 0 gave all that had arrived in the shard when it was asked for;
else all that arrived before its last record. Arrival is not creation: a change takes milliseconds to arrive as long as
the stream takes all that is written (Amazon DynamoDB metrics, AgeOfOldestUnreplicatedRecord). A page therefore proves
everything created before that moment less an allowance: two seconds, or the longest time that a change took to arrive
within the last minute where that is more. A change that is held up longer, with nothing else showing it, lies beyond.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.kinesis.order import REMEMBERED_SECONDS, Memory
from whimbrel_worker.endpoints.dynamodb.kinesis.records import Arrival, Told, arrival, told
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import KinesisStreams, ancestors, arn_of
from whimbrel_worker.endpoints.dynamodb.streams.gaps import no_shard, no_table, other_stream, two_places, unread
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, describe
from whimbrel_worker.engine.shard_ports import BEGINNING, ItemChange, Page, ShardRow
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)

LATE_SECONDS: Final = 2.0
_WARN_SECONDS: Final = 60.0
_EXPIRED: Final = "ExpiredIteratorException"
_INVALID: Final = ("InvalidArgumentException", "ValidationException")
_RECORDS_A_PAGE: Final = 1000
_RENEWALS: Final = 10
_OVERLAP_SECONDS: Final = 10.0
"""Arrival times are approximate: so much further back is begun anew, and what was seen is left out."""
_LOOKS: Final = 3
_GENERATIONS: Final = 3
"""A stream that is scaled makes shards that live for seconds: so many generations may lie within what is remembered."""
_MILLISECONDS: Final = 1000.0


@dataclass(slots=True)
class KinesisShard:
    """One shard, to be read after a row's position; an instance serves one reader."""

    streams: KinesisStreams
    row: ShardRow
    keep_ttl: bool = True
    _memory: Memory = field(init=False)
    _done: int = field(init=False)
    _last: int = -1
    _through: float = 0.0
    _iterator: str = ""
    _warned: int = 0
    _circles: int = 0
    _warn_due: float = 0.0

    def __post_init__(self) -> None:
        self._memory = Memory(keep_ttl=self.keep_ttl)
        self._done = int(self.row.position) if self.row.position != BEGINNING else -1

    def pages(self, table: Table) -> Iterator[Page]:
        """Pages after the row's position, one a request, until the shard has ended."""
        self._through = self.needed_from()
        start = max(0.0, self._through - REMEMBERED_SECONDS)
        self._memory.horizon = start
        self._iterator = self._begin_at(start)
        while self._iterator:
            asked = self.streams.kinesis.clock()
            answer = self._answer()
            arrivals = [seen for seen in map(arrival, answer.get("Records") or ()) if seen.number > self._last]
            if arrivals and self._last < 0 and self.row.parent:
                self._remember_parents(table, arrivals[0].arrived)
            changes, position = self._counting(table, arrivals)
            self._iterator = str(answer.get("NextShardIterator") or "")
            page = self._page(changes, arrivals, asked, answer.get("MillisBehindLatest"))
            yield replace(page, position=position)

    def needed_from(self) -> float:
        """Since when all that arrived is needed, in seconds since 1970; 0 for the shard's beginning.

        Raises SourceLogLost where some of it is gone: the record at the position is no longer kept, and everything is
        known to be in the target only until a moment that is further back than the stream keeps.
        """
        state = self.streams.state(arn_of(self.row.ref.stream))
        if state is None or state.stream != self.row.ref.stream:
            raise self._gone(state.stream if state else "")
        if self.row.position != BEGINNING:
            arrived = self._arrived_at_position()
            if arrived:
                return max(arrived, self.row.read_to)
        since = max(self.row.read_to, self.row.skip_before if self.row.position == BEGINNING else 0.0)
        if self._is_trimmed(since, state.kept) if since else self._lacks_parent():
            raise unread(self.row, since, state.kept)
        return since

    # --- one page ---

    def _page(self, changes: Sequence[ItemChange], arrivals: Sequence[Arrival], asked: float, behind: object) -> Page:
        ended = not self._iterator
        through = arrivals[-1].arrived if arrivals else 0.0
        self._last = arrivals[-1].number if arrivals else self._last
        self._through = max(self._through, through)
        if isinstance(behind, int) and not ended:
            self._through = max(self._through, asked - behind / _MILLISECONDS)
            through = asked if behind == 0 else through
        proven = max(0.0, through - max(LATE_SECONDS, self._memory.late)) if through else 0.0
        return Page(changes, asked, ended, proven, behind=isinstance(behind, int) and behind > 0)

    def _counting(self, table: Table, arrivals: Sequence[Arrival]) -> tuple[list[ItemChange], str]:
        """The changes that are to be applied, and the last of the table's records, which may be one that is left out.

        Where a reader stands so does not depend on what it remembers. What was applied before is shown to the memory
        only.
        """
        found: list[ItemChange] = []
        position = ""
        for seen in arrivals:
            if seen.table != table.source_name:
                continue
            before, circles = self._memory.unjudged, self._memory.circles
            each, counts = self._judged(table, seen)
            again = self._memory.again[:]
            self._memory.again.clear()
            if seen.number <= self._done:
                continue
            position = str(seen.number)
            found += [each.change] if counts else self._anew(table, again)
            self._circles += self._memory.circles - circles
            self._warned += counts and self._memory.unjudged > before and each.change.at >= self.row.skip_before
        self._warn(table)
        return found, position

    def _judged(self, table: Table, seen: Arrival) -> tuple[Told, bool]:
        """A record of the table, and whether it counts. Raises Incompatible where an item's lie in any shard."""
        each = told(table, seen)
        counts = self._memory.counts(each)
        if self._memory.scattered:
            raise two_places(table.name, arn_of(self.row.ref.stream))
        return each, counts

    def _anew(self, table: Table, numbers: Sequence[int]) -> list[ItemChange]:
        """Changes that were applied and then hidden by an older one of their moment, read once more."""
        found: list[ItemChange] = []
        for number in numbers:
            seen = self._record_at(str(number))
            if seen is None:
                self._circles += 1
            else:
                found.append(told(table, seen).change)
        return found

    def _warn(self, table: Table) -> None:
        """What came since the last time, once a minute at most."""
        if not (self._warned or self._circles) or time.monotonic() < self._warn_due:
            return
        self._warn_due = time.monotonic() + _WARN_SECONDS
        if self._warned:
            _log.warning(
                "table %s shard %s: %d changes came more than %.0f s after they were made; they were applied, and "
                "whether a newer change of the same item came first, only a comparison can tell",
                table.name, self.row.ref.shard, self._warned, REMEMBERED_SECONDS,
            )  # fmt: skip
        if self._circles:
            _log.warning(
                "table %s shard %s: %d times an item changed more than once within one moment, and which change was "
                "the last, only a comparison can tell; microseconds tell moments apart: aws dynamodb "
                "update-kinesis-streaming-destination --table-name %s --stream-arn %s "
                "--update-kinesis-streaming-configuration ApproximateCreationDateTimePrecision=MICROSECOND",
                table.name, self.row.ref.shard, self._circles, table.source_name, arn_of(self.row.ref.stream),
            )  # fmt: skip
        self._warned = self._circles = 0

    def _answer(self) -> dict[str, Any]:
        """One answer; an iterator that has expired is made anew, a little further back than all was seen."""
        state = self.streams.state(arn_of(self.row.ref.stream))
        if state is not None and self._through and self._is_trimmed(self._through, state.kept):
            raise unread(self._seen_row(), self._through, state.kept)
        for _ in range(_RENEWALS):
            try:
                return self.streams.kinesis.ask(
                    "GetRecords", {"ShardIterator": self._iterator, "Limit": _RECORDS_A_PAGE}
                )
            except Refused as refusal:
                if refusal.code != _EXPIRED:
                    raise self._meaning(refusal) from None
            self._iterator = self._begin_at(max(0.0, self._through - _OVERLAP_SECONDS))
        raise self._refused_at_once()

    def _refused_at_once(self) -> Transient:
        return Transient(
            "the stream's iterators are refused as soon as they are made",
            where=f"{self.row.ref.table}, shard {self.row.ref.shard}",
            todo="nothing: it is tried again",
        )

    # --- what came before ---

    def _remember_parents(self, table: Table, first: float) -> None:
        """Show the memory what arrived in the parents lately: of an item's changes the newer may lie there.

        `first`: when the first record of this shard arrived.
        """
        since = first - REMEMBERED_SECONDS
        self._memory.horizon = max(self._memory.horizon, since)
        listed = self.streams.listed(arn_of(self.row.ref.stream)) or ()
        for shard in ancestors(listed, (self.row.parent, self.row.adjacent), _GENERATIONS):
            for seen in self._tail(shard, since):
                if seen.table == table.source_name:
                    self._judged(table, seen)

    def _tail(self, shard: str, since: float) -> Iterator[Arrival]:
        """What arrived in a closed shard since then; nothing where it is no longer kept."""
        last = -1
        for _ in range(_RENEWALS):
            try:
                for seen in self._tail_once(shard, since):
                    if seen.number > last:
                        last = seen.number
                        yield seen
            except Refused as refusal:
                if refusal.code == _EXPIRED:
                    continue
                if refusal.code != NOT_FOUND and refusal.code not in _INVALID:
                    raise
            return
        raise self._refused_at_once()

    def _tail_once(self, shard: str, since: float) -> Iterator[Arrival]:
        ask, place = self.streams.kinesis.ask, {"StreamARN": arn_of(self.row.ref.stream), "ShardId": shard}
        answer = ask("GetShardIterator", {**place, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": round(since, 3)})
        iterator = answer.get("ShardIterator")
        while iterator:
            answer = ask("GetRecords", {"ShardIterator": iterator, "Limit": _RECORDS_A_PAGE})
            yield from map(arrival, answer.get("Records") or ())
            iterator = answer.get("NextShardIterator")

    # --- where to begin ---

    def _begin_at(self, since: float) -> str:
        """An iterator at what arrived from a moment on; at the oldest record that is kept where that is older."""
        if not since:
            return self._ask_iterator({"ShardIteratorType": "TRIM_HORIZON"})
        return self._ask_iterator({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": round(since, 3)})

    def _ask_iterator(self, place: Mapping[str, object]) -> str:
        ref = self.row.ref
        request = {"StreamARN": arn_of(ref.stream), "ShardId": ref.shard, **place}
        try:
            return str(self.streams.kinesis.ask("GetShardIterator", request)["ShardIterator"])
        except Refused as refusal:
            raise self._meaning(refusal) from None

    def _arrived_at_position(self) -> float:
        """When the record at the position arrived; 0 where it is no longer kept, so that others may be gone too."""
        seen = self._record_at(self.row.position)
        return seen.arrived if seen else 0.0

    def _record_at(self, number: str) -> Arrival | None:
        """The shard's record of this sequence number; None where it is no longer kept, or was another shard's."""
        for _ in range(_RENEWALS):
            try:
                return self._look_at(number)
            except Refused as refusal:
                if refusal.code in _INVALID:
                    return None
                if refusal.code != _EXPIRED:
                    raise
        raise self._refused_at_once()

    def _look_at(self, number: str) -> Arrival | None:
        iterator = self._ask_iterator({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number})
        for _ in range(_LOOKS):
            answer = self.streams.kinesis.ask("GetRecords", {"ShardIterator": iterator, "Limit": 1})
            for seen in map(arrival, answer.get("Records") or ()):
                return seen if seen.number == int(number) else None
            iterator = str(answer.get("NextShardIterator") or "")
            if not iterator:
                break
        return None

    def _is_trimmed(self, since: float, kept: float) -> bool:
        return self.streams.kinesis.clock() - since > kept

    def _lacks_parent(self) -> bool:
        """Whether a parent is no longer listed: then the oldest records of this shard may be gone, too.

        The same where a record was read, and neither it nor a proof of how far that was is left.
        """
        if self.row.position != BEGINNING:
            return True
        named = {name for name in (self.row.parent, self.row.adjacent) if name}
        listed = {str(each["ShardId"]) for each in self.streams.listed(arn_of(self.row.ref.stream)) or ()}
        return not named <= listed

    # --- refusals ---

    def _seen_row(self) -> ShardRow:
        """The row as far as was read here, for a message."""
        return replace(self.row, position=str(self._last)) if self._last > self._done else self.row

    def _meaning(self, refusal: Refused) -> Exception:
        """What a refusal means for reading on; others than a missing resource stay what they are."""
        if refusal.code != NOT_FOUND:
            return refusal
        arn = arn_of(self.row.ref.stream)
        self.streams.forget(arn)
        state = self.streams.state(arn)
        if state is None or state.stream != self.row.ref.stream:
            return self._gone(state.stream if state else "")
        return no_shard(self._seen_row(), self.row.position, f"{state.kept / 3600:.0f} hours")

    def _gone(self, now: str) -> Exception:
        """The stream is not there any more, or another one of its name is."""
        table = self.row.ref.table
        if describe(self.streams.client, table) is None:
            return no_table(table)
        return other_stream(table, self.row.ref.stream, now)
