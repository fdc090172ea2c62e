"""What is wrong with a pod or a Job, in words for a person: what, where, why, what to do. Nothing is decided here."""

from datetime import datetime, timedelta
from typing import Final

from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_operator.runtime.kubernetes.observe.objects import Job, Pod

_LONGEST_TAIL: Final = 600
_PATIENCE: Final = timedelta(seconds=60)
_SCHEDULING: Final = timedelta(seconds=10)
_KILLED: Final = 137


def failure_of(namespace: str, pod: Pod) -> ReportedError:
    """The failure of a worker that left no last word of its own."""
    ended = pod.ended
    code, reason, message = (ended.code, ended.reason, ended.message) if ended is not None else (1, "", "")
    return ReportedError(
        category=ErrorCategory.UNEXPECTED,
        what=f"the worker ended with exit code {code} and reported no reason" + _known(code, reason),
        where=f"pod {namespace}/{pod.name}",
        why=_tail(message),
        todo=f"nothing, it is tried again; to look: kubectl -n {namespace} logs {pod.name}",
    )


def _known(code: int, reason: str) -> str:
    if reason == "OOMKilled":
        return ": it had used up its memory, give the workers more in the operator's settings"
    if code == _KILLED:
        return ": it was killed"
    return f" ({reason})" if reason not in ("", "Error") else ""


def _tail(message: str) -> str:
    """The end of a termination message: there stands what happened last."""
    text = message.strip()
    return text if len(text) <= _LONGEST_TAIL else "…" + text[-_LONGEST_TAIL:]


def job_failure(namespace: str, job: Job) -> ReportedError:
    """Why a Job failed, where no pod and no report of it is left to say more."""
    why = ": ".join(part for part in (job.failed.reason, job.failed.message) if part) if job.failed else ""
    return ReportedError(
        category=ErrorCategory.UNEXPECTED,
        what="the Job failed, and its pods are gone",
        where=f"job {namespace}/{job.name}",
        why=why[:4096],
        todo=f"nothing, it is tried again; to look: kubectl -n {namespace} describe job {job.name}",
    )


def no_word(namespace: str, job: str, index: int) -> ReportedError:
    """A finished worker whose report somebody has taken away."""
    return ReportedError(
        category=ErrorCategory.UNEXPECTED,
        what="the worker finished, but its report is gone",
        where=f"workerreport {namespace}/{job}-{index}",
        why="it was deleted or overwritten after the worker had written it",
        todo="nothing, the task is done once more",
    )


def why_it_waits(namespace: str, job: str, pod: Pod | None, since: datetime, now: datetime) -> str:
    """Why an instance does not run, or does not end; empty where it runs, or may yet start by itself."""
    if pod is None:
        look = f"kubectl -n {namespace} describe job {job}"
        return f"no pod was made since {since:%H:%M:%S} UTC; see why: {look}" if now - since > _PATIENCE else ""
    look = f"kubectl -n {namespace} describe pod {pod.name}"
    if pod.deleting is not None and pod.ended is None:
        late = now - pod.deleting > _PATIENCE
        return f"pod {pod.name} does not end, its node may be lost; see: {look}" if late else ""
    if pod.ended is not None or pod.started:
        return ""
    if pod.waits_for and now - pod.created > _SCHEDULING:
        return f"pod {pod.name} does not start: {pod.waits_for[:1024]}; see: {look}"
    slow = now - pod.created > _PATIENCE
    return f"pod {pod.name} does not start since {pod.created:%H:%M:%S} UTC; see why: {look}" if slow else ""
