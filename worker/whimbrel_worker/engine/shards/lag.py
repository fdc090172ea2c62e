"""How far a shard and all shards are: what a page proves, when a shard is quiet, the lag as an upper bound. Pure.

All times are the source's clock, in seconds since 1970. DynamoDB Streams cannot prove the end of an open shard: an
empty page may stand before records that were written long ago. So only a record proves something: all that its shard
holds from before the record's own second is in the target, because a shard is read in order. A shard's children hold
only what is newer than its end, so what was proven of it holds for them. A log that can prove its end says so in its
pages, empty ones too (`Page.proven`, `Page.behind`).

The bound is the age of the least such moment over all open shards. A shard into which nobody writes proves nothing
new, and the bound would grow for ever. Where shards have given only empty pages for a while, and the others prove to
be within a few seconds, no lag is claimed and `quiet` is said instead.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from whimbrel_worker.engine.shard_ports import Page, ShardRef, ShardRow, ShardState
from whimbrel_worker.engine.shards.lineage import inherited, is_open, leaves

QUIET_PAGES: Final = 5
"""So many empty pages in a row before a shard may count as quiet."""
QUIET_SECONDS: Final = 3.0
"""Between the first and the newest of them: records reach their shard within about a second."""
CURRENT_SECONDS: Final = 5.0
"""A shard that proves to be within this is current; it turns quiet before that ends when its records end."""
FRESH_SECONDS: Final = 15.0
"""A shard that nobody has asked for so long is not known to be quiet: its worker may be gone."""
_CHILD_SECONDS: Final = 10.0
"""So long after a shard's end a child is waited for that is not listed yet."""


@dataclass(frozen=True, slots=True)
class EmptyRun:
    """Empty pages in a row, and when the first of them was asked for."""

    pages: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The lag in seconds at a time; None is unknown. `quiet`: see above. Times on the source's clock.

    With `quiet`, `observed_at` is the moment up to which each shard proved to be applied or had nothing to give.
    """

    lag_seconds: float | None
    quiet: bool
    observed_at: float


def advanced(row: ShardRow, page: Page, run: EmptyRun, changes: int) -> tuple[ShardRow, EmptyRun]:
    """The row and the run once this page is in the target; `changes` of its records were applied."""
    state = ShardState.DONE if page.ended else ShardState.READING
    row = replace(row, read_to=max(row.read_to, _proven_by(page)))
    if page.changes or page.position:
        moved = replace(
            row, state=state, position=page.position or page.changes[-1].sequence,
            quiet_since=0.0, asked_at=page.asked_at, changes=row.changes + changes,
            last_change_at=max([row.last_change_at, *(change.at for change in page.changes)]),
        )  # fmt: skip
        return moved, EmptyRun()
    if page.behind:
        return replace(row, state=state, quiet_since=0.0, asked_at=page.asked_at), EmptyRun()
    run = EmptyRun(run.pages + 1, run.since if run.pages else page.asked_at)
    quiet = row.quiet_since or (run.since if run.pages >= QUIET_PAGES else 0.0)
    return replace(row, state=state, quiet_since=quiet, asked_at=page.asked_at), run


def _proven_by(page: Page) -> float:
    if page.proven is not None:
        return page.proven
    return float(math.floor(page.changes[-1].at)) if page.changes else 0.0


def is_quiet(row: ShardRow, now: float) -> bool:
    """Whether an open shard has lately given only empty pages for long enough."""
    lasted = row.asked_at - row.quiet_since
    return row.quiet_since > 0 and lasted >= QUIET_SECONDS and now - row.asked_at <= FRESH_SECONDS


def unsettled(rows: Iterable[ShardRow], now: float) -> list[ShardRow]:
    """The rows that speak for what may be missing: the open ones, and ended ones whose child is not known yet."""
    known = list(rows)
    return [row for row in known if is_open(row)] + [
        row for row in leaves(known) if now - row.asked_at < _CHILD_SECONDS
    ]


def proven(row: ShardRow, known: Mapping[ShardRef, ShardRow], base: float) -> float:
    """Everything created before this moment is in the target, as far as this shard is concerned.

    `base`: the start of the copy. Where nothing was read of a shard, what its parent proved holds, else that.
    """
    return max(row.read_to, inherited(row, known)) or base


def least_proven(rows: Iterable[ShardRow], now: float, base: float) -> float:
    """Everything created before this moment is in the target; `base` where no shard is open."""
    rows = list(rows)
    known = {row.ref: row for row in rows}
    return min((proven(row, known, base) for row in unsettled(rows, now)), default=base)


def sample(rows: Iterable[ShardRow], now: float, base: float) -> Sample:
    """The lag over all rows at `now`."""
    rows = list(rows)
    speaking = unsettled(rows, now)
    if not any(is_open(row) for row in speaking):
        return Sample(None, quiet=False, observed_at=now)
    moments = _moments({row.ref: row for row in rows}, base)
    bound = max(0.0, now - min(moments(row) for row in speaking))
    quiet: list[ShardRow] = []
    busy: list[ShardRow] = []
    for row in speaking:
        (quiet if is_open(row) and is_quiet(row, now) else busy).append(row)
    if quiet and all(now - moments(row) <= CURRENT_SECONDS for row in busy):
        seen = [row.asked_at for row in quiet] + [moments(row) for row in busy]
        return Sample(None, quiet=True, observed_at=min(now, *seen))
    return Sample(bound, quiet=False, observed_at=now)


def _moments(known: Mapping[ShardRef, ShardRow], base: float) -> Callable[[ShardRow], float]:
    return lambda row: proven(row, known, base)
