"""Who else may write to the target, for a report: asked of its server where that can be asked. Nothing is changed."""

from collections.abc import Callable

from whimbrel_api.cutover import TargetWriters
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.errors import Transient, WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.selection import possible_places

_LENGTH = 1000


def target_writers(context: TaskContext) -> TargetWriters | None:
    """What the target's catalogue says. None where it is not asked for, or the target has none. Raises Transient."""
    options, target = context.file.writers, context.target
    if not options.look or not isinstance(target, PostgresTarget):
        return None
    return told(lambda: target.writers(_places(context), options.allowed))


def _places(context: TaskContext) -> set[tuple[str, str]]:
    """Where the migration's tables stand, by its control rows: the source is not asked, it may be busy or away."""
    rows = context.target.control().tables()
    return {place for row in rows for place in possible_places(row.name, context.file.tables)}


def told(look: Callable[[], TargetWriters]) -> TargetWriters:
    """The look's finding, or why there is none: that closes one gate at most, and fails no task. Raises Transient."""
    try:
        return look()
    except Transient:
        raise
    except WorkerError as error:
        return TargetWriters(unknown=str(error)[:_LENGTH])
