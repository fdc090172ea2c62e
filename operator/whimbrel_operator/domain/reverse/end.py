"""How a ReverseSync is let go: what it made on the server is taken away first, by whichever worker can. Pure.

The end is proven by a worker that has finished, and kept in the status until the resource is gone: a restart of
anything goes on from there, and taking away twice does no harm.
"""

from dataclasses import dataclass
from datetime import timedelta

from whimbrel_api.reverse_sync import ReverseSyncPhase, ReverseSyncStatus
from whimbrel_api.tasks import Orders, ReverseOptions, TaskKind
from whimbrel_operator.domain.conditions import Said, find, yes_no
from whimbrel_operator.domain.decision import Event, ReverseSyncDecision, WantedTask
from whimbrel_operator.domain.failures import Trouble, may_start, trouble
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.domain.reverse.status import events_of, progress, slot_healthy, told
from whimbrel_operator.domain.reverse.view import DISARM, REVERSE, ReverseView
from whimbrel_operator.domain.unread import WRITTEN_AFTER_ROLLBACK, words

HAND_OVER = timedelta(seconds=60)
"""How long the running worker has for finishing and taking away, before another one does it."""

HEARD = timedelta(seconds=120)
"""How long the Migration has for saying what was missed."""

DISARMED, LEFT, NOTHING_MADE = "Disarmed", "LeftInPlace", "NothingMade"
_ENDS = (DISARMED, LEFT, NOTHING_MADE)


@dataclass(frozen=True)
class End:
    """How it may be let go: the reason, and what a person should know of what is still there."""

    reason: str
    message: str = ""


def decide_end(view: ReverseView) -> ReverseSyncDecision:
    """What shall be so for a ReverseSync that is being deleted."""
    end = end_of(view)
    if end is not None and _to_be_heard(view):
        status = told(view, _phase(view), _ending(view, ()))
        return ReverseSyncDecision(status, _kept(view), events_of(view, status), view.observed.memory)
    if end is not None:
        status = told(view, ReverseSyncPhase.STOPPED, _ended(end))
        return ReverseSyncDecision(status, (), _farewell(view, end), view.observed.memory, released=True)
    troubles = _troubles(view)
    status = told(view, _phase(view), _ending(view, troubles))
    return ReverseSyncDecision(status, _wanted(view), events_of(view, status), view.observed.memory)


def _phase(view: ReverseView) -> ReverseSyncPhase:
    """The phase while it ends. A worker that was seen may have made something, though the status was lost since."""
    phase, seen = view.status.phase, view.worker is not None or view.disarmer is not None
    return ReverseSyncPhase.ARMING if seen and phase is ReverseSyncPhase.PENDING else phase


def end_of(view: ReverseView) -> End | None:
    """Why it may be let go; None while something has to be taken away."""
    said = is_released(view.status)
    if said is not None:
        return said
    if view.worker is None and view.disarmer is None and view.status.phase is ReverseSyncPhase.PENDING:
        return End(NOTHING_MADE)
    if not (view.spec.cleanup.drop_slot or view.spec.cleanup.drop_publication):
        return End(LEFT, f"spec.cleanup drops nothing, so these stay: {by_hand(view)}")
    if view.disarmer is not None and view.disarmer.done:
        return End(DISARMED, _and_unread(view, _left_behind(view)))
    over = view.worker is not None and view.worker.done and view.disarmer is None
    return (
        End(DISARMED, _and_unread(view))
        if over and view.last_seen is not None and not view.last_seen.left_behind
        else None
    )


def is_released(status: ReverseSyncStatus) -> End | None:
    """The end as a former pass has written it down; None where there was none."""
    ready = find(status.conditions, "Ready")
    if status.phase is not ReverseSyncPhase.STOPPED or ready is None or ready.reason not in _ENDS:
        return None
    return End(ready.reason, ready.message)


def by_hand(view: ReverseView) -> str:
    """The SQL that takes away what it made, for a person on the server's database."""
    cleanup, spec = view.spec.cleanup, view.spec
    slot = f"SELECT pg_drop_replication_slot('{view.slot_name}');"
    quoted = view.publication_name.replace('"', '""')
    publication = f'DROP PUBLICATION IF EXISTS "{quoted}";'
    both = not (cleanup.drop_slot or cleanup.drop_publication)
    lines = [slot] if cleanup.drop_slot or both else []
    lines += [publication] if (cleanup.drop_publication or both) and spec.create_publication else []
    return " ".join(lines)


def _left_behind(view: ReverseView) -> str:
    word = view.disarmer.word if view.disarmer is not None else None
    left = word.reverse.left_behind if word is not None and word.reverse is not None else []
    return f"not made here, or not to be dropped, and so still there: {', '.join(left)}" if left else ""


def _missed(view: ReverseView) -> str:
    """What was written to the server after a rollback and is lost with the slot, in words; or empty."""
    return words(view.unread) if view.unread is not None and view.after_rollback else ""


def _and_unread(view: ReverseView, message: str = "") -> str:
    return "; ".join(part for part in (_missed(view), message) if part)


def _to_be_heard(view: ReverseView) -> bool:
    """Whether the Migration, which outlives this, has not said yet what was missed. It has its time for that."""
    migration, asked = view.observed.migration, view.meta.deletion_timestamp
    if not _missed(view) or migration is None or migration.metadata.deletion_timestamp is not None:
        return False
    if is_released(view.status) is not None or migration.status.cutover.left_unread:
        return False
    return asked is None or view.now - asked < HEARD


def _kept(view: ReverseView) -> tuple[WantedTask, ...]:
    """The task that has ended, whose word proves it."""
    if view.work is None:
        return ()
    if view.disarmer is not None:
        return (_task(view, TaskKind.DISARM, DISARM, Orders(), start=False),)
    return (_task(view, TaskKind.REVERSE, REVERSE, _ending_orders(view), start=False),)


def _wanted(view: ReverseView) -> tuple[WantedTask, ...]:
    """The running worker, told to finish and take away; a task for that alone where none runs or it takes too long."""
    if view.work is None:
        return ()
    asked = view.meta.deletion_timestamp or view.now
    running = view.worker is not None and view.worker.running
    told_it = running and not view.worker.stopping if view.worker is not None else False
    if told_it and view.disarmer is None and view.now - asked < HAND_OVER:
        return (_task(view, TaskKind.REVERSE, REVERSE, _ending_orders(view), start=False),)
    # Not beside the worker: that one holds the slot until it has ended.
    ready = may_start(view.disarmer, view.now, view.meta.generation, again=False)
    start = ready and not running and not view.observed.missing_secrets
    return (_task(view, TaskKind.DISARM, DISARM, Orders(), start=start),)


def _ending_orders(view: ReverseView) -> Orders:
    """What it has read is finished, but where the forward stream may write again, or a rollback holds it."""
    return Orders(retire=True, disarm=True, hold=bool(view.waits_for) or view.rollback.hold)


def _task(view: ReverseView, kind: TaskKind, task_id: str, orders: Orders, *, start: bool) -> WantedTask:
    if view.work is None:
        raise ValueError("a task of a ReverseSync whose ends are not known")
    return WantedTask(
        kind=kind,
        ref=TaskRef(task_id),
        work=view.work,
        generation=view.meta.generation,
        start=start,
        reverse=_options(view, kind),
        orders=orders,
    )


def _options(view: ReverseView, kind: TaskKind) -> ReverseOptions:
    if kind is not TaskKind.DISARM or not (view.after_rollback or view.rollback.hold):
        return view.options
    return view.options.model_copy(update={"last_look": True})


def _troubles(view: ReverseView) -> tuple[Trouble, ...]:
    found = [each for state in (view.disarmer,) if state is not None and (each := trouble(state)) is not None]
    if view.work is None:
        found.append(Trouble("NoWayBack", f"which server it was is not known any more; {view.lacks}", stalls=True))
    if view.observed.missing_secrets:
        names = ", ".join(view.observed.missing_secrets)
        message = f"Secret {names} not found in namespace {view.meta.namespace}; make it, work goes on by itself"
        found.append(Trouble("SecretNotFound", message, stalls=True))
    return tuple(sorted(found, key=lambda each: (not each.stalls, each.message)))


def _ending(view: ReverseView, troubles: tuple[Trouble, ...]) -> list[Said]:
    doing = "the worker finishes, then slot and publication are taken away"
    said = (
        Said("Ready", "False", "NotDisarmed", _stays(view, troubles))
        if troubles
        else Said("Ready", "False", "Disarming", doing)
    )
    return [said, *progress(troubles, "Disarming", doing), slot_healthy(view, view.status.phase)]


def _stays(view: ReverseView, troubles: tuple[Trouble, ...]) -> str:
    """What is still on the server, why, and the two ways out."""
    meta = view.meta
    let_go = (
        f"kubectl patch reversesync {meta.name} -n {meta.namespace} --type merge "
        '-p \'{"spec":{"cleanup":{"dropSlot":false,"dropPublication":false}}}\''
    )
    return (
        f"still on the server, and tried again: {by_hand(view)} {troubles[0].message}; to let this resource go and "
        f"leave them there, where the slot holds back the log until someone drops it: {let_go}"
    )


def _ended(end: End) -> list[Said]:
    return [
        Said("Ready", "False", end.reason, end.message),
        yes_no("Reconciling", False, end.reason),
        yes_no("Stalled", False, end.reason),
        Said("SlotHealthy", "Unknown", end.reason),
    ]


def _farewell(view: ReverseView, end: End) -> tuple[Event, ...]:
    """Said once: with the pass that finds the end."""
    if is_released(view.status) is not None:
        return ()
    words = {DISARMED: "slot and publication are taken away", NOTHING_MADE: "nothing was made on the server"}
    text = "; ".join(part for part in (words.get(end.reason, ""), end.message) if part)
    found = [Event("Warning" if end.message else "Normal", end.reason, text[:1024])]
    if missed := _missed(view):
        found.insert(0, Event("Warning", WRITTEN_AFTER_ROLLBACK, missed[:1024]))
    return tuple(found)
