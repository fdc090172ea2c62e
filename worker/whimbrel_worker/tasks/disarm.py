"""Takes away slot and publication of a way back that no worker follows any more. Safe to repeat."""

import logging

from whimbrel_api.reports import ReverseResult
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.reverse_start import TASK, ReverseEnds, disarm, kept_before, reverse_ends
from whimbrel_worker.tasks.reverse_unread import last_look

_LOG = logging.getLogger(__name__)


def run(context: TaskContext) -> None:
    """Fence a worker that may still run, then drop what its owner made. What is left goes into the report.

    DynamoDB that is away keeps no slot alive: the source is cleared in any case. The position goes last: by it alone a
    slot beside somebody else's publication is known to be ours, when this is run again.
    """
    ends = reverse_ends(context)
    kept, left = _fenced(context, ends)
    unread = last_look(context, ends, kept) if context.file.reverse.last_look else None
    left += disarm(context, ends, kept)
    left += _forgotten(context, ends) if kept is not None else []
    context.report.update(reverse=ReverseResult(left_behind=left, unread=unread))


def _fenced(context: TaskContext, ends: ReverseEnds) -> tuple[Kept | None, list[str]]:
    """Take the control row from whoever holds it, if it is this owner's. What is kept in it, and what was not done."""
    try:
        kept = kept_before(context, ends)
        if kept is not None:
            session = ends.target.session(TASK, 0, ends.target.control().record().epoch)
            session.take()
            session.close()
    except WorkerError as error:
        return None, [_kept_still(context, error)]
    return kept, []


def _forgotten(context: TaskContext, ends: ReverseEnds) -> list[str]:
    """Take the control row out of use. What was not done."""
    try:
        ends.target.control().drop_positions(TASK, 0)
    except WorkerError as error:
        return [_kept_still(context, error)]
    return []


def _kept_still(context: TaskContext, error: WorkerError) -> str:
    _LOG.warning("the kept position stays in DynamoDB: %s", error)
    return f"the kept position of {context.file.migration} in table whimbrel-control ({error.what})"
