"""Where the shards stood at a freeze: the name of those positions, and whether a target holds them. Pure.

A freeze position is `<moment>#<name>`: two of them are equal exactly where no shard has got a record in between.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from whimbrel_worker.engine.shard_ports import ShardRef, ShardRow
from whimbrel_worker.engine.shards.lag import is_quiet, unsettled
from whimbrel_worker.engine.shards.lineage import is_open, number

_NAME_LENGTH: Final = 16


def digest(tips: Mapping[ShardRef, int]) -> str:
    """A short name of these sequence numbers. Shards without a record (below 0) do not count: they come and go."""
    lines = sorted(f"{ref.table}\n{ref.stream}\n{ref.shard}\n{tip}\n" for ref, tip in tips.items() if tip >= 0)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:_NAME_LENGTH]


def reached(tips: Mapping[ShardRef, str], rows: Iterable[ShardRow], tables: Iterable[str], now: float) -> bool:
    """Whether the target holds all of these tips, and every other open shard of these tables is quiet.

    A shard that is not among the tips had no record then; it may be a child that came since.
    """
    known = list(rows)
    by_ref, followed = {row.ref: row for row in known}, frozenset(tables)
    for ref, tip in tips.items():
        row = by_ref.get(ref)
        if ref.table in followed and (row is None or (is_open(row) and number(row.position) < int(tip))):
            return False
    others = [row for row in unsettled(known, now) if row.ref.table in followed and row.ref not in tips]
    return all(is_open(row) and is_quiet(row, now) for row in others)
