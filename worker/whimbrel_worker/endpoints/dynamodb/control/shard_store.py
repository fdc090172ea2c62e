"""The positions of stream shards on a DynamoDB target, each in a row of its own, claimed and committed by conditions.

A shard's row belongs to a holder (owner and attempt) and carries the epoch in which it was last claimed or raised:
whoever raises the epoch takes all shards away, so that a commit of the old epoch that comes late fails, and no worker
of it can claim one again.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry, Value
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import fence_lost, hold_epoch, worker_entry
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import Holder, ShardRef, ShardRow, ShardState
from whimbrel_worker.errors import FencedOut, Transient
from whimbrel_worker.failpoints import reach

T = TypeVar("T")
_PREFIX: Final = "shard#"
_TASK: Final = "stream"
"""Whose workers hold shards."""
_TIPS: Final = "tips#"
_TIPS_A_ROW: Final = 2000
"""About 200 KB, half of what an item may hold."""
_NOBODY: Final = -1
_FIGURES: Final = "#position = :position, #state = :state, #readTo = :readTo, #quietSince = :quietSince,"
_REST: Final = " #askedAt = :askedAt, #lastChangeAt = :lastChangeAt, #changes = :changes, #beatAt = :now"


def shard_entry(ref: ShardRef) -> str:
    """The row's key; long names are shortened by a digest, because a sort key holds 1,024 bytes."""
    name = f"{_PREFIX}{ref.table}#{ref.stream}#{ref.shard}"
    if len(name.encode()) <= 1000:
        return name
    return f"{_PREFIX}{ref.table}#{hashlib.sha256(name.encode()).hexdigest()}"


class DynamoDBShardStore:
    """Implements engine.shard_ports.ShardStore; `epoch` is that of this worker."""

    def __init__(self, control: ControlTable, epoch: int) -> None:
        self._control, self._epoch = control, epoch

    def add(self, rows: Sequence[ShardRow]) -> None:
        """Add shards that are not there yet. Raises FencedOut when this worker's epoch is over.

        The epoch is looked at after the rows are there: who raises it later finds them.
        """
        for row in rows:
            _retried(partial(self._add, row))
        if rows:
            _retried(lambda: hold_epoch(self._control, self._epoch, "shards of the stream"))

    def replace(self, rows: Sequence[ShardRow]) -> None:
        """Keep these shards and no others. Raises FencedOut when this worker's epoch is over. Safe to repeat.

        A worker that still held one of the others finds it gone, and is fenced out by that.
        """
        _retried(lambda: hold_epoch(self._control, self._epoch, "shards of the stream"))
        for entry in _retried(lambda: list(self._control.entries(_PREFIX))):
            _retried(partial(self._control.delete, entry.key))
        self.add(rows)

    def all(self) -> list[ShardRow]:
        """All shards of all tables."""
        return _retried(lambda: [row_of(entry) for entry in self._control.entries(_PREFIX)])

    def claim(self, row: ShardRow, holder: Holder) -> bool:
        """Take a shard that is as `row` says; repeated by the same holder it is true again."""
        if not _retried(lambda: self._claim(row, holder)):
            return False
        _retried(lambda: hold_epoch(self._control, self._epoch, f"stream {holder.index}"))
        return True

    def commit(self, row: ShardRow, holder: Holder) -> None:
        """Write position, state and figures of a held shard. Raises FencedOut when it is held by another."""
        reach("stream.before_commit")
        _retried(lambda: self._commit(row, holder))
        reach("stream.after_commit")

    def release(self, holder: Holder) -> None:
        """Give back all that this worker holds, or held in an earlier attempt."""
        for entry in _retried(lambda: list(self._control.entries(_PREFIX))):
            if entry.number("owner", _NOBODY) == holder.index and entry.number("attempt") <= holder.attempt:
                self._free(entry, "#owner = :owner AND #attempt = :attempt")

    def release_lost(self, older_than_seconds: float) -> int:
        """Give back the shards whose owner has not written for so long, by the endpoint's clock, and fence it out.

        An owner whose own row still moves is not fenced out: it has left a shard behind. That takes twice as long, so
        that a worker which stopped a moment after it last moved its row is not taken for one.
        """
        before = self._control.clock() - older_than_seconds
        entries = _retried(lambda: list(self._control.entries(_PREFIX)))
        silent = [entry for entry in entries if _is_held(entry) and entry.seconds("beatAt") < before]
        lost = {owner for owner in {entry.number("owner") for entry in silent} if self._fence_lost(owner, before)}
        unchanged = "#owner = :owner AND #attempt = :attempt AND #beatAt = :beat"
        return sum(
            self._free(entry, unchanged, beat=entry.seconds("beatAt"))
            for entry in silent
            if entry.number("owner") in lost or entry.seconds("beatAt") < before - older_than_seconds
        )

    def _fence_lost(self, owner: int, before: float) -> bool:
        """Take a silent worker's row from it, so that no fenced write of it lands after a successor's.

        True also where there is none; false where it has moved since that moment.
        """
        row = _retried(lambda: self._control.get(worker_entry(_TASK, owner)))
        if row is None:
            return True
        return row.seconds("heartbeat") < before and _retried(lambda: fence_lost(self._control, row))

    def keep_tips(self, name: str, tips: Mapping[ShardRef, str]) -> None:
        """Keep positions of shards under a name, for a drain. The first row comes last: it says how many there are."""
        parts = list(_parts(tips)) or ["[]"]
        for number in reversed(range(len(parts))):
            values: dict[str, Value] = {"tips": parts[number], "parts": len(parts), "now": self._control.clock()}
            expression = "SET #tips = :tips, #parts = :parts, #keptAt = :now"
            _retried(partial(self._control.update, _tips_entry(name, number), expression, values=values))

    def tips(self, name: str) -> Mapping[ShardRef, str] | None:
        """What was kept under that name; None for nothing."""
        first = _retried(lambda: self._control.get(_tips_entry(name, 0)))
        if first is None:
            return None
        rest = _retried(lambda: list(self._control.entries(_tips_entry(name, 0)[:-6])))
        texts = [entry.text("tips") for entry in rest][: first.number("parts")]
        if len(texts) < first.number("parts"):
            raise Transient("the kept positions cannot be read whole yet", where=self._control.where)
        return {ref: position for text in texts for ref, position in _tips_of(text)}

    def _add(self, row: ShardRow) -> None:
        self._control.update(
            shard_entry(row.ref),
            "SET #table = :table, #stream = :stream, #shard = :shard, #parent = :parent, #adjacent = :adjacent,"
            f" #skipBefore = :skipBefore, {_FIGURES}{_REST}, #owner = :nobody, #attempt = :zero, #epoch = :epoch",
            where="attribute_not_exists(#shard)",
            values={
                **self._figures(row), "table": row.ref.table, "stream": row.ref.stream, "shard": row.ref.shard,
                "parent": row.parent, "adjacent": row.adjacent, "skipBefore": row.skip_before, "nobody": _NOBODY,
                "zero": 0, "epoch": self._epoch,
            },
        )  # fmt: skip

    def _claim(self, row: ShardRow, holder: Holder) -> bool:
        claimed = self._control.update(
            shard_entry(row.ref),
            "SET #owner = :index, #attempt = :attempt, #epoch = :epoch, #beatAt = :now",
            where="#epoch <= :epoch AND #position = :position AND"
            " ((#owner = :oldOwner AND #attempt = :oldAttempt) OR (#owner = :index AND #attempt = :attempt))",
            values={
                "index": holder.index, "attempt": holder.attempt, "epoch": self._epoch, "position": row.position,
                "oldOwner": row.owner, "oldAttempt": row.attempt, "now": self._control.clock(),
            },
        )  # fmt: skip
        return claimed is not None

    def _commit(self, row: ShardRow, holder: Holder) -> None:
        """A Done shard stays so: a copy of an earlier commit that arrives late does not open it again."""
        committed = self._control.update(
            shard_entry(row.ref),
            f"SET {_FIGURES}{_REST}",
            where="#owner = :index AND #attempt = :attempt AND #epoch <= :epoch"
            " AND (#state = :state OR #state <> :done)",
            values={
                **self._figures(row), "index": holder.index, "attempt": holder.attempt, "epoch": self._epoch,
                "done": ShardState.DONE.value,
            },
        )  # fmt: skip
        if committed is None:
            raise FencedOut(
                "another worker holds the shard now",
                where=f"{row.ref.table}, shard {row.ref.shard}",
                why=f"it is no longer worker {holder.index}'s in attempt {holder.attempt}",
                todo="nothing: the successor goes on from the last committed position",
            )

    def _figures(self, row: ShardRow) -> dict[str, Value]:
        return {
            "position": row.position, "state": row.state.value, "readTo": row.read_to, "quietSince": row.quiet_since,
            "askedAt": row.asked_at, "lastChangeAt": row.last_change_at, "changes": row.changes,
            "now": self._control.clock(),
        }  # fmt: skip

    def _free(self, entry: Entry, where: str, **seen: Value) -> bool:
        values: dict[str, Value] = {"owner": entry.number("owner"), "attempt": entry.number("attempt"), **seen}
        values["nobody"] = _NOBODY
        update = partial(self._control.update, entry.key, "SET #owner = :nobody", where=where, values=values)
        return _retried(update) is not None


def raise_shards(control: ControlTable, epoch: int) -> None:
    """Take all shards away from the workers of earlier epochs."""
    for entry in control.entries(_PREFIX):
        control.update(
            entry.key,
            "SET #owner = :nobody, #epoch = :epoch",
            where="#epoch < :epoch",
            values={"nobody": _NOBODY, "epoch": epoch},
        )


def row_of(entry: Entry) -> ShardRow:
    """A shard from its control row."""
    return ShardRow(
        ref=ShardRef(entry.text("table"), entry.text("stream"), entry.text("shard")),
        parent=entry.text("parent"),
        state=ShardState(entry.text("state")),
        position=entry.text("position"),
        skip_before=entry.seconds("skipBefore"),
        read_to=entry.seconds("readTo"),
        quiet_since=entry.seconds("quietSince"),
        asked_at=entry.seconds("askedAt"),
        last_change_at=entry.seconds("lastChangeAt"),
        changes=entry.number("changes"),
        owner=entry.number("owner", _NOBODY),
        attempt=entry.number("attempt"),
        beat_at=entry.seconds("beatAt"),
        adjacent=entry.text("adjacent"),
    )


def _is_held(entry: Entry) -> bool:
    return entry.number("owner", _NOBODY) != _NOBODY


def _tips_entry(name: str, number: int) -> str:
    return f"{_TIPS}{name}#{number:06d}"


def _parts(tips: Mapping[ShardRef, str]) -> Iterator[str]:
    """The tips as JSON, streams named once in each part."""
    ordered = iter(sorted(tips.items()))
    while portion := list(islice(ordered, _TIPS_A_ROW)):
        streams: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for ref, position in portion:
            streams[ref.table, ref.stream][ref.shard] = position
        yield json.dumps([[table, stream, shards] for (table, stream), shards in streams.items()])


def _tips_of(text: str) -> Iterator[tuple[ShardRef, str]]:
    for table, stream, shards in json.loads(text):
        for shard, position in shards.items():
            yield ShardRef(table, stream, shard), position


def _retried(action: Callable[[], T]) -> T:
    return retrying(action, backoff=Backoff(attempts=20))
