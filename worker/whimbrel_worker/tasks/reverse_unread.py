"""What is written to the source of a way back once a rollback holds it, or has ended it: nobody would take that."""

import logging
import threading
from typing import Final

from whimbrel_api.reports import ReverseResult, UnreadLog
from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn
from whimbrel_worker.endpoints.polardb.slot.standing import Standing
from whimbrel_worker.endpoints.polardb.source import PolarDBLogSource
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.errors import Transient, WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.reverse_start import ReverseEnds, sentence

_LOG = logging.getLogger(__name__)
UNREAD: Final = "left-unread"
_FIRST: Final = 1000
_MOST: Final = 64_000
_TABLES: Final = 20


class Unread:
    """Looks again and again while nothing is read; `found` is None until it was looked at. For one thread and readers.

    Where nothing of ours stands among the first messages, more of them are looked at the next time.
    """

    def __init__(self, source: PolarDBLogSource) -> None:
        self._source, self._messages, self._times = source, _FIRST, 0
        self._lock = threading.Lock()
        self.found: Standing | None = None

    @property
    def times(self) -> int:
        """How often it was forgotten."""
        return self._times

    def forget(self) -> None:
        """It is read again."""
        with self._lock:
            self._times += 1
            self.found, self._messages = None, _FIRST

    def look(self, position: int, times: int) -> None:
        """Look at what stands after a position. Raises Transient, SourceLogLost and more.

        `times`, from before nothing was read: what was found counts only if it was not forgotten since.
        """
        try:
            found = self._source.peek(position, self._messages)
        except Transient:
            self._know(None, times)
            raise
        known = bool(found.changes or found.whole)
        if self._know(found if known else None, times) or known:
            return
        if self._messages >= _MOST:
            raise Transient(
                "whether the source is still written to is not known",
                where=self._source.where,
                why=f"its log has more than {_MOST} messages of other tables since it came to rest",
                todo="withdraw the rollback and begin it again: set spec.cutover.rollback to false, then to true",
            )
        self._messages *= 4

    def _know(self, found: Standing | None, times: int) -> bool:
        """What holds now. Whether it came too late."""
        with self._lock:
            late = times != self._times
            self.found = self.found if late else found
            return late


def last_look(context: TaskContext, ends: ReverseEnds, kept: Kept | None) -> UnreadLog | None:
    """What stands in the slot before it is dropped; None for nothing. Raises Transient where the source is away.

    It is reported, logged and kept on the DynamoDB side at once: whoever goes on after a stop finds no slot any more.
    """
    try:
        standing = ends.source.last_peek(kept.floor if kept is not None else 0, _MOST)
    except Transient:
        raise
    except WorkerError as error:
        found: UnreadLog | None = UnreadLog(unknown=sentence(error))
    else:
        if standing is None:
            return _seen_before(context, ends, kept)
        found = told(standing)
    if found is not None:
        _LOG.error("not taken from %s before its slot is dropped: %s", ends.source.where, found.model_dump_json())
        context.report.update(reverse=ReverseResult(unread=found))
        context.report.publish()
    _keep(context, ends, found or UnreadLog())
    return found


def _keep(context: TaskContext, ends: ReverseEnds, found: UnreadLog) -> None:
    short = found.model_copy(update={"tables": found.tables[:1], "unknown": found.unknown[:200]})
    try:
        ends.target.control().journal(UNREAD, f"{_mark(context)}{short.model_dump_json(exclude_defaults=True)}")
    except WorkerError as error:
        _LOG.warning("what was not taken could not be kept in DynamoDB: %s", error)


def _seen_before(context: TaskContext, ends: ReverseEnds, kept: Kept | None) -> UnreadLog | None:
    """What an earlier look of this owner's found, that stopped before its end; without one nobody knows."""
    try:
        last = ends.target.control().record().last(UNREAD)
    except WorkerError as error:
        return UnreadLog(
            unknown=f"the slot is gone, and DynamoDB does not tell what stood there: {sentence(error)}"[:1024]
        )
    if last is not None and last.detail.startswith(_mark(context)):
        found = UnreadLog.model_validate_json(last.detail.removeprefix(_mark(context)))
        return found if found != UnreadLog() else None
    if kept is None:
        return None  # it was never armed, or all of it was taken away before
    return UnreadLog(
        unknown=f"its slot was dropped by somebody, or lost, before it was looked at ({ends.source.where})"
    )


def _mark(context: TaskContext) -> str:
    return f"{context.file.reverse.owner}: "


def told(found: Standing) -> UnreadLog | None:
    """The same for a report; None for nothing."""
    if not found.changes:
        if found.whole:
            return None
        return UnreadLog(more=True, unknown=f"none of ours stand among the next {_MOST} messages, and there are more")
    first, last = format_lsn(found.first), format_lsn(found.last)
    return UnreadLog(
        changes=found.changes, first=first, last=last, tables=list(found.tables[:_TABLES]), more=not found.whole
    )
