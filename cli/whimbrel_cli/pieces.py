"""What belongs to a resource, as a tree: Jobs, pods, processes and what their workers report. Nothing is drawn here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from whimbrel_api.migration import CheckResult, Migration, Phase
from whimbrel_api.reports import WorkerReport, WorkerState
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.tasks import ExitCode
from whimbrel_cli.figures import count, one_line, span
from whimbrel_cli.guidance import Resource, condition
from whimbrel_cli.output import stamp
from whimbrel_operator.runtime.instances import Known
from whimbrel_operator.specs.names import HOOK, HOOK_NAME, HOOK_POINT

JSON = Mapping[str, Any]
_JOB: Final = "batch.kubernetes.io/job-name"
_FINE: Final = (ExitCode.DONE, ExitCode.TOLD_TO_STOP)


@dataclass(frozen=True)
class Piece:
    """One object of the tree. `well`: True where it is at a good end or at work, False where a person should look."""

    kind: str
    name: str
    state: str
    well: bool | None = None
    says: str = ""
    since: datetime | None = None
    children: tuple["Piece", ...] = ()

    def document(self) -> dict[str, Any]:
        """The same for a script."""
        told = {"kind": self.kind, "name": self.name, "state": self.state, "well": self.well, "says": self.says}
        return {**told, "since": stamp(self.since), "children": [each.document() for each in self.children]}


def of_resource(resource: Resource, children: Iterable[Piece] = ()) -> Piece:
    """A resource with its state, what holds it up, and what belongs to it."""
    held = [kind for kind in ("Stalled", "Paused") if condition(resource.status, kind)]
    state = " ".join([resource.status.phase.value, *held])
    says = one_line(", ".join(part for part in _figures(resource) if part))
    return Piece(resource.kind, resource.metadata.name, state, _well(resource), says, children=tuple(children))


def _well(resource: Resource) -> bool | None:
    if condition(resource.status, "Stalled"):
        return False
    if isinstance(resource, Migration):
        return {Phase.COMPLETED: True, Phase.CANCELLED: False}.get(resource.status.phase)
    if isinstance(resource, ReverseSync) or resource.status.result is None:
        return None
    return resource.status.result is CheckResult.EQUAL


def _figures(resource: Resource) -> tuple[str, ...]:
    if isinstance(resource, Migration):
        status = resource.status
        return status.progress, f"lag {status.lag}" if status.lag else "", status.cutover.state.value
    if isinstance(resource, ReverseSync):
        return f"lag {resource.status.lag}" if resource.status.lag else "", resource.status.slot.name
    found = resource.status
    return found.progress, found.result.value if found.result else "", f"{count(found.differences.total)} differences"


def of_report(name: str, report: WorkerReport) -> Piece:
    """What a worker says of itself."""
    well = {WorkerState.DONE: True, WorkerState.FAILED: False}.get(report.state)
    return Piece("WorkerReport", name, report.state.value, well, one_line(_word(report)), report.observed_at)


def _word(report: WorkerReport) -> str:
    if report.last_error is not None and report.state is WorkerState.FAILED:
        return report.last_error.sentence()
    if report.check is not None:
        return f"{count(report.check.rows_compared)} rows compared, {report.check.differences.total} differences"
    if report.stream is not None:
        return f"lag {span(report.stream.lag_seconds)}, {count(report.stream.changes_applied)} changes"
    if report.reverse is not None:
        return f"lag {span(report.reverse.lag_seconds)}, {count(report.reverse.changes_applied)} changes back"
    return f"{count(report.rows_done)} of {count(report.rows_total)} rows" if report.rows_total else ""


def of_process(name: str, known: Known | None, report: WorkerReport | None, *, alive: bool = True) -> Piece:
    """A worker of this machine with its report. One that has not been started yet is known by its folder alone.

    `alive`: whether a process whose end nobody has seen is still there.
    """
    told = (of_report(name, report),) if report is not None else ()
    if known is None:
        return Piece("Process", name, "not started", children=told)
    since = datetime.fromisoformat(known.started_at)
    if known.running and not alive:
        said = "nobody saw its end; `whimbrel run` goes on from there"
        return Piece("Process", name, "gone", None, said, since, told)
    if known.running:
        state = "stopping" if known.stopping_since else "running"
        return Piece("Process", name, state, None, f"pid {known.pid}", since, told)
    said = f"failed {known.failures} times in a row" if known.failures else ""
    return Piece("Process", name, f"ended with {known.exit_code}", known.exit_code in _FINE, said, since, told)


def of_jobs(jobs: Sequence[JSON], pods: Sequence[JSON], reports: Sequence[JSON]) -> list[Piece]:
    """The Jobs of a resource, each with its pods and their reports; a report whose Job is gone stands by itself."""
    names = [job["metadata"]["name"] for job in jobs]
    by_job: dict[str, list[Piece]] = {name: [] for name in names}
    alone: list[Piece] = []
    for pod in pods:
        by_job.get(_label(pod, _JOB), alone).append(_of_pod(pod))
    for item in reports:
        name = item["metadata"]["name"]
        by_job.get(name.rpartition("-")[0], alone).append(_of_report_object(item))
    return [*(_of_job(job, by_job[job["metadata"]["name"]]) for job in jobs), *alone]


def _of_report_object(item: JSON) -> Piece:
    name = item["metadata"]["name"]
    if not item.get("status"):
        return Piece("WorkerReport", name, "not written yet", since=_made(item))
    try:
        return of_report(name, WorkerReport.model_validate(item["status"]))
    except ValidationError:
        # The tree is for looking at what is there, also while two versions are at work.
        return Piece("WorkerReport", name, "unreadable", False, "another version of whimbrel wrote it", _made(item))


def _of_job(job: JSON, children: Sequence[Piece]) -> Piece:
    status = job.get("status") or {}
    ends = [each["type"] for each in status.get("conditions") or [] if each.get("status") == "True"]
    state, well = _job_state(ends, int(status.get("active") or 0))
    said = [each.get("message", "") for each in status.get("conditions") or [] if each.get("type") == "Failed"]
    hook = f"hook {_note(job, HOOK_NAME)} ({_note(job, HOOK_POINT)})" if _label(job, HOOK) else ""
    says = one_line(", ".join(part for part in (hook, *said) if part))
    return Piece("Job", job["metadata"]["name"], state, well, says, _made(job), tuple(children))


def _job_state(ends: Sequence[str], active: int) -> tuple[str, bool | None]:
    if "Complete" in ends:
        return "Complete", True
    if "Failed" in ends:
        return "Failed", False
    return ("Suspended" if "Suspended" in ends else f"{active} active"), None


def _of_pod(pod: JSON) -> Piece:
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
    waits = [each["waiting"].get("reason", "") for each in states if each.get("waiting")]
    ended = [each["terminated"] for each in states if each.get("terminated")]
    phase = str(status.get("phase") or "Pending")
    dying = pod["metadata"].get("deletionTimestamp")
    state = "Terminating" if dying else next((each for each in waits if each), phase)
    says = [f"exit code {each.get('exitCode')}" for each in ended if each.get("exitCode")]
    says += [str(status.get("reason") or "")] if phase == "Failed" else []
    node = (pod.get("spec") or {}).get("nodeName") or "no node yet"
    well = {"Succeeded": True, "Failed": False}.get(phase)
    bad = well is False or any(each.endswith(("BackOff", "Error")) for each in waits)
    told = one_line(", ".join(part for part in (*says, node) if part))
    return Piece("Pod", pod["metadata"]["name"], state, False if bad else well, told, _made(pod))


def _label(item: JSON, name: str) -> str:
    return str((item["metadata"].get("labels") or {}).get(name, ""))


def _note(item: JSON, name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name, "")) or _label(item, name)


def _made(item: JSON) -> datetime | None:
    text = item["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(text) if text else None
