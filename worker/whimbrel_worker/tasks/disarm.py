"""Takes away slot and publication of a way back that no worker follows any more. Safe to repeat."""

import logging

from whimbrel_api.reports import ReverseResult
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.reverse_start import TASK, ReverseEnds, disarm, kept_before, reverse_ends

_LOG = logging.getLogger(__name__)


def run(context: TaskContext) -> None:
    """Fence a worker that may still run, then drop what its owner made. What is left goes into the report.

    DynamoDB that is away keeps no slot alive: the source is cleared in any case.
    """
    ends = reverse_ends(context)
    kept, left = _forget(context, ends)
    left += disarm(context, ends, kept)
    context.report.update(reverse=ReverseResult(left_behind=left))


def _forget(context: TaskContext, ends: ReverseEnds) -> tuple[Kept | None, list[str]]:
    """Take the control row out of use, if it is this owner's. What was kept in it, and what could not be done."""
    try:
        kept = kept_before(context, ends)
        if kept is not None:
            ends.target.control().drop_positions(TASK, 0)
    except WorkerError as error:
        _LOG.warning("the kept position stays in DynamoDB: %s", error)
        return None, [f"the kept position of {context.file.migration} in table whimbrel-control ({error.what})"]
    return kept, []
