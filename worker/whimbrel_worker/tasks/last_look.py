"""The last look at the source, between a seal or a switch that is ordered and the raised epoch that makes it so.

Nobody else looks so late: what was written after the freeze position and is not seen here is seen by nobody. How the
source comes to rest before stands in freeze; which of several fences counts, the target's control store decides.
"""

import logging
import time
from datetime import UTC, datetime

from whimbrel_api.reports import CANCELLED, REFUSED, SWITCHED, FreezeResult, Record
from whimbrel_worker.errors import FencedOut, WorkerError
from whimbrel_worker.failpoints import reach
from whimbrel_worker.tasks import shard_freeze
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.freeze import written_since
from whimbrel_worker.tasks.sharding import sharded_ends

_log = logging.getLogger(__name__)
_OVER = (SWITCHED, CANCELLED)


def conclude(context: TaskContext) -> bool:
    """Seal or switch, unless something was written since: then that is journalled and told. Whether it is done.

    Safe to repeat and to race: of all that carry out one order only one decides, the others tell what it was. Raises
    FencedOut for an order that another one has overtaken, and what reading the source raises while there is time.
    """
    fence, control = context.file.fence, context.target.control()
    done, refused = (fence.step, fence.detail), (REFUSED, fence.detail)
    control.set_plan_attempt(fence.plan_attempt)  # and what another one had begun to journal is in the journal now
    record, found = control.record(), None
    if _verdict(record) not in (done, refused):
        _require_current(context, record)
        reach("fence.ordered")
        began = time.monotonic()
        found = _looked(context)
        _log.info("looked at the source for %.3f s: %s", time.monotonic() - began, "refused" if found else "at rest")
        reach("fence.looked")
        step = fence.step if found is None else REFUSED
        control.conclude(step, fence.detail, epoch=record.epoch, attempt=fence.plan_attempt)
        record = control.record()
    if _verdict(record) == done:
        return True
    if _verdict(record) != refused:
        raise overtaken(context, record)
    context.report.update(freeze=found or _told(context))
    return False


def _verdict(record: Record) -> tuple[str, str]:
    newest = record.verdict
    return (newest.step, newest.detail) if newest is not None else ("", "")


def _require_current(context: TaskContext, record: Record) -> None:
    """An order that looks belongs to the epoch in which it was given: a late one must not end another's work."""
    epoch, attempt = context.file.epoch, context.file.fence.plan_attempt
    late = bool(context.file.freeze.since) and 0 < epoch != record.epoch
    over = record.traffic is not None and record.traffic.step in _OVER
    if late or over or 0 < attempt < record.plan_attempt:
        raise overtaken(context, record)


def overtaken(context: TaskContext, record: Record) -> FencedOut:
    """The error for an order that is carried out too late."""
    fence, newest = context.file.fence, record.verdict
    return FencedOut(
        f"attempt {fence.plan_attempt} is not {fence.step}, the plan is at attempt {record.plan_attempt}",
        where=context.file.migration,
        why=f"it was ordered in epoch {context.file.epoch}, the target is in epoch {record.epoch} and says"
        f" {newest.step if newest is not None else 'nothing'}; writes to the source may have gone on since",
        todo="nothing: the order was an old one",
    )


def _looked(context: TaskContext) -> FreezeResult | None:
    """What was written since, None for nothing. A source that cannot be looked at counts only once time is up."""
    try:
        return _seen(context) if context.file.freeze.since else None
    except WorkerError as error:
        until = context.file.fence.look_until
        if until is None or datetime.now(UTC) < until:
            raise
        return FreezeResult(unread=str(error)[:4096])


def _seen(context: TaskContext) -> FreezeResult | None:
    ends = sharded_ends(context)
    if ends is not None:
        return shard_freeze.moved_since(context, ends)
    position = context.source.position()
    if position == context.file.freeze.since:
        return None
    return FreezeResult(position=position, last_position=position, tables=_named(context, position))


def _named(context: TaskContext, position: str) -> dict[str, int]:
    """In which tables. That something was written is known, and counts where they cannot be named too."""
    try:
        return written_since(context, position)
    except WorkerError as error:
        _log.warning("the source was written to, in which tables is not known: %s", error)
        return {}


def _told(context: TaskContext) -> FreezeResult:
    """What can be said of a refusal that was journalled before, by this worker or by another one."""
    try:
        return _seen(context) or FreezeResult(unread="the source could not be looked at in time, now it can")
    except WorkerError as error:
        return FreezeResult(unread=str(error)[:4096])
