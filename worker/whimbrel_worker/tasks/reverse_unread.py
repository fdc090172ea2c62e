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
        found = self._source.peek(position, self._messages)
        with self._lock:
            if times != self._times:
                return
            if found.changes or found.whole:
                self.found = found
                return
        if self._messages >= _MOST:
            raise Transient(
                "whether the source is still written to is not known",
                where=self._source.where,
                why=f"its log has more than {_MOST} messages of other tables since it came to rest",
                todo="withdraw the rollback and begin it again: set spec.cutover.rollback to false, then to true",
            )
        self._messages *= 4

    @property
    def last(self) -> int:
        """Where the newest commit that was found starts; 0 for none."""
        return self.found.last if self.found is not None else 0

    def report(self) -> UnreadLog | None:
        """What was found, for the report; None for nothing."""
        return told(self.found) if self.found is not None else None


def last_look(context: TaskContext, ends: ReverseEnds, kept: Kept | None) -> UnreadLog | None:
    """What stands in the slot before it is dropped; None for nothing. Raises Transient where the source is away.

    It is reported, logged and kept on the DynamoDB side at once: whoever goes on after a stop finds no slot any more.
    """
    try:
        found = told(ends.source.last_peek(kept.floor if kept is not None else 0, _MOST))
    except Transient:
        raise
    except WorkerError as error:
        found = UnreadLog(unknown=sentence(error))
    if found is None:
        return _kept_before(context, ends)
    _LOG.error("not taken from %s before its slot is dropped: %s", ends.source.where, found.model_dump_json())
    context.report.update(reverse=ReverseResult(unread=found))
    context.report.publish()
    _keep(context, ends, found)
    return found


def _keep(context: TaskContext, ends: ReverseEnds, found: UnreadLog) -> None:
    short = found.model_copy(update={"tables": found.tables[:1], "unknown": found.unknown[:200]})
    try:
        ends.target.control().journal(UNREAD, f"{_mark(context)}{short.model_dump_json()}"[:1024])
    except WorkerError as error:
        _LOG.error("what was not taken could not be kept in DynamoDB: %s", error)


def _kept_before(context: TaskContext, ends: ReverseEnds) -> UnreadLog | None:
    """What an earlier look of this owner's found, which stopped before its end."""
    try:
        last = ends.target.control().record().last(UNREAD)
    except WorkerError as error:
        _LOG.warning("what was not taken before cannot be read in DynamoDB: %s", error)
        return None
    if last is None or not last.detail.startswith(_mark(context)):
        return None
    return UnreadLog.model_validate_json(last.detail.removeprefix(_mark(context)))


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
