"""Raises the epoch, so that no worker of the old one can write any more, and journals why."""

from whimbrel_api.reports import CANCELLED, ROLLED_BACK, SEALED, SWITCHED, Record
from whimbrel_api.tasks import FenceOptions
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.tasks.acknowledge import acknowledge
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.inspect import read_record
from whimbrel_worker.tasks.last_look import conclude, overtaken
from whimbrel_worker.tasks.reopen import reopen, require_switched
from whimbrel_worker.tasks.sharding import LEFT, settle

_RAISING = {ROLLED_BACK, CANCELLED}
_OF_AN_ATTEMPT = {SEALED, SWITCHED}


def run(context: TaskContext) -> None:
    """Journal the step; all but `timed-out` raise the epoch, that one only the plan's attempt.

    A seal or a switch is refused where the source was written to, and the report tells that; the task is done.
    """
    options, record = context.file.fence, context.target.control().record()
    if not record.exists:
        raise ConfigurationError("there is no migration to fence in the target", where=context.file.migration)
    done = conclude(context) if options.step in _OF_AN_ATTEMPT else _carry_out(context, record)
    if done and options.step in (SWITCHED, CANCELLED):
        settle(context, switched=options.step == SWITCHED)
    if done:
        acknowledge(context, options.detail)
    after = read_record(context)
    context.report.update(record=after, epoch=after.epoch)


def _carry_out(context: TaskContext, record: Record) -> bool:
    """A step that does not depend on the source. It is always done, or raises."""
    options, control = context.file.fence, context.target.control()
    if options.step == ROLLED_BACK and not _is_done(record, options):
        require_switched(context, record)
        reopen(context, record)
    if options.step not in _RAISING:
        if 0 < context.file.epoch != record.epoch:
            raise overtaken(context, record)
        control.give_up(options.plan_attempt, options.detail)
        return True
    if options.plan_attempt:
        control.set_plan_attempt(options.plan_attempt)
    if not _is_done(record, options):
        control.raise_epoch(options.step, options.detail)
    return True


def _is_done(record: Record, options: FenceOptions) -> bool:
    """Whether this very order was carried out before its result could be told.

    What settling left undone may stand behind it. Any other step means that the order is a new one: a later attempt's
    switch at the same position has workers of a later epoch to fence out.
    """
    last = next((entry for entry in reversed(record.journal) if entry.step != LEFT), None)
    return last is not None and (last.step, last.detail) == (options.step, options.detail)
