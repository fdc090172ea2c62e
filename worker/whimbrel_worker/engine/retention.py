"""Until when the source's log certainly keeps what comes next. Pure; what was applied, others say.

All times are the source's clock, in seconds since 1970. "Nothing that is still needed was made before this moment"
stays true once it is: what is made later is newer. So the greatest such moment ever proven counts, and the log
keeps what comes next for its retention after that moment, at least.
"""

from collections.abc import Iterable

from whimbrel_worker.engine.shard_ports import ShardRow
from whimbrel_worker.engine.shards.lag import QUIET_SECONDS, proven
from whimbrel_worker.engine.shards.lineage import is_open


class Kept:
    """One run's knowledge. `seconds`: how long the log keeps a change; None where time takes none away."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._needed_since = float("-inf")

    def until(self, needed_since: float | None) -> float | None:
        """The moment, given one before which nothing that is needed was made; None for not known, or for ever."""
        if needed_since is not None:
            self._needed_since = max(self._needed_since, needed_since)
        if self.seconds is None or self._needed_since == float("-inf"):
            return None
        return self._needed_since + self.seconds


def log_needed_since(
    oldest_pending: float | None, newest_routed: float | None, end_of_log_at: float | None, checkpoint: float
) -> float | None:
    """For a log in commit order; None while nothing is known.

    The arguments are those of lag.Sample and its meter; `checkpoint`: how much later than its rows, in seconds, a
    position may be written, from which a successor reads on.
    """
    known = [moment for moment in (newest_routed, end_of_log_at) if moment is not None]
    since = oldest_pending if oldest_pending is not None else max(known, default=None)
    return None if since is None else since - checkpoint


def shards_needed_since(rows: Iterable[ShardRow], base: float) -> float | None:
    """For a log divided into shards; `base`: the start of the copy. None where no shard is open.

    A shard that has given only empty pages for a while counts as read up to the newest of them. DynamoDB Streams cannot
    prove that; else a table into which nobody writes would seem to run out of its retention all the time.
    """
    rows = list(rows)
    known = {row.ref: row for row in rows}
    return min((_read_until(row, proven(row, known, base)) for row in rows if is_open(row)), default=None)


def _read_until(row: ShardRow, applied: float) -> float:
    quiet = row.quiet_since > 0 and row.asked_at - row.quiet_since >= QUIET_SECONDS
    return max(applied, row.asked_at) if quiet else applied
