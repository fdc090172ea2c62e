"""Follows PolarDB's log into DynamoDB until told to retire or to stop. How it begins stands in reverse_start.

One thread applies the log, one looks at the slot and sends heartbeats; the task's own thread watches both, the orders
and the guard's limit, and reports.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.durations import seconds
from whimbrel_api.layout import OnLimit, OnTruncate
from whimbrel_api.migration import TableStatus
from whimbrel_api.repeats import Repeats
from whimbrel_api.reports import ReverseResult, SlotReport
from whimbrel_worker.endpoints.polardb.kept import kept_text
from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn, parse_lsn
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.reverse import guard
from whimbrel_worker.engine.reverse.applier import Applier, Options
from whimbrel_worker.engine.reverse.ledger import Ledger
from whimbrel_worker.engine.reverse.pulse import Pulse
from whimbrel_worker.engine.reverse_ports import SlotState
from whimbrel_worker.errors import SourceLogLost, Transient, WorkerError
from whimbrel_worker.tasks.context import Stopped, TaskContext
from whimbrel_worker.tasks.notices import Notices
from whimbrel_worker.tasks.reverse_start import (
    TASK,
    Begun,
    ReverseEnds,
    begin,
    disarm,
    journal_drop,
    kept_before,
    look,
    lost_by_guard,
    reverse_ends,
    writers_behind,
)
from whimbrel_worker.tasks.reverse_unread import Unread, last_look, told

_LOG = logging.getLogger(__name__)
_TICK_SECONDS: Final = 0.1
_RESULT_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 1.0
_BEAT_SECONDS: Final = 1.0
_HURRIED_SECONDS: Final = 0.25
_FINISH_SECONDS: Final = 60.0
_GIVE_UP_SECONDS: Final = 5.0
_RETIRE_SECONDS: Final = 60.0
_REPORTED_TABLES: Final = 100
_START: Final = Backoff(base=0.2, cap=5.0, attempts=8)
_AGAIN: Final = Backoff(base=0.2, cap=10.0, attempts=1_000_000)
_ONCE: Final = Backoff(attempts=0)


def run(context: TaskContext) -> None:
    """Follow the log; with `look_only` say whether one could be followed.

    Returns when retired; raises Stopped, SourceLogLost, FencedOut or what else ends the work.
    """
    ends = reverse_ends(context)
    if context.file.look_only:
        context.report.update(reverse=look(context, ends), writers=writers_behind(context, ends))
        return
    orders = context.orders.current()
    if orders.retire and not orders.drain_to:
        _end(context, ends, ReverseResult())
        return
    begun = retrying(lambda: begin(context, ends), backoff=_START)
    way = WayBack(context, ends, begun)
    try:
        way.run()
    except SourceLogLost:
        # A successor moves the slot on beyond what this worker kept, which looks the same.
        begun.session.prove()
        raise
    finally:
        begun.session.close()
        ends.source.close()
    _end(context, ends, way.result())


def _end(context: TaskContext, ends: ReverseEnds, result: ReverseResult) -> None:
    """Take away what was made, if that was ordered, and say what was left."""
    left: list[str] = []
    orders = context.orders.current()
    if orders.disarm:
        kept = kept_before(context, ends)
        if orders.hold:
            result = result.model_copy(update={"unread": last_look(context, ends, kept)})
        left = disarm(context, ends, kept)
        if kept is not None:
            ends.target.control().drop_positions(TASK, 0)
        result = result.model_copy(update={"armed": False})
    context.report.update(reverse=result.model_copy(update={"left_behind": left}))


class WayBack:
    """One run of a way back, from its control row to its end."""

    def __init__(self, context: TaskContext, ends: ReverseEnds, begun: Begun) -> None:
        self._context, self._ends, self._begun = context, ends, begun
        options = context.file.reverse
        self._guard = options.guard
        self._checkpoint = seconds(options.checkpoint_interval)
        self._pulse = Pulse(f"{context.file.migration}:{begun.attempt}")
        self._applier = Applier(
            begun.session,
            Ledger(begun.kept),
            kept_text,
            lambda content: self._pulse.came(content, time.time()),
            Options(options.on_truncate is OnTruncate.SKIP, checkpoint_seconds=self._checkpoint),
        )
        self._stopping, self._hurry = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._looked = SlotState(ends.source.names.slot, False, "", None, 0)
        self._looked_at = float("-inf")
        self._known: list[str] = []
        self._drained_to, self._retire_by, self._result_at = "", 0.0, 0.0
        self._notice, self._repeats, self._reading = Notices(context), Repeats(), False
        self._unread = Unread(ends.source)

    def run(self) -> None:
        """Work until an order, a signal, the guard or an error ends it."""
        applying = self._thread("apply", self._apply)
        looking = self._thread("slot", self._look)
        try:
            self._watch()
        finally:
            self._stopping.set()
            applying.join(_FINISH_SECONDS)
            looking.join(_GIVE_UP_SECONDS)
        self._check()
        if applying.is_alive():
            raise Transient(
                "DynamoDB did not take the last changes in time",
                where=self._context.file.migration,
                todo="nothing is lost: the reverse sync goes on from its kept position",
            )
        self._report(now=True)
        if not self._context.orders.current().retire:
            raise Stopped

    def result(self) -> ReverseResult:
        """Where it stands."""
        lag, progress, slot = self._pulse.sample(time.time()), self._applier.progress, self._slot
        # In this order: a change that comes in between can only make it look less quiet than it is.
        proven, heard_at = self._pulse.proven(time.time()), self._applier.heard_at
        held = self._holding() and not self._reading
        unread = self._unread.found if held else None
        heard = max(self._applier.heard, unread.last if unread is not None else 0)
        return ReverseResult(
            armed=True,
            slot=SlotReport(
                name=slot.name, active=slot.active, wal_status=slot.wal_status, retained_bytes=slot.retained_bytes
            ),
            position=format_lsn(self._floor()),
            end_of_log=format_lsn(slot.end) if slot.end else "",
            drained_to=self._drained_to,
            lag_seconds=None if lag.seconds is None else round(lag.seconds, 3),
            lag_observed_at=datetime.fromtimestamp(lag.at, UTC),
            proven_at=None if proven is None else datetime.fromtimestamp(proven, UTC),
            quiet_seconds=None if proven is None else round(max(0.0, proven - heard_at), 1),
            held=unread is not None,
            unread=told(unread) if unread is not None else None,
            changes_applied=progress.changes,
            last_change_time=datetime.fromtimestamp(progress.last_change_at, UTC) if progress.last_change_at else None,
            last_change_position=format_lsn(heard) if heard else "",
            warnings=self._warnings()[:50],
        )

    @property
    def _slot(self) -> SlotState:
        """How the slot is, as far as that is known."""
        return guard.known(self._looked, time.monotonic() - self._looked_at)

    def _watch(self) -> None:
        """Tick until told to end."""
        while not self._context.stop.is_set():
            self._check()
            orders = self._context.orders.current()
            self._drain(orders.drain_to)
            if orders.retire and self._may_retire(orders.drain_to):
                return
            if guard.is_over(self._slot, self._guard) and self._guard.on_limit is OnLimit.DROP_SLOT:
                self._give_up()
            self._report()
            self._context.stop.wait(_TICK_SECONDS)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
                self._error = self._error or error

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    # The thread that applies

    def _apply(self) -> None:
        delays = _AGAIN.delays()
        while not self._stopping.is_set():
            self._reading = True  # before the look at the order: what is held must be true of what comes next
            if self._holding():
                self._reading = False
                self._pulse.forget()
                self._stopping.wait(_TICK_SECONDS)
                continue
            self._unread.forget()
            begun_at = time.monotonic()
            try:
                self._follow()
            except Transient as failure:
                self._notice.hear(failure)
                delays = _AGAIN.delays() if time.monotonic() - begun_at > _AGAIN.cap else delays
                self._stopping.wait(next(delays))

    def _follow(self) -> None:
        """Follow the log until it breaks, or an order ends it. Tables are looked up anew each time.

        The control row is proven first: whoever lost it must not take the slot from its successor.
        """
        self._begun.session.prove()
        tables = {table.name: table for table in self._ends.target.tables(self._context.file.tables)}
        ledger = self._applier.ledger
        ledger.restart(self._ends.source.follows)
        self._known = sorted(tables)
        self._repeats.log(_LOG, logging.INFO, "reading", "reading on after %s", format_lsn(ledger.floor))
        with closing(self._ends.source.open(ledger.kept, ledger.floor, list(tables.values()))) as log:
            self._applier.follow(log, tables, lambda: self._stopping.is_set() or self._holding())

    def _holding(self) -> bool:
        return self._context.orders.current().hold

    def _for_rollback(self) -> bool:
        """Whether it is held at a position of a rollback: nobody may write to the source any more."""
        orders = self._context.orders.current()
        return orders.hold and orders.drain_to != ""

    # The thread that looks at the slot

    def _look(self) -> None:
        beat_at = 0.0
        while not self._stopping.is_set():
            try:
                asked_at, times = time.monotonic(), self._unread.times
                self._looked, self._looked_at = self._ends.source.look(self._floor), asked_at
                due = time.monotonic() - beat_at >= (_HURRIED_SECONDS if self._applier.hurry else _BEAT_SECONDS)
                if due and not self._holding():
                    beat_at = time.monotonic()
                    self._ends.source.beat(self._pulse.send(time.time()))
                if self._for_rollback() and not self._reading and not self._looked.active:
                    self._unread.look(self._floor(), times)
            except Transient as failure:
                self._notice.hear(failure)
            self._hurry.wait(_LOOK_SECONDS)
            self._hurry.clear()

    # Orders and the guard

    def _floor(self) -> int:
        return self._applier.ledger.kept.floor

    def _drain(self, wanted: str) -> None:
        """Hurry while a position is wanted that DynamoDB does not hold yet; say so as soon as it does.

        A heartbeat takes the position beyond what is wanted: where nobody writes, no commit would.
        """
        draining = wanted not in ("", self._drained_to)
        if draining and self._floor() >= parse_lsn(wanted):
            self._drained_to, draining = wanted, False
            self._report(now=True)
        self._applier.hurry = draining
        if draining:
            self._hurry.set()

    def _may_retire(self, wanted: str) -> bool:
        """At once; where a position is wanted, too, once that is there. Not for ever: it would be seen missing."""
        self._retire_by = self._retire_by or time.monotonic() + _RETIRE_SECONDS
        return wanted in ("", self._drained_to) or time.monotonic() > self._retire_by

    def _give_up(self) -> None:
        """Drop the slot for the sake of the source's disk. Raises SourceLogLost, or comes back if it cannot yet.

        Not on figures of a moment ago: a worker that stood still meanwhile would drop its successor's slot.
        """
        try:
            slot = self._ends.source.check_slot(self._floor())
            if not guard.is_over(slot, self._guard):
                return
            self._prove()
            self._ends.source.drop_slot()
        except Transient as failure:
            self._notice.hear(failure)
            return
        why = self._why_over(slot)
        self._journal(why)
        raise lost_by_guard(self._ends, why)

    def _prove(self) -> None:
        """See that no successor has the slot. DynamoDB that does not answer is no reason to fill the source's disk."""
        try:
            self._begun.session.prove(_ONCE)
        except Transient as failure:
            self._notice.hear(failure)

    def _why_over(self, slot: SlotState) -> str:
        retained, limit = guard.size(slot.retained_bytes or 0), guard.size(self._guard.limit_bytes)
        stopped = ", ".join(self._applier.ledger.reasons)
        why = (
            f"slot {slot.name} held back {retained}, spec.guard.limitBytes is {limit} and "
            f"spec.guard.onLimit DropSlot; everything up to {format_lsn(self._floor())} is in DynamoDB"
        )
        return why + (f"; stopped tables kept the log: {stopped}"[:1000] if stopped else "")

    def _journal(self, why: str) -> None:
        """Keep why, for whoever starts this again."""
        try:
            journal_drop(self._context, self._ends, why)
        except WorkerError as error:
            _LOG.warning("the reason could not be kept in DynamoDB: %s", error)

    # What the operator sees

    def _report(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._result_at < _RESULT_SECONDS:
            return
        self._result_at = time.monotonic()
        self._notice.fade()
        self._context.report.update(reverse=self.result(), tables=self._table_statuses())
        if now:
            self._context.report.publish()

    def _warnings(self) -> list[str]:
        found = guard.warnings(self._slot, self._guard)
        behind = self._applier.ledger.kept.behind
        found += [
            f"table {name} is stopped, and the source keeps its log since {format_lsn(at)}: remove the cause, then set "
            "spec.paused to true and back to false"
            for name, at in sorted(behind.items())
        ][:20]
        if skipped := self._applier.progress.truncates_skipped:
            found.append(f"{skipped} TRUNCATE were passed over (spec.onTruncate: Skip): compare both sides")
        return [*found, *self._begun.warnings]

    def _table_statuses(self) -> list[TableStatus]:
        reasons = dict(self._applier.ledger.reasons)
        statuses = [TableStatus(name=name, state="Stopped", message=why[:4096]) for name, why in reasons.items()]
        statuses += [TableStatus(name=name, state="Following") for name in self._known if name not in reasons]
        return statuses[:_REPORTED_TABLES]
