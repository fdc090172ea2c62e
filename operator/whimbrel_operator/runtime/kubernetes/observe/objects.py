"""Jobs, pods and WorkerReports as the runtime reads them, from the API server's JSON. What follows is told in look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from whimbrel_api.base import GROUP
from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import TaskKind
from whimbrel_api.worker_reports import Failures, WorkerReportSpec
from whimbrel_operator.errors import StateUnreadable
from whimbrel_operator.specs import names

JSON = Mapping[str, Any]
STARTED: Final = f"{GROUP}/started-at"
COUNTED: Final = f"{GROUP}/counted-job"
_COMPONENT: Final = "app.kubernetes.io/component"
_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_INTERRUPTED: Final = "DisruptionTarget"


@dataclass(frozen=True)
class Condition:
    """A condition that is true."""

    reason: str
    message: str
    since: datetime


@dataclass(frozen=True)
class Job:
    """One Job. `started_at` is the operator's own time; `completed` holds the indexes that ended with 0."""

    name: str
    uid: str
    task_id: str
    kind: TaskKind
    fingerprint: str
    generation: int
    count: int
    started_at: datetime
    completed: frozenset[int] = frozenset()
    complete: Condition | None = None
    failed: Condition | None = None
    deleting: bool = False

    @property
    def over(self) -> bool:
        """Whether it runs no pods any more, nor will."""
        return self.complete is not None or self.failed is not None


@dataclass(frozen=True)
class Ended:
    """How a worker's process ended; `began` None where nobody saw its start."""

    code: int
    at: datetime
    began: datetime | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Pod:
    """One pod of a Job. `disrupted`: driven out by the cluster, which is no failure of its worker's."""

    name: str
    task_id: str
    kind: TaskKind
    index: int
    job_uid: str
    created: datetime
    ended: Ended | None = None
    disrupted: bool = False
    deleting: datetime | None = None
    started: bool = False
    waits_for: str = ""
    node: str = ""


@dataclass(frozen=True)
class Report:
    """One WorkerReport. `counted`: the failed Job whose failures `failures` holds already."""

    name: str
    task_id: str
    kind: TaskKind
    index: int
    created: datetime
    spec: WorkerReportSpec = field(default_factory=WorkerReportSpec)
    word: WorkerReport | None = None
    problem: str = ""
    counted: str = ""
    generation: int = 0

    @property
    def failures(self) -> Failures:
        """Those of former Jobs."""
        return self.spec.failures

    @property
    def spoken(self) -> bool:
        """Whether a worker has written its status, readable or not."""
        return self.word is not None or bool(self.problem)


def job_of(body: JSON) -> Job:
    """A Job of Whimbrel's. Raises StateUnreadable where its labels are damaged."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status") or {}
    annotated = meta.get("annotations") or {}
    true = {each["type"]: _condition(each, meta) for each in status.get("conditions") or [] if each["status"] == "True"}
    return Job(
        name=meta["name"],
        uid=meta["uid"],
        task_id=_label(body, names.TASK),
        kind=_task_kind(body, "job"),
        fingerprint=annotated.get(names.FINGERPRINT, ""),
        generation=_number(annotated.get(names.GENERATION)),
        count=spec.get("completions") or 1,
        started_at=moment(annotated.get(STARTED) or meta["creationTimestamp"]),
        completed=indexes(status.get("completedIndexes") or ""),
        complete=true.get("Complete"),
        failed=true.get("Failed"),
        deleting="deletionTimestamp" in meta,
    )


def pod_of(body: JSON) -> Pod:
    """A pod of one of Whimbrel's Jobs."""
    meta, status = body["metadata"], body.get("status") or {}
    labels, conditions = meta.get("labels") or {}, status.get("conditions") or []
    containers = status.get("containerStatuses") or []
    state = containers[0].get("state") or {} if containers else {}
    return Pod(
        name=meta["name"],
        task_id=_label(body, names.TASK),
        kind=_task_kind(body, "pod"),
        index=_number(labels.get(_INDEX) or (meta.get("annotations") or {}).get(_INDEX)),
        job_uid=labels.get("batch.kubernetes.io/controller-uid", ""),
        created=moment(meta["creationTimestamp"]),
        ended=_ended(meta, status, state.get("terminated")),
        disrupted=any(each["type"] == _INTERRUPTED and each["status"] == "True" for each in conditions),
        deleting=moment(meta["deletionTimestamp"]) if "deletionTimestamp" in meta else None,
        started="running" in state or "terminated" in state,
        waits_for=_waits_for(conditions, state.get("waiting") or {}),
        node=(body.get("spec") or {}).get("nodeName") or "",
    )


def report_of(body: JSON) -> Report:
    """A WorkerReport; what cannot be read of it becomes its `problem`."""
    meta = body["metadata"]
    annotated = meta.get("annotations") or {}
    spec, wrong = _spec(body.get("spec") or {})
    word, faulty = _word(body.get("status"))
    return Report(
        name=meta["name"],
        task_id=_label(body, names.TASK),
        kind=_task_kind(body, "workerreport"),
        index=_number(meta["name"].rpartition("-")[2]),
        created=moment(meta["creationTimestamp"]),
        spec=spec,
        word=word,
        problem=faulty or wrong,
        counted=annotated.get(COUNTED, ""),
        generation=_number(annotated.get(names.GENERATION)),
    )


def moment(text: str) -> datetime:
    """A time of the API server's."""
    return datetime.fromisoformat(text)


def indexes(text: str) -> frozenset[int]:
    """The indexes of `completedIndexes`, such as `0-2,5`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _condition(body: JSON, meta: JSON) -> Condition:
    since = body.get("lastTransitionTime") or meta["creationTimestamp"]
    return Condition(body.get("reason", ""), body.get("message", ""), moment(since))


def _ended(meta: JSON, status: JSON, terminated: JSON | None) -> Ended | None:
    """How the worker ended; a pod that failed without a container's word, such as on a lost node, ended with 1."""
    if terminated is not None:
        at = moment(terminated.get("finishedAt") or meta["creationTimestamp"])
        began = moment(terminated["startedAt"]) if terminated.get("startedAt") else None
        code = int(terminated.get("exitCode", 1))
        return Ended(code, at, began, terminated.get("reason", ""), terminated.get("message", ""))
    if status.get("phase") == "Failed":
        at = moment(meta.get("deletionTimestamp") or meta["creationTimestamp"])
        return Ended(1, at, None, status.get("reason", ""), status.get("message", ""))
    return None


def _waits_for(conditions: list[JSON], waiting: JSON) -> str:
    """Why a pod does not start, in the cluster's own words; empty where it is only being made ready."""
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return _said(waiting)
    unscheduled = [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    return _said(unscheduled[0]) if unscheduled else ""


def _said(body: JSON) -> str:
    return ": ".join(part for part in (body.get("reason", ""), body.get("message", "")) if part)


def _label(body: JSON, name: str) -> str:
    return str((body["metadata"].get("labels") or {}).get(name, ""))


def _task_kind(body: JSON, kind: str) -> TaskKind:
    told, meta = _label(body, _COMPONENT), body["metadata"]
    try:
        return TaskKind(told)
    except ValueError:
        raise StateUnreadable(
            f"a {kind} does not say which task it does",
            where=f"{meta['namespace']}/{meta['name']}",
            why=f"its label {_COMPONENT} is {told!r}",
            todo=f"delete it, it is made again: kubectl -n {meta['namespace']} delete {kind} {meta['name']}",
        ) from None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _spec(body: JSON) -> tuple[WorkerReportSpec, str]:
    try:
        return WorkerReportSpec.model_validate(body), ""
    except ValidationError as error:
        return WorkerReportSpec(), f"its orders cannot be read: {str(error)[:500]}"


def _word(body: JSON | None) -> tuple[WorkerReport | None, str]:
    if not body:
        return None, ""
    try:
        return WorkerReport.model_validate(body), ""
    except ValidationError as error:
        return None, f"its report cannot be read: {str(error)[:500]}"
