"""Reads what the target's control tables say of a migration; changes nothing."""

from whimbrel_api.reports import Record
from whimbrel_worker.engine.ports import Source, Target
from whimbrel_worker.tasks.context import TaskContext


def run(context: TaskContext) -> None:
    """Report the record."""
    context.report.update(record=read_record(context.source, context.target))


def read_record(source: Source, target: Target) -> Record:
    """The record with the least position that all of the stream's lanes have reached."""
    control = target.control()
    record = control.record()
    positions = [position for position in control.positions("stream").values() if position] if record.exists else []
    least = source.least(positions) if positions else record.start_position
    return record.model_copy(update={"stream_position": least})
