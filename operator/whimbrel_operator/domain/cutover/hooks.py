"""Which hook or switch of a cutover runs next, how far each is, and what is said of it. Jobs are made elsewhere.

A run is one hook in one attempt of the plan. Its outcome is what its Job said last; once that is in the status it
stays, whatever becomes of the Job, so that what has succeeded never runs twice. A run whose Job is gone before its end
was seen is Lost. Before the switch a run that is Failed or Lost gives the cutover up, and the next attempt has runs of
its own. After the switch nothing is taken back: a run starts again once its Job has been taken away.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta

from whimbrel_api.cutover import CutoverMode, CutoverState
from whimbrel_api.hooks import LONGEST_NAME, Hook, HookPoint, HookState, HookStatus, SwitchStep
from whimbrel_api.migration import Phase
from whimbrel_operator.domain.conditions import Said, yes_no
from whimbrel_operator.domain.hook_jobs import HookJob, HookRun, WantedHook
from whimbrel_operator.domain.migration.view import View

CONDITION = "HooksSucceeded"
EVENTS = ("HookStarted", "HookSucceeded", "HookFailed", "HookLost", "SwitchFailed")
BEFORE_SWITCH = (HookPoint.BEFORE_FREEZE, HookPoint.AFTER_DRAIN)
AFTER_FENCE = (HookPoint.SWITCH, HookPoint.AFTER_SWITCH)
_SLUGS = {
    HookPoint.BEFORE_FREEZE: "before-freeze",
    HookPoint.AFTER_DRAIN: "after-drain",
    HookPoint.SWITCH: "switch",
    HookPoint.AFTER_SWITCH: "after-switch",
    HookPoint.PUT_BACK: "put-back",
}
_SWITCHES = (HookPoint.SWITCH, HookPoint.PUT_BACK)
_BAD = (HookState.FAILED, HookState.LOST)
_LONGEST = 2048
_MOST = 50
RETRY_AFTER = timedelta(minutes=5)
_LOST = "its Job was taken away before its end was seen; whether it has done its work is not known"


def runs(view: View, point: HookPoint) -> tuple[HookRun, ...]:
    """What is asked for at that point, in its order; switches are put back in the opposite one."""
    attempt = view.plan.attempt
    return tuple(
        HookRun(point, each, _run_id(view, point, each.name, attempt), attempt) for each in _asked(view, point)
    )


def _asked(view: View, point: HookPoint) -> Sequence[Hook | SwitchStep]:
    policy = view.spec.cutover
    found: dict[HookPoint, Sequence[Hook | SwitchStep]] = {
        HookPoint.BEFORE_FREEZE: policy.hooks.before_freeze,
        HookPoint.AFTER_DRAIN: policy.hooks.after_drain,
        HookPoint.SWITCH: policy.switch,
        HookPoint.AFTER_SWITCH: policy.hooks.after_switch,
        HookPoint.PUT_BACK: policy.switch[::-1],
    }
    return found[point]


def _run_id(view: View, point: HookPoint, name: str, attempt: int) -> str:
    """A source that was written to after its freeze is drained again, to another position: a run of its own."""
    drained = point is HookPoint.AFTER_DRAIN
    position = hashlib.sha256(view.freeze_position.encode()).hexdigest()[:8] if drained else ""
    return "-".join(part for part in (_SLUGS[point], name, str(attempt), position) if part)


def done(view: View, point: HookPoint) -> bool:
    """Whether each run of that point has succeeded; also where nothing is asked for."""
    return all(_succeeded(view, run) for run in runs(view, point))


def begun(view: View) -> bool:
    """Whether something has been done for the application in this attempt."""
    return any(status_of(view, run) is not None for point in BEFORE_SWITCH for run in runs(view, point))


def failed(view: View) -> HookStatus | None:
    """The run that forbids the cutover, if one does."""
    found = (status_of(view, run) for point in BEFORE_SWITCH for run in runs(view, point))
    return next((each for each in found if each is not None and each.state in _BAD), None)


def _succeeded(view: View, run: HookRun) -> bool:
    found = status_of(view, run)
    return found is not None and found.state is HookState.SUCCEEDED


def status_of(view: View, run: HookRun) -> HookStatus | None:
    """How far a run is; None where it has not begun."""
    return _outcome(_told(view, run.run_id), _job(view, run.run_id))


def _outcome(before: HookStatus | None, job: HookJob | None) -> HookStatus | None:
    if before is not None and before.state is HookState.SUCCEEDED:
        return before
    if job is not None:
        return _from_job(job)
    if before is not None and before.state is HookState.RUNNING:
        return before.model_copy(update={"state": HookState.LOST, "message": _LOST})
    return before


def _from_job(job: HookJob) -> HookStatus:
    return HookStatus(
        id=job.run_id,
        point=job.point,
        name=job.name[:LONGEST_NAME],
        state=job.state,
        job=job.job,
        started_at=job.started_at,
        finished_at=job.finished_at,
        message=job.message[:_LONGEST],
    )


def _told(view: View, run_id: str) -> HookStatus | None:
    return next((each for each in view.status.cutover.hooks if each.id == run_id), None)


def _job(view: View, run_id: str) -> HookJob | None:
    return next((each for each in view.observed.hooks if each.run_id == run_id), None)


def statuses(view: View) -> list[HookStatus]:
    """All that is known of this cutover's runs, those of its earlier freezes first."""
    known = [each.id for each in view.status.cutover.hooks]
    now = [run.run_id for point in HookPoint for run in runs(view, point)]
    ids = (*known, *(run_id for run_id in now if run_id not in known))
    found = [each for run_id in ids if (each := _outcome(_told(view, run_id), _job(view, run_id))) is not None]
    # What still counts stays: without its status a run that has succeeded would hang on its Job alone.
    too_old = [each.id for each in found if each.id not in now][: max(0, len(found) - _MOST)]
    return [each for each in found if each.id not in too_old][-_MOST:]


def wanted(view: View, points: Iterable[HookPoint]) -> tuple[WantedHook, ...]:
    """The first run of these points that has not succeeded: one after the other, in order."""
    for run in (run for point in points for run in runs(view, point)):
        found = status_of(view, run)
        if found is None or found.state is not HookState.SUCCEEDED:
            return (WantedHook(run, start=_may_start(view, run, found)),)
    return ()


def unwanted(view: View, asked: Iterable[WantedHook]) -> tuple[str, ...]:
    """The runs whose Jobs shall go: those that run and are not asked for, and, once the source is frozen, the records
    of former attempts. Before that a status that was wiped may not know yet which these are."""
    kept = {each.run.run_id for each in asked}
    jobs = [job for job in view.observed.hooks if job.run_id not in kept and not job.deleting]
    old = _former(view) if view.status.phase is Phase.CUTTING_OVER and view.freeze_position else frozenset[str]()
    return tuple(job.run_id for job in jobs if job.state is HookState.RUNNING or job.run_id in old)


def _former(view: View) -> frozenset[str]:
    known = {each.id for each in view.status.cutover.hooks}
    now = {run.run_id for point in HookPoint for run in runs(view, point)}
    return frozenset(job.run_id for job in view.observed.hooks) - known - now


def holds_back(view: View) -> bool:
    """Whether an automatic cutover waits, because a hook has given the last one up and nobody may have looked yet."""
    if view.spec.cutover.mode is not CutoverMode.AUTOMATIC:
        return False
    bad = [each for each in view.status.cutover.hooks if each.state in _BAD and each.point in BEFORE_SWITCH]
    ends = [at for each in bad if (at := each.finished_at or each.started_at) is not None]
    return any(abs(view.now - at) < RETRY_AFTER for at in ends)


def _may_start(view: View, run: HookRun, found: HookStatus | None) -> bool:
    if view.spec.paused or view.unsupported or _job(view, run.run_id) is not None:
        return False
    if run.point in BEFORE_SWITCH:
        return found is None
    return begun_here(view)


def begun_here(view: View) -> bool:
    """Whether this very resource has cut over: one made again under its name must not switch applications again."""
    return view.status.cutover.started_at is not None


def waits_for(view: View, point: HookPoint) -> str:
    """What the cutover waits for at that point, for a reader."""
    for each in wanted(view, (point,)):
        found = status_of(view, each.run)
        job = f"job {view.observed.resource.metadata.namespace}/{found.job}" if found is not None else "its Job"
        return f"{titled(point, each.run.work.name)} has not ended; see {job}"
    return ""


def titled(point: HookPoint, name: str) -> str:
    """A run as a person calls it."""
    return f"{'switch' if point in _SWITCHES else 'hook'} {name} ({_SLUGS[point].replace('-', ' ')})"


def failure_text(view: View, found: HookStatus) -> str:
    """What is wrong with a run, and where to look."""
    namespace = view.observed.resource.metadata.namespace
    look = f"see: kubectl -n {namespace} logs job/{found.job}; kubectl -n {namespace} describe job {found.job}"
    told = f"{titled(found.point, found.name)} {found.state.value.lower()}: {found.message}"
    return f"{told}; {look}" if found.state is HookState.FAILED else told


def again_text(view: View, found: HookStatus) -> str:
    """How a run after the switch is started again."""
    if found.state is HookState.LOST:
        return "it is run again"
    namespace = view.observed.resource.metadata.namespace
    return f"put right what is wrong, then run it again: kubectl -n {namespace} delete job {found.job}"


def said(view: View, phase: Phase) -> list[Said]:
    """The condition about hooks and switches; none where nothing is asked for."""
    policy = view.spec.cutover
    if not (policy.hooks.any or policy.switch):
        return []
    if (bad := _still_bad(view)) is not None:
        return [yes_no(CONDITION, False, _reason(bad), bad_text(view, bad))]
    if phase is not Phase.COMPLETED:
        return [Said(CONDITION, "Unknown", "InProgress" if phase is Phase.CUTTING_OVER else "NotYet")]
    if all(done(view, point) for point in AFTER_FENCE):
        return [yes_no(CONDITION, True, "Succeeded")]
    if not begun_here(view):
        return [Said(CONDITION, "Unknown", "NotRunHere", _NOT_HERE)]
    return [Said(CONDITION, "Unknown", "InProgress", next((t for p in AFTER_FENCE if (t := waits_for(view, p))), ""))]


def _still_bad(view: View) -> HookStatus | None:
    """The first failure that counts: after the switch one that the spec no longer asks for is settled."""
    asked = {run.run_id for point in HookPoint for run in runs(view, point)}
    bad = (each for each in statuses(view) if each.state in _BAD)
    return next((each for each in bad if each.point in BEFORE_SWITCH or each.id in asked), None)


_NOT_HERE = (
    "the target says that this Migration was switched before this resource was made or its status was wiped; "
    "applications are not switched again: see to spec.cutover.switch and the hooks after it by hand"
)


def _reason(bad: HookStatus) -> str:
    if bad.state is HookState.LOST:
        return "HookLost"
    return "SwitchFailed" if bad.point in _SWITCHES else "HookFailed"


def bad_text(view: View, bad: HookStatus) -> str:
    """A failure with what to do: before the switch the cutover is given up, after it the run can be made again."""
    told = failure_text(view, bad)
    return told if bad.point in BEFORE_SWITCH else f"{told}; {again_text(view, bad)}"


def events(view: View, after: Sequence[HookStatus]) -> Iterable[tuple[bool, str, str]]:
    """What has happened to runs: whether it is a warning, the reason, the message."""
    before = {each.id: each.state for each in view.status.cutover.hooks}
    for each in after:
        if before.get(each.id) is each.state:
            continue
        title = titled(each.point, each.name)
        if each.state in _BAD and each.point in BEFORE_SWITCH:
            continue  # giving the cutover up says so
        if each.state in _BAD:
            yield True, _reason(each), bad_text(view, each)
        elif each.state is HookState.SUCCEEDED:
            yield False, "HookSucceeded", f"{title} has succeeded: job {each.job}"
        else:
            yield False, "HookStarted", f"{title} runs: job {each.job}"


def points_completed(view: View) -> tuple[HookPoint, ...]:
    """What may still be done once the traffic has moved."""
    return AFTER_FENCE if view.cutting_over is CutoverState.SWITCHED else ()
