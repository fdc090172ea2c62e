"""The source's writers stopped and let go on by us, journalled in the target before it is done. No waiting for quiet.

The journal goes `freezing` (with how it was before), `unfreezing`, `unfrozen`. Whoever stops the writers looks at the
journal again afterwards, and an unfreeze raises the plan's attempt first: so of two workers that do both at the same
time, whichever is the late one, the source is open in the end.
"""

import logging

from whimbrel_api.cutover import FreezePolicy
from whimbrel_api.reports import FREEZING, ROLLED_BACK, SWITCHED, UNFREEZING, UNFROZEN, JournalEntry, Record
from whimbrel_worker.endpoints.dynamodb.freeze.freezing import DynamoDBFreezing
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.endpoints.mysql.freezing import MySQLFreezing
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.engine.freezing import Freezing
from whimbrel_worker.errors import ConfigurationError, FencedOut
from whimbrel_worker.failpoints import reach
from whimbrel_worker.tasks.context import TaskContext

_log = logging.getLogger(__name__)


def freezing_of(context: TaskContext) -> Freezing:
    """How this source's writers are stopped. Raises ConfigurationError where nothing is known of that."""
    if isinstance(context.source, MySQLSource):
        return MySQLFreezing(context.source.connector, context.wait)
    if isinstance(context.source, DynamoDBSource):
        source = context.source
        return DynamoDBFreezing(source.client, source.table_names, context.file.migration, context.wait)
    raise ConfigurationError(
        "Whimbrel cannot stop the writes to this source",
        where=context.file.migration,
        why="cutover.sourceFreeze: Operator is there for MySQL and DynamoDB sources only",
        todo="set spec.cutover.sourceFreeze to User, and stop the writers yourself when the cutover asks for it",
    )


def stop_writes(context: TaskContext, policy: FreezePolicy) -> str:
    """Stop the writes to the source. Returns the journalled detail. Raises FencedOut when that is no longer wanted."""
    freezing, control = freezing_of(context), context.target.control()
    record = _wanted(context, control.record())
    standing = record.standing_freeze
    if standing is not None and not _is_ours(freezing, standing, policy):
        release(context)
        standing = None
    detail = standing.detail if standing is not None else freezing.former(policy)
    if standing is None:
        control.journal(FREEZING, detail)
    reach("freeze.journalled")
    freezing.stop(detail)
    reach("freeze.stopped")
    _look_again(context, freezing, detail)
    return detail


def _is_ours(freezing: Freezing, standing: JournalEntry, policy: FreezePolicy) -> bool:
    return standing.step == FREEZING and freezing.is_for(standing.detail, policy)


def _wanted(context: TaskContext, record: Record) -> Record:
    """The record, unless the freeze belongs to an attempt or an epoch that is over."""
    file, attempt = context.file, context.file.freeze.plan_attempt
    if not record.exists:
        raise ConfigurationError("there is no migration to freeze the source for in the target", where=file.migration)
    if 0 < attempt < record.plan_attempt or 0 < file.epoch != record.epoch:
        raise FencedOut(
            f"the source is not frozen for attempt {attempt} in epoch {file.epoch}",
            where=file.migration,
            why=f"the target is at attempt {record.plan_attempt} in epoch {record.epoch}",
            todo="nothing: the order was an old one",
        )
    return record


def _look_again(context: TaskContext, freezing: Freezing, detail: str) -> None:
    """Somebody may have undone it while it was being done; then it must not stay."""
    control = context.target.control()
    try:
        standing = _wanted(context, control.record()).standing_freeze
    except FencedOut:
        _undo(context, freezing, detail)
        raise
    if standing is None or standing.step != FREEZING:
        _undo(context, freezing, detail)
        raise FencedOut(
            "the freeze of the source was undone while it was being made",
            where=context.file.migration,
            why="the cutover that it was for has been given up",
            todo="nothing: the source is open",
        )


def release(context: TaskContext) -> Record:
    """Undo what stands in the journal, if anything does. Returns the record afterwards.

    The attempt that the freeze was for is over before that, so that neither a late freeze nor a late switch of it is
    carried out. After a switch nothing is undone until the journal has its rollback: what would be written to the
    source before would be lost.
    """
    control, attempt = context.target.control(), context.file.freeze.plan_attempt
    if not control.record().exists:
        return Record()
    if attempt:
        control.set_plan_attempt(attempt)
    record = control.record()
    standing = record.standing_freeze
    if standing is None:
        return record
    if _switched_since(record):
        _log.warning("the source stays frozen: the traffic has moved, and writes to it would be lost")
        return record
    reach("unfreeze.read")
    _undo(context, freezing_of(context), standing.detail)
    return control.record()


def _undo(context: TaskContext, freezing: Freezing, detail: str) -> None:
    control = context.target.control()
    control.journal(UNFREEZING, detail)
    reach("unfreeze.journalled")
    freezing.undo(detail)
    reach("unfreeze.undone")
    control.journal(UNFROZEN, detail)


def _switched_since(record: Record) -> bool:
    steps = [entry.step for entry in record.journal if entry.step in (FREEZING, SWITCHED, ROLLED_BACK)]
    return bool(steps) and steps[-1] == SWITCHED
