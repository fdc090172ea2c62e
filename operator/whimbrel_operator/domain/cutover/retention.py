"""Whether the source's log is kept for long enough: the gate `RetentionSafe`. How workers know stands with them."""

from datetime import datetime

from whimbrel_api.base import ConditionStatus
from whimbrel_api.durations import seconds, text
from whimbrel_api.migration import MigrationSpec, StreamStatus
from whimbrel_operator.domain.cutover.gate import Gate, clock
from whimbrel_operator.domain.migration.view import SNAPSHOT, STREAM, View


def told(view: View) -> StreamStatus:
    """The status of the stream with what its workers, or the copy's, say of the retention; else what they said last.

    The earliest of their deadlines counts. One that was told before stays true, because it was certain; only a source
    that forgets nothing by time has none.
    """
    speaking = view.tasks.words(STREAM) or view.tasks.words(SNAPSHOT)
    words = [word.stream for word in speaking if word.stream is not None]
    before = view.status.stream
    if not words:
        return before
    kept = [word.retention_seconds for word in words if word.retention_seconds is not None]
    ends = [word.retention_deadline for word in words if word.retention_deadline is not None]
    if not kept:
        return before.model_copy(update={"retention_deadline": None, "retention_seconds": None})
    until = min(ends, default=before.retention_deadline)
    return before.model_copy(update={"retention_deadline": until, "retention_seconds": min(kept)})


def retention_gate(view: View) -> Gate:
    """What is to be read next stays in the log for longer than the guard and a whole cutover ask for."""
    return judge_retention(told(view), view.spec, view.now, reported=view.fresh_stream is not None)


def judge_retention(stream: StreamStatus, spec: MigrationSpec, now: datetime, *, reported: bool) -> Gate:
    """The gate over what is known of the log. `reported`: the stream has spoken lately.

    Of the retention the share `spec.stream.retentionGuard` may be used. Never less may be left than a cutover may take:
    it may be given up at its very end, and the stream goes on from where it was.
    """
    deadline, period = stream.retention_deadline, stream.retention_seconds
    if deadline is None:
        return _untold(period, reported=reported)
    guard, timeout = spec.stream.retention_guard, spec.cutover.timeout
    left, margin = (deadline - now).total_seconds(), max(seconds(timeout), (1 - guard) * (period or 0.0))
    until = f"the source keeps what is read next until {clock(deadline)}"
    if left <= 0:
        return _retention("False", "RetentionNear", f"{until}, which is past: the next read tells if it is lost")
    if left < margin:
        need = f"{text(margin)} must be left (retentionGuard {guard:g}, cutover.timeout {timeout})"
        return _retention("False", "RetentionNear", f"{until}, {need}; let the source keep its log for longer")
    return _retention("True", "LogKept", f"{until}, {text(margin)} must be left")


def _untold(period: float | None, *, reported: bool) -> Gate:
    if period is not None:
        kept = f"the source keeps a change for {text(period)}"
        return _retention("Unknown", "RetentionUnknown", f"{kept}, and the stream has not said yet since when it reads")
    if not reported:
        return _retention("Unknown", "NoFreshReport", "the stream has not reported lately")
    return _retention("True", "NotTold", "the source names no time after which its log forgets changes")


def _retention(status: ConditionStatus, reason: str, message: str) -> Gate:
    return Gate("RetentionSafe", status, reason, message)
