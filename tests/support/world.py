"""A source and a target reduced to positions and a journal, and what workers would say of them.

One behaviour for the in-memory runtime (`support.memory_runtime`) and for real child processes (`support.fake_worker`).
"""

from datetime import datetime, timedelta

from pydantic import BaseModel

from whimbrel_api.acknowledgements import KEPT, Acknowledgement, Proof
from whimbrel_api.cutover import TargetWriters
from whimbrel_api.layout import own_name
from whimbrel_api.migration import CheckResult, Differences, TableStatus
from whimbrel_api.reports import (
    FREEZING,
    REFUSED,
    UNFROZEN,
    CheckReport,
    ErrorCategory,
    FreezeResult,
    JournalEntry,
    PreflightResult,
    Record,
    ReportedError,
    ReverseResult,
    SlotReport,
    StreamResult,
    UnreadLog,
    WorkerReport,
    WorkerState,
)
from whimbrel_api.tasks import CheckScope, ExitCode, Orders, SchemaStage, TaskFile, TaskKind

Answer = tuple[WorkerReport, ExitCode | None]
ROWS = 1000
CHECK_TURNS = 2


class Failure(BaseModel):
    """A task that fails until the failure is taken away."""

    code: ExitCode
    error: ReportedError | None = None


def number(position: str) -> int:
    """Positions are `p1`, `p2`, …"""
    return int(position[1:])


class World(BaseModel):
    """`position` is the source's; `quiet` whether writes to it have ended; `checks` the next results, then Equal.

    `final_result` is the last final check's, `switched_on` the one that the first fence came after, `switched_at` where
    the source was then; `unreadable`: a fence cannot look at it; `writes_at_fence`: somebody writes just before one
    looks. `fences`: seals, switches and their ends as they were ordered. `slot` is the name
    of the way back's slot while there is one, and `retained` what it holds back; `back_quiet`: for how many seconds
    nothing was written to the target. `retention`: for how many seconds the
    source's log keeps a change. `writers`: who else may write to the target; `looks`: how often that was asked.
    """

    record: Record = Record()
    position: str = "p1"
    quiet: bool = True
    lag: float | None = 0.0
    quiet_log: bool = False
    retention: float | None = None
    checks: list[CheckResult] = []
    failures: dict[TaskKind, Failure] = {}
    stopped_table: str = ""
    snapshot_steps: int = 2
    snapshot_seen: dict[str, int] = {}
    check_turns: dict[str, int] = {}
    scopes: list[CheckScope] = []
    final_result: CheckResult | None = None
    switched_on: CheckResult | None = None
    switched_at: str = ""
    unreadable: bool = False
    writes_at_fence: bool = False
    fences: list[TaskFile] = []
    frozen: bool = False
    written: dict[str, int] = {}
    slot: str = ""
    retained: int = 100
    wal_status: str = "reserved"
    left_behind: list[str] = []
    way_back_problems: list[str] = []
    back_position: str = "0/1"
    back_quiet: float = 0.0
    back_drains: bool = True
    back_proven: bool = True
    back_changed_at: datetime | None = None
    back_changed: str = ""
    back_tables: list[TableStatus] = []
    back_error: ReportedError | None = None
    back_unread: UnreadLog | None = None
    left_unread: UnreadLog | None = None
    back_held: bool = False
    back_result: CheckResult | None = None
    rolled_back_on: CheckResult | None = None
    armed_at_switch: bool = False
    held_at_rollback: bool = False
    writers: list[str] = []
    writers_unknown: str = ""
    looks: int = 0

    def work(self, task: TaskFile, orders: Orders, now: datetime) -> Answer:
        """One turn of a worker: its report, and its exit code once it ends."""
        failure = self.failures.get(task.task)
        if failure is not None:
            report = self._report(task, now, WorkerState.FAILED, last_error=failure.error)
            return report, failure.code
        if task.task in (TaskKind.STREAM, TaskKind.SNAPSHOT, TaskKind.FENCE) and self._fenced(task):
            what = f"epoch {task.epoch} is not {self.record.epoch}"
            error = ReportedError(category=ErrorCategory.FENCED_OUT, what=what)
            return self._report(task, now, WorkerState.FAILED, last_error=error), ExitCode.FENCED_OUT
        act = getattr(self, f"_{task.task.value}")
        answer: Answer = act(task, orders, now)
        return answer

    def journal(self, step: str, now: datetime) -> None:
        """Write a step into the target's journal, once."""
        if self.record.last(step) is None:
            entries = [*self.record.journal, JournalEntry(step=step, recorded_at=now)]
            self.record = self.record.model_copy(update={"journal": entries})

    def add(self, step: str, now: datetime, detail: str = "") -> None:
        """Write a step into the target's journal, once more."""
        entries = [*self.record.journal, JournalEntry(step=step, detail=detail, recorded_at=now)]
        self.record = self.record.model_copy(update={"journal": entries})

    def _fenced(self, task: TaskFile) -> bool:
        return task.epoch not in (0, self.record.epoch) and task.task is not TaskKind.FENCE

    def _report(self, task: TaskFile, now: datetime, state: WorkerState, **more: object) -> WorkerReport:
        named = {"task": task.task, "task_id": task.task_id, "index": task.index, "epoch": self.record.epoch}
        proven = state is WorkerState.DONE and task.task is not TaskKind.STREAM and self._proven(task, more)
        if proven and task.proof.step:
            more |= {"acknowledged": self._acknowledge(task, task.proof, now)}
        return WorkerReport.model_validate(
            {**named, "state": state, "observed_at": now, "tables": self._tables(), **more}
        )

    def _proven(self, task: TaskFile, told: dict[str, object]) -> bool:
        found = told.get("check")
        moved = task.task is TaskKind.FREEZE and task.freeze.since not in ("", self.position)
        return not moved and (not isinstance(found, CheckReport) or found.result is CheckResult.EQUAL)

    def _acknowledge(self, task: TaskFile, proof: Proof, now: datetime, position: str = "") -> list[Acknowledgement]:
        """Write the proven step into the journal, once, and those before it; what it holds of them."""
        at = position or proof.position or self.position
        kept = []
        for step in [*proof.before, proof.step]:
            by = f"{task.task_id} in a world of its own"
            told = Acknowledgement(step=step, attempt=proof.attempt, plan=proof.plan, position=at, by=by, at=now)
            known = [each for each in self.record.acknowledged if each.same_as(told)]
            if not known:
                entries = [*self.record.acknowledged, told][-KEPT:]
                self.record = self.record.model_copy(update={"acknowledged": entries})
            kept.append((known or [told])[0])
        return kept

    def _tables(self) -> list[TableStatus]:
        stopped = self.stopped_table
        tables = [TableStatus(name="shop.a", state="Following", rows_total=ROWS, rows_copied=ROWS)]
        return [*tables, TableStatus(name=stopped, state="Stopped", message="ALTER TABLE")] if stopped else tables

    def _done(self, task: TaskFile, now: datetime, **more: object) -> Answer:
        return self._report(task, now, WorkerState.DONE, **more), ExitCode.DONE

    def _preflight(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        found = PreflightResult(source_id="s1", write_path="Upsert", warnings=["trigger shop.t"], record=self.record)
        return self._done(task, now, preflight=found)

    def _schema(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        if task.schema_stage is SchemaStage.INDEXES:
            if self.record.exists:
                self.journal("indexes-ready", now)
            return self._done(task, now, record=self.record)
        if not self.record.exists:
            self.record = Record(exists=True, source_id="s1", epoch=1, start_position=self.position)
            self.journal("started", now)
        return self._done(task, now, record=self.record)

    def _snapshot(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        seen = self.snapshot_seen[str(task.index)] = self.snapshot_seen.get(str(task.index), 0) + 1
        figures: dict[str, object] = {"tables_total": 1, "rows_total": ROWS}
        started = self.record.last("started")
        if self.retention is not None and started is not None:
            until = started.recorded_at + timedelta(seconds=self.retention)
            figures["stream"] = StreamResult(retention_deadline=until, retention_seconds=self.retention)
        if seen < self.snapshot_steps and not self.record.snapshot_complete:
            rows = ROWS * seen // self.snapshot_steps
            return self._report(task, now, WorkerState.RUNNING, rows_done=rows, **figures), None
        if all(self.snapshot_seen.get(str(index), 0) >= self.snapshot_steps for index in range(task.workers)):
            self.record = self.record.model_copy(update={"snapshot_complete": True})
        return self._done(task, now, rows_done=ROWS, tables_done=1, **figures)

    def _stream(self, task: TaskFile, orders: Orders, now: datetime) -> Answer:
        reached = bool(orders.drain_to) and number(orders.drain_to) <= number(self.position)
        drained = orders.drain_to if reached else ""
        self.record = self.record.model_copy(update={"stream_position": self.position})
        kept = None if self.retention is None else now + timedelta(seconds=self.retention - (self.lag or 0.0))
        stream = StreamResult(
            position=self.position, lag_seconds=self.lag, quiet=self.quiet_log, lag_observed_at=now, drained_to=drained,
            retention_deadline=kept, retention_seconds=self.retention,
        )  # fmt: skip
        told: dict[str, object] = {"stream": stream}
        if drained and orders.proof.step and task.index == 0:
            told |= {"acknowledged": self._acknowledge(task, orders.proof, now, drained)}
        if orders.retire and drained:
            return self._done(task, now, **told)
        return self._report(task, now, WorkerState.RUNNING, **told), None

    def _check(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        turns = self.check_turns.pop(task.task_id, 0)
        if turns < CHECK_TURNS:
            self.check_turns[task.task_id] = turns + 1
            return self._report(task, now, WorkerState.RUNNING, check=CheckReport(rows_total=ROWS)), None
        self.scopes.append(task.check.scope)
        result = self.checks.pop(0) if self.checks else CheckResult.EQUAL
        if task.task_id.startswith("final-back"):
            self.back_result = result
        elif task.check.scope is CheckScope.FINAL or task.task_id.startswith("final"):
            self.final_result = result
        found = CheckReport(
            result=result,
            differences=Differences(changed=3 if result is CheckResult.DIFFERENT else 0),
            inconclusive=1 if result is CheckResult.INCONCLUSIVE else 0,
            rows_compared=ROWS,
            rows_total=ROWS,
            validated_through=self.position,
        )
        return self._done(task, now, check=found)

    def _freeze(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        if task.freeze.stop_writes is not None:
            if task.freeze.plan_attempt < self.record.plan_attempt:
                error = ReportedError(category=ErrorCategory.FENCED_OUT, what="an old attempt")
                return self._report(task, now, WorkerState.FAILED, last_error=error), ExitCode.FENCED_OUT
            if self.record.standing_freeze is None:
                self.add(FREEZING, now)
            self.frozen = True
        if not self.quiet:
            seen = FreezeResult(quiet_seconds=0.1, last_position=self.position)
            return self._report(task, now, WorkerState.RUNNING, freeze=seen), None
        written = self.written if task.freeze.since not in ("", self.position) else {}
        quiet = task.freeze.quiet_seconds
        found = FreezeResult(position=self.position, quiet_seconds=quiet, tables=written)
        return self._done(task, now, freeze=found)

    def _unfreeze(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        attempt = max(self.record.plan_attempt, task.freeze.plan_attempt)
        self.record = self.record.model_copy(update={"plan_attempt": attempt})
        traffic = self.record.traffic
        if self.record.standing_freeze is not None and (traffic is None or traffic.step != "switched"):
            self.frozen = False
            self.add(UNFROZEN, now)
        return self._done(task, now, record=self.record)

    def _overtaken(self, task: TaskFile, now: datetime, what: str) -> Answer:
        error = ReportedError(category=ErrorCategory.FENCED_OUT, what=what)
        return self._report(task, now, WorkerState.FAILED, last_error=error), ExitCode.FENCED_OUT

    def _late(self, task: TaskFile) -> bool:
        return task.epoch not in (0, self.record.epoch)

    def _refused(self, task: TaskFile, now: datetime) -> Answer | None:
        """The answer of a seal or a switch that is not made; None where it is, or was."""
        step, detail, attempt = task.fence.step, task.fence.detail, task.fence.plan_attempt
        since, until = task.freeze.since, task.fence.look_until
        traffic = self.record.traffic.step if self.record.traffic is not None else ""
        verdict = (self.record.verdict.step, self.record.verdict.detail) if self.record.verdict is not None else ()
        if verdict == (step, detail):
            return None
        if verdict != (REFUSED, detail):
            if (
                (bool(since) and self._late(task))
                or traffic in ("switched", "cancelled")
                or 0 < attempt < self.record.plan_attempt
            ):
                return self._overtaken(task, now, f"attempt {attempt} was given up")
            if self.writes_at_fence:
                self.position, self.writes_at_fence = f"p{number(self.position) + 1}", False
            if since and self.unreadable and (until is None or now < until):
                return self._report(task, now, WorkerState.FAILED), ExitCode.FAILED
            if not since or (since == self.position and not self.unreadable):
                return None
            self.add(REFUSED, now, detail)
            self.record = self.record.model_copy(update={"epoch": self.record.epoch + 1})
        unread = "connection refused" if self.unreadable else ""
        seen = FreezeResult(position=self.position, tables=self.written, unread=unread)
        return self._done(task, now, record=self.record, freeze=seen)

    def _fence(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        step, attempt = task.fence.step, task.fence.plan_attempt
        self.fences += [task] if step in ("sealed", "switched", "timed-out") else []
        if step in ("sealed", "switched") and (answer := self._refused(task, now)) is not None:
            return answer
        traffic = self.record.traffic
        if step == "rolled-back" and (traffic is None or traffic.step not in ("switched", "rolled-back")):
            return self._overtaken(task, now, "nothing is switched")
        if step == "timed-out" and (self._late(task) or (traffic is not None and traffic.step == "switched")):
            return self._overtaken(task, now, "it is switched, or of an epoch that is over")
        newest = self.record.verdict
        again = newest is not None and (newest.step, newest.detail) == (step, task.fence.detail)
        if step == "switched" and not again:
            self.switched_on, self.armed_at_switch = self.final_result, bool(self.slot)
            self.switched_at = self.position
        if step == "rolled-back" and not again:
            self.rolled_back_on, self.held_at_rollback = self.back_result, self.back_held
        if not again:
            self.add(step, now, task.fence.detail)
        raised = self.record.epoch + (0 if again or step == "timed-out" else 1)
        self.record = self.record.model_copy(
            update={"epoch": raised, "plan_attempt": max(attempt, self.record.plan_attempt)}
        )
        return self._done(task, now, record=self.record)

    def _retire(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        ends = [entry for entry in self.record.journal if entry.step in ("switched", "cancelled")]
        if task.fence.step == "abandon":
            self.journal("cancelled", now)
        elif ends:
            kept = {"journal": ends[-1:], "start_position": "", "stream_position": ""}
            self.record = self.record.model_copy(update=kept)
            self.journal("retired", now)
        return self._done(task, now, record=self.record)

    def _inspect(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        return self._done(task, now, record=self.record, writers=self._writers(task))

    def _writers(self, task: TaskFile) -> TargetWriters | None:
        if not task.writers.look:
            return None
        self.looks += 1
        if self.writers_unknown:
            return TargetWriters(unknown=self.writers_unknown)
        found = [f'"{name}" holds INSERT on 1 table' for name in self.writers if name not in task.writers.allowed]
        return TargetWriters(account='"mover"', tables=1, roles=found, roles_total=len(found), superusers=['"root"'],
                             superusers_total=1, remedies=["REVOKE INSERT;"] if found else [])  # fmt: skip

    def _reverse(self, task: TaskFile, orders: Orders, now: datetime) -> Answer:
        if task.look_only:
            found = ReverseResult(problems=self.way_back_problems)
            return self._done(task, now, reverse=found, writers=self._writers(task))
        if orders.retire:
            self.slot = "" if orders.disarm and not self.left_behind else self.slot
            return self._done(
                task, now, reverse=ReverseResult(left_behind=self.left_behind, unread=self._left(orders.hold))
            )
        self.back_held = orders.hold
        self.slot = task.reverse.slot_name or own_name(task.reverse.owner)
        slot = SlotReport(name=self.slot, active=True, wal_status=self.wal_status, retained_bytes=self.retained)
        seen = ReverseResult(
            end_of_log=self.back_position,
            drained_to=orders.drain_to if self.back_drains else "",
            proven_at=None if orders.hold or not self.back_proven else now,
            quiet_seconds=None if orders.hold else self.back_quiet,
            held=orders.hold,
            last_change_time=self.back_changed_at,
            last_change_position=self.back_unread.last if orders.hold and self.back_unread else self.back_changed,
            unread=self.back_unread if orders.hold else None,
            armed=True,
            slot=slot,
            position=self.position,
            lag_seconds=None if orders.hold else self.lag,
            lag_observed_at=now,
            changes_applied=7,
        )
        return self._report(
            task,
            now,
            WorkerState.RUNNING,
            reverse=seen,
            tables=self.back_tables or self._tables(),
            last_error=self.back_error,
        ), None

    def _disarm(self, task: TaskFile, _: Orders, now: datetime) -> Answer:
        self.slot = ""
        found = ReverseResult(left_behind=self.left_behind, unread=self._left(task.reverse.last_look))
        return self._done(task, now, reverse=found)

    def _left(self, looks: bool) -> UnreadLog | None:
        """What stood in the slot; nobody knows where nobody looks."""
        return self.left_unread if looks else None
