"""Reads what the target's control tables say of a migration, and who may write to its tables; changes nothing."""

from whimbrel_api.reports import Record
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import applied_through, sharded_ends
from whimbrel_worker.tasks.target_writers import target_writers


def run(context: TaskContext) -> None:
    """Report the record, and where it is asked for, who else may write to the target."""
    context.report.update(record=read_record(context), writers=target_writers(context))


def read_record(context: TaskContext) -> Record:
    """The record with the least position that the stream has reached: in all of its lanes, or in all shards."""
    record = context.target.control().record()
    reached = _reached(context) if record.exists and record.last("retired") is None else ""
    return record.model_copy(update={"stream_position": reached or record.start_position})


def _reached(context: TaskContext) -> str:
    if sharded_ends(context) is not None:
        return applied_through(context)
    positions = [position for position in context.target.control().positions("stream").values() if position]
    return context.source.least(positions) if positions else ""
