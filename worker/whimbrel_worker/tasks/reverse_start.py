"""How a way back begins: pre-flight, control row, slot, and a position that is kept before anything is read.

What was kept by another owner (an earlier ReverseSync of the same name) counts as nothing: its slot is another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from whimbrel_api.cutover import TargetWriters
from whimbrel_api.reports import ReverseResult
from whimbrel_worker.endpoints.dynamodb.session import ItemSession
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.endpoints.polardb.kept import kept_text, parse_kept
from whimbrel_worker.endpoints.polardb.source import PolarDBLogSource
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, WorkerError
from whimbrel_worker.failpoints import reach
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.target_writers import told
from whimbrel_worker.values.columns import Table

TASK: Final = "reverse"
DROPPED: Final = "slot-dropped"
_LIST_LENGTH: Final = 3900
_WARNINGS: Final = 40
_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class ReverseEnds:
    """Both ends of a way back."""

    source: PolarDBLogSource
    target: DynamoDBTarget


@dataclass(frozen=True, slots=True)
class Begun:
    """A way back that is armed: its control row is held and its position kept."""

    session: ItemSession
    kept: Kept
    attempt: int
    warnings: tuple[str, ...]


def reverse_ends(context: TaskContext) -> ReverseEnds:
    """Both ends. Raises ConfigurationError where the task names others."""
    source, target = context.source, context.target
    if isinstance(source, PolarDBLogSource) and isinstance(target, DynamoDBTarget):
        return ReverseEnds(source, target)
    raise ConfigurationError(
        "this is no way back from PolarDB to DynamoDB",
        where=context.file.migration,
        why=f"the task's source is {context.file.source.kind}, its target {context.file.target.kind}",
        todo="report this: the operator starts such tasks for a ReverseSync alone",
    )


def kept_before(context: TaskContext, ends: ReverseEnds) -> Kept | None:
    """What this owner kept before; None for nothing. Changes nothing."""
    control = ends.target.control()
    if not control.record().exists:
        return None
    return _own(context, control.positions(TASK).get(0, ""))


def look(context: TaskContext, ends: ReverseEnds) -> ReverseResult:
    """What keeps a way back from beginning here, and what it would warn of; nothing is made. Raises Transient."""
    try:
        found = ends.source.judge(ends.target.tables(context.file.tables), armed=False)
        ends.target.probe_write_path()
    except ConfigurationError as error:
        return ReverseResult(problems=[sentence(error)])
    fatal = [sentence(problem) for problem in found if problem.fatal]
    warnings = [sentence(problem) for problem in found if not problem.fatal]
    return ReverseResult(problems=fatal[:_PROBLEMS], warnings=warnings[:_WARNINGS])


def writers_behind(context: TaskContext, ends: ReverseEnds) -> TargetWriters | None:
    """Who may write to PolarDB's tables beside the account of the way back. None where it is not asked for.

    The endpoint itself has no way to ask. Raises Transient.
    """
    options = context.file.writers
    if not options.look:
        return None
    return told(lambda: ends.source.writers(ends.target.tables(context.file.tables), options.allowed))


def begin(context: TaskContext, ends: ReverseEnds) -> Begun:
    """Arm, or go on from what was kept. Raises SourceLogLost, ConfigurationError, FencedOut or Transient.

    The slot is judged by the position that came with the control row: whoever held that before may have moved both on
    until then, and neither since.
    """
    tables = ends.target.tables(context.file.tables)
    armed = kept_before(context, ends) is not None
    warnings = _judged(ends.source.judge(tables, armed=armed))
    session, attempt, position = _take(context, ends)
    kept = _own(context, position)
    if kept is not None:
        _check_slot(context, ends, session, kept)
    else:
        kept = _arm(context, ends, session, tables)
        session.commit([], position=kept_text(kept))
    return Begun(session, kept, attempt, warnings)


def _own(context: TaskContext, text: str) -> Kept | None:
    kept = parse_kept(text)
    return kept if kept is not None and kept.owner == context.file.reverse.owner else None


def _take(context: TaskContext, ends: ReverseEnds) -> tuple[ItemSession, int, str]:
    """The control row, as the next attempt of the epoch: of the one that stands there, where the task names none."""
    control = ends.target.control()
    control.ensure()
    record = control.register(ends.source.identity())
    session = ends.target.session(TASK, 0, context.file.epoch or record.epoch)
    state = session.take()
    context.report.update(epoch=state.epoch, attempt=state.attempt)
    return session, state.attempt, state.position


def _arm(context: TaskContext, ends: ReverseEnds, session: ItemSession, tables: Sequence[Table]) -> Kept:
    position = ends.source.arm(tables, session.prove)
    reach("reverse.armed")
    return Kept(context.file.reverse.owner, ends.source.log_mark(), position)


def _check_slot(context: TaskContext, ends: ReverseEnds, session: ItemSession, kept: Kept) -> None:
    """See that the slot is whole, unless a successor has it by now; one that the guard dropped is told as that."""
    try:
        ends.source.check_slot(kept.floor)
    except SourceLogLost as error:
        session.prove()
        why = _journalled_drop(context, ends)
        raise lost_by_guard(ends, why) if why else error from None


def journal_drop(context: TaskContext, ends: ReverseEnds, why: str) -> None:
    """Keep why the guard dropped the slot, under its owner: the journal is that of all reverse syncs of this name."""
    ends.target.control().journal(DROPPED, f"{_drop_mark(context)}{why}"[:1024])


def _journalled_drop(context: TaskContext, ends: ReverseEnds) -> str:
    """Why the guard dropped this owner's slot; empty where it did not."""
    dropped, mark = ends.target.control().record().last(DROPPED), _drop_mark(context)
    return dropped.detail.removeprefix(mark) if dropped is not None and dropped.detail.startswith(mark) else ""


def _drop_mark(context: TaskContext) -> str:
    return f"{context.file.reverse.owner}: "


def lost_by_guard(ends: ReverseEnds, why: str) -> SourceLogLost:
    """The error for a slot that was dropped at its limit."""
    return SourceLogLost(
        "the replication slot was dropped before the source's disk was full",
        where=ends.source.where,
        why=why,
        todo="the way back has ended: delete the reverse sync, compare both sides and make it anew; raise "
        "spec.guard.limitBytes, or set spec.guard.onLimit to Report, if the disk has room",
    )


def _judged(problems: Sequence[Problem]) -> tuple[str, ...]:
    """The warnings. Raises one error with everything that is fatal."""
    fatal = [problem for problem in problems if problem.fatal]
    if len(fatal) == 1:
        raise ConfigurationError(fatal[0].what, where=fatal[0].where, why=fatal[0].why, todo=fatal[0].todo)
    if fatal:
        listed = " ".join(f"({number}) {sentence(problem)}" for number, problem in enumerate(fatal, start=1))
        raise ConfigurationError(
            f"the pre-flight of the reverse sync found {len(fatal)} problems",
            why=listed[:_LIST_LENGTH],
            todo="correct all of them; it is tried again by itself",
        )
    return tuple(sentence(problem) for problem in problems)[:_WARNINGS]


def sentence(problem: Problem | WorkerError) -> str:
    """What a report says of it, on one line."""
    parts = (problem.what, problem.where and f"in {problem.where}", problem.why, problem.todo)
    return "; ".join(part for part in parts if part)[:1000]


def disarm(context: TaskContext, ends: ReverseEnds, kept: Kept | None) -> list[str]:
    """Drop what this owner made on the source; returns what was left there. Raises an error that names the SQL."""
    try:
        return ends.source.disarm(made=kept is not None)
    except WorkerError as error:
        raise type(error)(
            error.what,
            where=error.where or ends.source.where,
            why=error.why,
            todo=f"slot and publication of {context.file.reverse.owner} may be left behind, and a slot keeps the "
            f"source's log until its disk is full; it is tried again, or by hand {ends.source.by_hand()}",
        ) from None
