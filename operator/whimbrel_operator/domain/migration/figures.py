"""The figures of a Migration's status, mirrored from worker reports: copy, stream, checkpoint, tables. Never ahead."""

from collections.abc import Iterable, Sequence

from whimbrel_api.durations import text
from whimbrel_api.migration import Checkpoint, Phase, SnapshotStatus, StreamStatus, TableStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_operator.domain.cutover.gates import STOPPED
from whimbrel_operator.domain.cutover.retention import told
from whimbrel_operator.domain.migration.checks import words_of
from whimbrel_operator.domain.migration.view import PREFLIGHT, SNAPSHOT, STREAM, View
from whimbrel_operator.domain.observed import is_fresh
from whimbrel_operator.domain.progress import percent, rate

MOST_TABLES = 100
_ORDER = {STOPPED: 0, "Copying": 2, "Pending": 3, "Copied": 4, "Following": 5}
_STREAMING = (Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER)
_BEFORE_COPY = (Phase.PENDING, Phase.PREFLIGHT, Phase.SCHEMA)


def rows_done(view: View) -> int:
    """The rows in the target by the copy's reports, which all speak of the whole."""
    return max((word.rows_done for word in view.tasks.words(SNAPSHOT)), default=0)


def snapshot_status(view: View) -> SnapshotStatus:
    """The copy in figures. Without a report the last ones stay, without a speed."""
    words, before = view.tasks.words(SNAPSHOT), view.status.snapshot
    if not words:
        return before.model_copy(update={"rows_per_second": 0.0, "eta": None})
    total, copied = max(word.rows_total for word in words), rows_done(view)
    speed = rate(view.memory, total - copied)
    return SnapshotStatus(
        tables_total=max(word.tables_total for word in words),
        tables_done=max(word.tables_done for word in words),
        rows_total=total,
        rows_copied=copied,
        bytes_copied=max(before.bytes_copied, sum(word.counters.bytes for word in words)),
        rows_per_second=speed.rows_per_second,
        eta=speed.eta,
    )


def stream_status(view: View) -> StreamStatus:
    """The stream in figures; the lag only from a fresh report, and only while the reading itself is fresh."""
    word, before, kept = view.word(STREAM), view.status.stream, told(view)
    if word is None or word.stream is None:
        return kept.model_copy(update={"lag_seconds": None, "lag_observed_at": None, "quiet": False})
    seen, fresh, state = word.stream, view.fresh_stream, view.stream_state
    if fresh is not None and state is not None and not is_fresh(fresh.lag_observed_at, view.now, state.report_interval):
        fresh = None
    return StreamStatus(
        position=seen.position or before.position,
        lag_seconds=fresh.lag_seconds if fresh is not None else None,
        lag_observed_at=fresh.lag_observed_at if fresh is not None else None,
        quiet=fresh is not None and fresh.quiet,
        changes_applied=seen.changes_applied,
        collected_bytes=seen.collected_bytes,
        last_change_time=seen.last_change_time or before.last_change_time,
        retention_deadline=kept.retention_deadline,
        retention_seconds=kept.retention_seconds,
    )


def checkpoint(view: View) -> Checkpoint:
    """What a worker has said that the target holds; the former where nobody speaks."""
    before, truth, word = view.status.checkpoint, view.truth, view.word(STREAM)
    snapshot = before.snapshot
    if truth is not None and truth.chunks_total:
        snapshot = f"{truth.chunks_done}/{truth.chunks_total} chunks"
    if word is not None and word.stream is not None and word.stream.position:
        return Checkpoint(position=word.stream.position, snapshot=snapshot, recorded_at=word.observed_at)
    if truth is not None and truth.exists and (truth.stream_position or truth.start_position):
        position = truth.stream_position or truth.start_position
        return Checkpoint(position=position, snapshot=snapshot, recorded_at=before.recorded_at)
    return before.model_copy(update={"snapshot": snapshot})


def tables(view: View) -> list[TableStatus]:
    """At most 100 tables, the worst first: the newest word on each, with former figures where it has none."""
    before = {table.name: table for table in view.status.tables}
    newest = _newest_tables(view)
    whole = {table.name: _joined(before.get(table.name), table) for table in newest}
    merged = whole if whole and len(newest) < MOST_TABLES else {**before, **whole}
    for table in _checked_tables(view):
        if table.name in merged and table.differences is not None:
            merged[table.name] = merged[table.name].model_copy(update={"differences": table.differences})
    return sorted(merged.values(), key=_badness)[:MOST_TABLES]


def _newest_tables(view: View) -> Sequence[TableStatus]:
    found = [word for word in view.tasks.words(STREAM, SNAPSHOT, PREFLIGHT) if word.tables]
    return max(found, key=_observed_at).tables if found else ()


def _observed_at(word: WorkerReport) -> float:
    return word.observed_at.timestamp()


def _checked_tables(view: View) -> Iterable[TableStatus]:
    word = words_of(view)
    return word.tables if word is not None else ()


def _joined(old: TableStatus | None, new: TableStatus) -> TableStatus:
    if old is None:
        return new
    kept = {
        "rows_total": new.rows_total or old.rows_total,
        "rows_copied": new.rows_copied or old.rows_copied,
        "differences": new.differences if new.differences is not None else old.differences,
    }
    return new.model_copy(update=kept)


def _badness(table: TableStatus) -> tuple[int, str]:
    return (1 if table.differences and table.state != STOPPED else _ORDER.get(table.state, 1)), table.name


def progress_text(phase: Phase, copied: SnapshotStatus) -> str:
    """The printed column."""
    if phase in _BEFORE_COPY:
        return "0%"
    return f"{percent(copied)}%" if phase in (Phase.SNAPSHOT, Phase.CANCELLED) else "100%"


def lag_text(phase: Phase, streamed: StreamStatus) -> str:
    """The printed column: `unknown` where a lag is due and none is known, empty where none is due.

    `quiet` where nothing has come for a while from a log that cannot prove its end.
    """
    if streamed.lag_seconds is not None:
        return text(streamed.lag_seconds)
    if streamed.quiet:
        return "quiet"
    return "unknown" if phase in _STREAMING else ""


def remaining_text(eta: float | None) -> str:
    """The printed column for the time left, in seconds; empty where it is not known."""
    return text(eta) if eta is not None else ""
