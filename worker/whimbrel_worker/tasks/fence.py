"""Raises the epoch, so that no worker of the old one can write any more, and journals why."""

from whimbrel_worker.errors import ConfigurationError, FencedOut
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.inspect import read_record
from whimbrel_worker.tasks.sharding import put_back

_RAISING = {"switched", "cancelled"}


def run(context: TaskContext) -> None:
    """Journal the step; `switched` and `cancelled` raise the epoch, `timed-out` only the plan's attempt."""
    options, control = context.file.fence, context.target.control()
    record = control.record()
    if not record.exists:
        raise ConfigurationError("there is no migration to fence in the target", where=context.file.migration)
    if options.step == "switched" and 0 < options.plan_attempt < record.plan_attempt:
        raise FencedOut(
            f"the switch of attempt {options.plan_attempt} is not made, the plan is at attempt {record.plan_attempt}",
            where=context.file.migration,
            why="that attempt was given up, and writes to the source may have gone on since",
            todo="nothing: the order was an old one",
        )
    if options.plan_attempt:
        control.set_plan_attempt(options.plan_attempt)
    if options.step in _RAISING:
        control.raise_epoch(options.step, options.detail)
    else:
        control.journal(options.step, options.detail)
    if options.step in _RAISING:
        put_back(context)
    after = read_record(context)
    context.report.update(record=after, epoch=after.epoch)
