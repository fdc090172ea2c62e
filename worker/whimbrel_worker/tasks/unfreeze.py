"""Lets the writes to the source go on, where Whimbrel had stopped them, and reports what the target then says."""

from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.inspect import read_record
from whimbrel_worker.tasks.source_freeze import release


def run(context: TaskContext) -> None:
    """Undo what stands in the journal. Safe to repeat; nothing is done where nothing stands."""
    release(context)
    record = read_record(context)
    context.report.update(record=record, epoch=record.epoch)
