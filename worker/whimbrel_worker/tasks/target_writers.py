"""Who else may write to the target, for a report: asked of its server where that can be asked. Nothing is changed."""

from collections.abc import Callable

from whimbrel_api.cutover import TargetWriters
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.errors import Transient, WorkerError
from whimbrel_worker.tasks.context import TaskContext

_LENGTH = 1000


def target_writers(context: TaskContext) -> TargetWriters | None:
    """What the target's catalogue says. None where it is not asked for, or the target has none. Raises Transient."""
    options, target = context.file.writers, context.target
    if not options.look or not isinstance(target, PostgresTarget):
        return None
    return told(lambda: target.writers(context.source.discover()[0], options.allowed))


def told(look: Callable[[], TargetWriters]) -> TargetWriters:
    """The look's finding, or why there is none: that closes one gate at most, and fails no task. Raises Transient."""
    try:
        return look()
    except Transient:
        raise
    except WorkerError as error:
        return TargetWriters(unknown=str(error)[:_LENGTH])
