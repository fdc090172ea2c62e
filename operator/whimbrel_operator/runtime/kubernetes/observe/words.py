"""What is wrong with a pod or a Job, in words for a person: what, where, why, what to do. Nothing is decided here."""

import re
from datetime import datetime, timedelta
from typing import Final

from whimbrel_api.logs import read_line
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.tasks import ExitCode
from whimbrel_operator.runtime.kubernetes.observe.objects import Job, Pod

_LONGEST_TAIL: Final = 600
_PATIENCE: Final = timedelta(seconds=60)
_SCHEDULING: Final = timedelta(seconds=10)
_ENDING: Final = timedelta(seconds=20)
_KILLED: Final = 137
_CATEGORIES: Final = {
    int(ExitCode.CONFIGURATION): ErrorCategory.CONFIGURATION,
    int(ExitCode.SOURCE_LOG_LOST): ErrorCategory.SOURCE_LOG_LOST,
    int(ExitCode.FENCED_OUT): ErrorCategory.FENCED_OUT,
}
_CATEGORY: Final = re.compile(rf"^(?:{'|'.join(ErrorCategory)}): ")
_LINE_HEAD: Final = re.compile(
    rf"^\d{{4}}-\d\d-\d\d [\d:,.]+ ([A-Z]+) .*?whimbrel_worker[\w.]*: (?:(?:{'|'.join(ErrorCategory)}): )?"
)
"""What the worker's log puts before a failure's sentence: time, level, thread, module, category."""


def failure_of(namespace: str, pod: Pod) -> ReportedError:
    """The failure of a worker whose report did not arrive: its pod alone tells what happened."""
    ended = pod.ended
    code, reason, message = (ended.code, ended.reason, ended.message) if ended is not None else (1, "", "")
    last = _last_line(message)
    return ReportedError(
        category=_CATEGORIES.get(code, ErrorCategory.UNEXPECTED),
        what=f"the worker ended with exit code {code} without a report" + _known(code, reason),
        where=f"pod {namespace}/{pod.name}",
        why=f"the last line of its log: {last}" if last else "",
        todo=f"it is tried again; to look: kubectl -n {namespace} logs {pod.name}",
    )


def _known(code: int, reason: str) -> str:
    if reason == "OOMKilled":
        return ": it had used up its memory, more of it by workers.resources in the chart's values"
    if code == _KILLED:
        return ": it was killed"
    return f" ({reason})" if reason not in ("", "Error") else ""


def _last_line(message: str) -> str:
    """The last line of a termination message, which is the end of the log: there stands what happened last."""
    line = message.strip().rpartition("\n")[2].strip()
    level, text = _read(line)
    if level in ("DEBUG", "INFO"):
        return ""  # what it was about to do, not why it ended
    return text if len(text) <= _LONGEST_TAIL else text[: _LONGEST_TAIL - 1] + "…"


def _read(line: str) -> tuple[str, str]:
    """Level and sentence of a line, in either form of the log; the whole line and no level where it is none of ours."""
    found = read_line(line)
    if found is not None:
        return found[0], _CATEGORY.sub("", found[1])
    head = _LINE_HEAD.match(line)
    return (head[1], line[head.end() :]) if head is not None else ("", line)


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
        return _does_not_end(namespace, pod) if now - pod.deleting > _ENDING else ""
    if pod.ended is not None or pod.started:
        return ""
    if pod.waits_for and now - pod.created > _SCHEDULING:
        return f"pod {pod.name} does not start: {pod.waits_for[:1024]}; see: {look}"
    slow = now - pod.created > _PATIENCE
    return f"pod {pod.name} does not start since {pod.created:%H:%M:%S} UTC; see why: {look}" if slow else ""


def why_it_is_silent(namespace: str, pod: Pod | None, heard: datetime | None, now: datetime) -> str:
    """Why nothing is known of a worker that ought to run; empty where it spoke not long ago or has no pod."""
    if pod is None or not pod.started or pod.ended is not None or pod.deleting is not None:
        return ""
    since = max(pod.created, heard) if heard is not None else pod.created
    if now - since <= _PATIENCE:
        return ""
    return (
        f"pod {pod.name} has reported nothing since {since:%H:%M:%S} UTC, it may have lost its node or its way to the "
        f"API server; see: kubectl get node {pod.node or '-'}; kubectl -n {namespace} logs {pod.name}"
    )


def _does_not_end(namespace: str, pod: Pod) -> str:
    """A Job makes no successor before the pod has ended by its node's word, or the cluster has given its node up.

    A forced deletion does not help: the pod is kept by the finalizer of its Job until one of the two has happened.
    """
    described = f"kubectl -n {namespace} describe pod {pod.name}"
    if not pod.node:
        return f"pod {pod.name} does not end; see: {described}"
    return (
        f"pod {pod.name} does not end, its node may be lost, and no other takes its place before it has; see: "
        f"{described}; kubectl get node {pod.node}. If the node does not come back: kubectl delete node {pod.node} "
        "(work goes on a minute later; deleting the pod by force does not help; should the worker still run there, it "
        "cannot write to the target once its successor does)"
    )
