"""Raises the epoch, so that no worker of the old one can write any more, and journals why."""

from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.inspect import read_record

_RAISING = {"switched", "cancelled"}


def run(context: TaskContext) -> None:
    """Journal the step; `switched` and `cancelled` raise the epoch, `timed-out` only the plan's attempt."""
    options, control = context.file.fence, context.target.control()
    if not control.record().exists:
        raise ConfigurationError("there is no migration to fence in the target", where=context.file.migration)
    if options.plan_attempt:
        control.set_plan_attempt(options.plan_attempt)
    if options.step in _RAISING:
        control.raise_epoch(options.step, options.detail)
    else:
        control.journal(options.step, options.detail)
    record = read_record(context.source, context.target)
    context.report.update(record=record, epoch=record.epoch)
