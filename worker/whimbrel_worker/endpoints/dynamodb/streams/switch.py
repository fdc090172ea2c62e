"""Switches streams on and off and takes the positions of all shards before the first read. Records are read in
shards."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.streams.gaps import other_stream
from whimbrel_worker.endpoints.dynamodb.streams.shards import ShardLog, as_shard
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, describe, each
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.endpoints.dynamodb.tables.discover import IMAGES
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import FROM_HERE, Shard, ShardRef, ShardRow, ShardState
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.values.columns import Table

VIEW: Final = "NEW_AND_OLD_IMAGES"
_BUSY: Final = ("ResourceInUseException", "LimitExceededException")
_INVALID: Final = "ValidationException"
_UNTIL_READY: Final = Backoff(base=0.2, cap=5.0, attempts=150)
"""Some minutes: a table with an index in the making is changed when that is done."""
_WATCH_SECONDS: Final = 2.0
"""How long open shards are watched at the capture: one that writes all the time is then not read from its beginning."""
_LOOK_AGAIN_SECONDS: Final = 0.25
_READERS: Final = 16
_SAFETY_SECONDS: Final = 15 * 60.0
"""How much older than the capture a record may say it is and still be applied: its time is approximate."""


@dataclass(frozen=True, slots=True)
class StreamSwitch:
    """Enables and disables streams of one source."""

    client: Client
    log: ShardLog

    def lacking(self, names: Sequence[str]) -> list[str]:
        """The tables that have no stream."""
        described = zip(names, each(self._there, names), strict=True)
        return [name for name, found in described if not found.stream]

    def enable(self, names: Sequence[str]) -> list[str]:
        """Enable the streams that are missing and wait until all are active. Returns the tables that had none."""
        return [name for name, made in zip(names, each(self._enable, names), strict=True) if made]

    def disable(self, names: Sequence[str]) -> None:
        """Disable the streams; tables without one, or that are gone, are fine."""
        each(self._disable, names)

    def _enable(self, name: str) -> bool:
        asked: list[str] = []

        def step() -> bool:
            described = self._there(name)
            if described.stream:
                _require_images(described)
                self._require_ready(described)
                return bool(asked)
            self._update(name, {"StreamEnabled": True, "StreamViewType": VIEW}, asked)
            raise _not_yet(name, "its stream is being enabled")

        self.log.forget(name)
        return retrying(step, backoff=_UNTIL_READY)

    def _disable(self, name: str) -> None:
        asked: list[str] = []

        def step() -> None:
            described = describe(self.client, name)
            if described is not None and described.stream:
                self._update(name, {"StreamEnabled": False}, asked)
                raise _not_yet(name, "its stream is being disabled")

        self.log.forget(name)
        retrying(step, backoff=_UNTIL_READY)

    def _there(self, name: str) -> Described:
        described = describe(self.client, name)
        if described is None:
            raise Transient(
                "the table was deleted meanwhile", where=name, todo="nothing: the tables are looked up anew"
            )
        return described

    def _update(self, name: str, specification: dict[str, object], asked: list[str]) -> None:
        """Ask for it; a table that is busy, or that somebody else changed just now, is looked at again."""
        try:
            asked.append("")
            self.client.ask("UpdateTable", {"TableName": name, "StreamSpecification": specification})
        except Refused as refusal:
            if refusal.code in _BUSY or (refusal.code == _INVALID and _INVALID not in asked):
                asked[-1] = refusal.code
                raise _not_yet(name, refusal.why or refusal.code) from refusal
            if refusal.code != NOT_FOUND:
                raise _unchangeable(name, refusal) from refusal

    def _require_ready(self, described: Described) -> None:
        state = self.log.describe(described.stream)
        if described.status != "ACTIVE" or state is None or state.status != "ENABLED":
            raise _not_yet(
                described.name, f"it is {described.status}, its stream {state.status if state else 'unknown'}"
            )


def _require_images(described: Described) -> None:
    if described.view not in IMAGES:
        raise wrong_view(described)


def wrong_view(described: Described) -> ConfigurationError:
    """The stream's records do not hold whole items."""
    return ConfigurationError(
        f"the table's stream has the view type {described.view or 'unknown'}",
        where=described.name,
        why=f"a change is written as a whole item, which only {' and '.join(IMAGES)} carry; another view type means "
        "to disable the stream, and others may be reading it",
        todo=f"as the table's owner: disable the stream, then aws dynamodb update-table --table-name {described.name} "
        f"--stream-specification StreamEnabled=true,StreamViewType={VIEW}",
    )


def _unchangeable(name: str, refusal: Refused) -> ConfigurationError:
    return ConfigurationError(
        "the table's stream cannot be switched",
        where=name,
        why=f"{refusal.what}; {refusal.why}" if refusal.why else refusal.what,
        todo="switch it by hand as the table's owner, or see what refuses it (a global table keeps its stream)",
    )


def _not_yet(name: str, why: str) -> Transient:
    return Transient("the table is not ready yet", where=name, why=why, todo="nothing: it is looked at again")


def capture(log: ShardLog, tables: Sequence[Table]) -> list[ShardRow]:
    """Rows for all shards of the tables' streams, with positions not after this moment.

    A closed shard is Done: its records are older than the capture, and a consistent read later sees what they wrote.
    An open one is watched for a moment. The first record that comes is the one to begin with. Where none comes, reading
    begins with the oldest record and leaves out what is older than the capture by a margin: applying an older image
    again costs time only, because the newer one follows in the same shard or its children.
    """
    moment = log.client.clock()
    shards = [shard for found in each(lambda table: _listed(log, table), tables, _READERS) for shard in found]
    seen = _watched(log, [shard for shard in shards if not shard.closed])
    return [_row(shard, seen.get(shard.ref, ""), moment) for shard in shards]


def _listed(log: ShardLog, table: Table) -> list[Shard]:
    log.forget(table.source_name)
    arn = log.arn(table.source_name)
    state = log.describe(arn) if arn else None
    if state is None or not state.is_live:
        raise other_stream(table.name, "", "")
    return [as_shard(table.name, arn, shard) for shard in state.shards]


def _row(shard: Shard, sequence: str, moment: float) -> ShardRow:
    if shard.closed:
        return ShardRow(shard.ref, shard.parent, ShardState.DONE)
    if sequence:
        return ShardRow(shard.ref, shard.parent, position=FROM_HERE + sequence)
    return ShardRow(shard.ref, shard.parent, skip_before=moment - _SAFETY_SECONDS)


def _watched(log: ShardLog, shards: Sequence[Shard]) -> dict[ShardRef, str]:
    """The first sequence number that each shard gives within the watch, by shard. All shards side by side."""
    ends = time.monotonic() + _WATCH_SECONDS
    seen: dict[ShardRef, str] = {}

    def begin(shard: Shard) -> str:
        return _quietly(lambda: log.latest(shard.ref)) if time.monotonic() < ends else ""

    def look(pair: tuple[Shard, str]) -> tuple[Shard, str]:
        shard, iterator = pair
        if time.monotonic() >= ends:
            return shard, ""
        found: list[str] = []
        following = _quietly(lambda: _first_record(log, iterator, found))
        if found:
            seen[shard.ref] = found[0]
        return shard, "" if found else following

    pairs = list(zip(shards, each(begin, shards, _READERS), strict=True))
    while pairs := [pair for pair in pairs if pair[1]]:
        pairs = each(look, pairs, _READERS)
        time.sleep(_LOOK_AGAIN_SECONDS if time.monotonic() < ends else 0)
    return seen


def _first_record(log: ShardLog, iterator: str, found: list[str]) -> str:
    answer = log.streams.ask("GetRecords", {"ShardIterator": iterator})
    found += [str(record["dynamodb"]["SequenceNumber"]) for record in (answer.get("Records") or ())[:1]]
    return str(answer.get("NextShardIterator") or "")


def _quietly(ask: Callable[[], str]) -> str:
    """What a look gives; nothing where the service refuses it, because a shard not looked at is read from further back.

    DynamoDB Local refuses an iterator behind the end of an empty shard once a first record has come.
    """
    try:
        return ask()
    except (Refused, Transient):
        return ""
