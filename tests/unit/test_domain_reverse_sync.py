"""The way back's table: what it wants, when it is ready, and what holds it up."""

import asyncio
from dataclasses import dataclass

import pytest

from support.memory_runtime import START, migration
from support.way_back import ALONE, AWAY, KEY, NAMED, POLARDB, Life, back, forward, streaming
from support.world import Failure
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import CutoverState
from whimbrel_api.endpoints import Dialect, Source
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard, own_name
from whimbrel_api.migration import Migration, MigrationStatus, Phase, Tables, TableStatus
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.reverse_sync import (
    Cleanup,
    ReverseSource,
    ReverseSyncPhase,
    ReverseSyncSpec,
    ReverseSyncStatus,
)
from whimbrel_api.tasks import ExitCode, Orders, TaskKind
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.observed import ObservedReverseSync, TaskRef
from whimbrel_operator.domain.reverse.decide import decide_reverse_sync
from whimbrel_operator.specs.taskfile import report_interval


@pytest.fixture
def life() -> Life:
    """A way back that streams."""
    return streaming()


def test_it_arms_then_streams_and_mirrors_its_worker(life: Life) -> None:
    status = life.status
    assert life.runtime.events[0].message == "Pending → Arming"
    assert life.reasons == ["Arming", "Streaming"]
    assert (status.slot.name, status.slot.active, status.slot.retained_bytes) == (
        own_name("default/back/u1"),
        True,
        100,
    )
    assert (status.lag, status.lag_seconds, status.position, status.changes_applied) == ("0.0s", 0.0, "p1", 7)
    assert [table.name for table in status.tables] == ["shop.a"]
    assert (life.said("Ready"), life.said("SlotHealthy")) == (("True", "Streaming"), ("True", "Healthy"))
    assert (life.said("Stalled")[0], life.said("Reconciling")) == ("False", ("True", "Streaming"))
    assert status.resolved is not None
    assert status.resolved.source.polardb == POLARDB


def test_a_pass_that_sees_nothing_new_changes_nothing(life: Life) -> None:
    before = life.status
    assert not asyncio.run(life.reconciler.reconcile(KEY)).changed
    assert life.status == before


def test_its_worker_is_told_all_that_it_needs() -> None:
    spec = ALONE.model_copy(
        update={"layout": Layout(document_column="doc"), "guard": SlotGuard(warn_bytes=1 << 21), "paused": False,
                "cleanup": Cleanup(drop_publication=False), "on_truncate": OnTruncate.SKIP}
    )  # fmt: skip
    armed = back(spec, ReverseSyncStatus(phase=ReverseSyncPhase.ARMING))
    (wanted,) = decide_reverse_sync(ObservedReverseSync(armed), START).wanted
    assert (wanted.kind, wanted.ref, wanted.start, wanted.again) == (TaskKind.REVERSE, TaskRef("reverse"), True, True)
    assert wanted.work.migration == "default/back"
    assert wanted.work.source == Source(polardb=POLARDB)
    target = wanted.work.target.dynamodb
    assert target is not None
    assert (target.dialect, target.region, target.endpoint) == (Dialect.AWS, "us-east-1", None)
    assert wanted.work.secret_names() == ("aws", "polardb")
    assert wanted.reverse.owner == "default/back/u1"
    assert (wanted.reverse.layout, wanted.reverse.guard) == (spec.layout, spec.guard)
    assert (wanted.reverse.on_truncate, wanted.reverse.drop_slot) == (OnTruncate.SKIP, True)
    assert not wanted.reverse.drop_publication
    assert report_interval(TaskKind.REVERSE) == 2.0


def test_what_it_is_told_makes_its_fingerprint_but_orders_do_not() -> None:
    def wanted(spec: ReverseSyncSpec) -> WantedTask:
        status = ReverseSyncStatus(phase=ReverseSyncPhase.STREAMING)
        return decide_reverse_sync(ObservedReverseSync(back(spec, status)), START).wanted[0]

    usual = wanted(ALONE)
    other = wanted(ALONE.model_copy(update={"layout": Layout(document_column="doc")}))
    held = wanted(ALONE.model_copy(update={"paused": True}))
    assert usual.fingerprint != other.fingerprint
    assert (held.fingerprint, held.orders) == (usual.fingerprint, Orders(hold=True))


def test_ends_and_names_stay_as_the_work_was_begun_with(life: Life) -> None:
    """What was made on a server is known there alone: at another one nobody would ever take it away."""
    moved = POLARDB.model_copy(update={"host": "elsewhere", "credentials_secret_ref": SecretRef(name="newer")})
    spec = ALONE.model_copy(update={"source": ReverseSource(polardb=moved), "slot_name": "other"})
    decision = decide_reverse_sync(ObservedReverseSync(back(spec, life.status)), START)
    (wanted,) = decision.wanted
    assert wanted.work.source.polardb is not None
    assert wanted.work.source.polardb.host == POLARDB.host
    assert wanted.work.secret_names() == ("aws", "newer")
    assert wanted.reverse.slot_name == ""
    stalled = next(each for each in decision.status.conditions if each.type == "Stalled")
    assert (stalled.reason, stalled.message.split(" may ")[0]) == ("EndsChanged", "source, slotName")
    assert life.status.resolved is not None
    assert decision.status.resolved == life.status.resolved.model_copy(
        update={
            "source": ReverseSource(
                polardb=POLARDB.model_copy(update={"credentials_secret_ref": SecretRef(name="newer")})
            )
        }
    )


@dataclass(frozen=True)
class Wait:
    """A Migration in a state from which nothing may flow back, and the word that says so."""

    named: Migration | None
    word: str


@pytest.mark.parametrize(
    "wait",
    [
        Wait(None, "Migration shop not found in namespace default"),
        Wait(forward(Phase.FOLLOWING, CutoverState.NOT_READY), "Migration shop is in Following/NotReady"),
        Wait(forward(Phase.CUTTING_OVER, CutoverState.FINAL_CHECK), "must not flow back"),
        Wait(forward(Phase.CANCELLED, CutoverState.NOT_READY), "Migration shop is Cancelled"),
    ],
)
def test_it_waits_until_nothing_is_an_echo(wait: Wait) -> None:
    life = Life(NAMED, wait.named)
    life.turns(3)
    assert (life.status.phase, life.said("Ready")) == (ReverseSyncPhase.PENDING, ("False", "Waiting"))
    assert wait.word in life.message("Ready")
    assert life.said("Stalled")[0] == "False"
    assert life.running == set()


@pytest.mark.parametrize(
    ("phase", "state"),
    [(Phase.COMPLETED, CutoverState.SWITCHED), (Phase.COMPLETED, CutoverState.NOT_READY),
     (Phase.CUTTING_OVER, CutoverState.ARMING_REVERSE)],
)  # fmt: skip
def test_it_begins_once_the_forward_stream_has_ended(phase: Phase, state: CutoverState) -> None:
    life = Life(NAMED, forward(phase, state, layout=Layout(document_column="doc"), fenced_writes=True))
    life.turns(4)
    assert life.status.phase is ReverseSyncPhase.STREAMING
    wanted = life.runtime.instances[TaskRef("reverse")][1]
    target = wanted.work.target.dynamodb
    assert target is not None
    assert (target.region, target.credentials_secret_ref) == ("eu-west-1", SecretRef(name="aws"))
    assert target.fenced_writes
    assert (wanted.work.source.polardb, wanted.work.tables.include) == (POLARDB, ["orders", "users"])
    assert wanted.reverse.layout.document_column == "doc"


def test_its_own_say_overrules_the_migration_s() -> None:
    own = {"tables": Tables(include=["orders"]), "guard": SlotGuard(warn_bytes=1 << 21)}
    life = Life(
        NAMED.model_copy(update=own), forward(guard=SlotGuard(limit_bytes=1 << 22), on_truncate=OnTruncate.SKIP)
    )
    life.turns(2)
    wanted = life.runtime.instances[TaskRef("reverse")][1]
    assert wanted.work.tables.include == ["orders"]
    assert (wanted.reverse.guard, wanted.reverse.on_truncate) == (own["guard"], OnTruncate.SKIP)
    life.runtime.migration = None
    life.spec(guard=SlotGuard(warn_bytes=1 << 23))
    life.turns(2)
    assert life.runtime.instances[TaskRef("reverse")][1].reverse.guard == SlotGuard(warn_bytes=1 << 23)


@pytest.mark.parametrize(
    ("named", "word"),
    [(forward(polardb=None), "name it in its spec.reverseSync.polardb"),
     (migration(MigrationStatus(phase=Phase.COMPLETED)), "its source is mysql")],
)  # fmt: skip
def test_a_migration_without_a_way_back_stalls_it(named: Migration, word: str) -> None:
    life = Life(NAMED, named)
    life.turns(2)
    assert (life.said("Stalled"), life.running) == (("True", "NoWayBack"), set())
    assert word in life.message("Stalled")
    assert life.reasons == ["NoWayBack"]


def test_its_migration_s_end_does_not_end_it() -> None:
    life = Life(NAMED, forward())
    life.turns(4)
    life.runtime.migration = None
    life.turns(3)
    assert (life.said("Ready"), life.running) == (("True", "Streaming"), {"reverse"})
    assert life.runtime.orders("reverse") == Orders()
    life.delete()
    life.turns(3)
    assert (life.runtime.world.slot, life.said("Ready")) == ("", ("False", "Disarmed"))


def test_it_takes_nothing_while_the_forward_stream_writes_again() -> None:
    life = Life(NAMED, forward())
    life.turns(4)
    life.runtime.migration = forward(Phase.COMPLETED, CutoverState.ROLLING_BACK)
    life.turn()
    assert life.runtime.orders("reverse") == Orders()
    life.runtime.migration = forward(Phase.CATCH_UP, CutoverState.ROLLED_BACK)
    life.turn()
    assert (life.runtime.orders("reverse"), life.said("Stalled")) == (Orders(hold=True), ("True", "ForwardAgain"))
    assert "kubectl delete reversesync back -n default" in life.message("Stalled")
    assert life.status.phase is ReverseSyncPhase.STREAMING


def test_paused_it_holds_and_its_slot_is_still_watched(life: Life) -> None:
    life.spec(paused=True)
    life.turns(2)
    assert life.runtime.orders("reverse") == Orders(hold=True)
    assert (life.said("Ready"), life.said("Paused")[0]) == (("False", "Paused"), "True")
    assert (life.said("SlotHealthy"), life.status.lag) == (("True", "Healthy"), "unknown")
    life.spec(paused=False)
    life.turns(2)
    assert life.said("Ready") == ("True", "Streaming")
    assert life.runtime.started == [TaskRef("reverse")]


def test_paused_from_the_start_it_makes_nothing() -> None:
    life = Life(ALONE.model_copy(update={"paused": True}))
    life.turns(3)
    assert (life.status.phase, life.running) == (ReverseSyncPhase.PENDING, set())
    assert life.message("Reconciling") == "it is paused"


@pytest.mark.parametrize(
    ("retained", "wal_status", "reason"),
    [(1 << 30, "reserved", "SlotOverWarning"), (10 << 30, "extended", "SlotOverLimit"),
     (5, "unreserved", "SlotInDanger"), (5, "lost", "SlotLost")],
)  # fmt: skip
def test_a_slot_that_is_in_danger_is_told_of_once(life: Life, retained: int, wal_status: str, reason: str) -> None:
    life.runtime.world.retained, life.runtime.world.wal_status = retained, wal_status
    life.turns(3)
    assert life.said("SlotHealthy") == ("False", reason)
    assert life.reasons.count(reason) == 1
    life.runtime.world.retained, life.runtime.world.wal_status = 5, "reserved"
    life.turns(2)
    assert (life.said("SlotHealthy"), life.reasons[-1]) == (("True", "Healthy"), "Healthy")


def test_what_nobody_reports_any_more_is_not_known(life: Life) -> None:
    life.runtime.silent = {"reverse"}
    life.turns(5)
    assert (life.said("Ready"), life.said("SlotHealthy")) == (
        ("Unknown", "NoFreshReport"),
        ("Unknown", "NoFreshReport"),
    )
    assert (life.status.lag, life.status.lag_seconds, life.status.slot.retained_bytes) == ("unknown", None, None)
    assert (life.status.position, life.status.slot.name) == ("p1", own_name("default/back/u1"))


def test_a_stopped_table_is_not_passed_over(life: Life) -> None:
    life.runtime.world.stopped_table = "shop.b"
    life.turns(2)
    assert (life.said("Ready"), life.reasons[-1]) == (("False", "TableStopped"), "TableStopped")
    assert life.message("Ready") == "shop.b has stopped: ALTER TABLE"
    assert isinstance(life.status.tables[0], TableStatus)
    assert life.status.tables[0].name == "shop.b"


def test_a_lost_log_stalls_and_a_server_that_is_away_does_not(life: Life) -> None:
    life.runtime.world.failures[TaskKind.REVERSE] = AWAY
    life.turns(2)
    assert (life.said("Ready"), life.said("Reconciling")) == (("False", "Retrying"), ("True", "Retrying"))
    lost = ReportedError(category=ErrorCategory.SOURCE_LOG_LOST, what="the slot is gone")
    life.runtime.world.failures[TaskKind.REVERSE] = Failure(code=ExitCode.SOURCE_LOG_LOST, error=lost)
    life.turns(4)
    assert life.said("Stalled") == ("True", "SourceLogLost")
    assert life.status.phase is ReverseSyncPhase.STREAMING
    life.runtime.world.failures.clear()
    life.turn(400)
    life.turns(2)
    assert (life.said("Ready"), life.reasons[-1]) == (("True", "Streaming"), "Progressing")


def test_a_wiped_status_is_made_anew_and_forgets_no_slot(life: Life) -> None:
    life.spec(paused=True)
    life.runtime.write_status(ReverseSyncStatus())
    life.turn()
    assert (life.status.phase, life.running) == (ReverseSyncPhase.ARMING, {"reverse"})
    life.turns(2)
    assert life.status.phase is ReverseSyncPhase.STREAMING


def test_a_missing_secret_is_named() -> None:
    life = Life()
    life.runtime.missing = ("polardb",)
    life.turns(3)
    assert life.said("Stalled") == ("True", "SecretNotFound")
    assert life.running == set()
