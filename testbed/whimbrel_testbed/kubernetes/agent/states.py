"""Pure: what is known of each container of a pod, and the pod status that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from whimbrel_testbed.kubernetes.agent.fields import HOST_IP
from whimbrel_testbed.kubernetes.agent.shapes import Json

TERMINAL = ("Succeeded", "Failed")
LOST_EXIT_CODE = 137
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 10.0


@dataclass(frozen=True)
class Waiting:
    """A container that does not run yet, or not again yet."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True)
class Running:
    """A container whose process runs; times as Kubernetes writes them."""

    started_at: str
    container_id: str


@dataclass(frozen=True)
class Terminated:
    """A container whose process ended; `exit_code` is 128 + signal where a signal ended it."""

    exit_code: int
    reason: str
    message: str = ""
    signal: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = ""


@dataclass
class Record:
    """One container of a pod: its present state, the one before its last restart, and what its probes say."""

    name: str
    image: str
    state: Waiting | Running | Terminated
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False


@dataclass(frozen=True)
class PodView:
    """All that a pod's status is made of; `ending` is true once the pod is to be deleted."""

    pod: Json
    inits: Sequence[Record]
    mains: Sequence[Record]
    ip: str
    start_time: str
    ending: bool = False


def restarts(policy: str, exit_code: int) -> bool:
    """Whether a container that ended so is to be started again, by the pod's restart policy."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def backoff(failures: int) -> float:
    """Return the seconds to wait before a container is started again; `failures` counts from one."""
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS))


def end_of(returncode: int) -> tuple[int, int, str]:
    """Return exit code, signal and reason of a process by the number that `subprocess` gives."""
    if returncode < 0:
        return 128 - returncode, -returncode, "Error"
    return returncode, 0, "Completed" if returncode == 0 else "Error"


def initialized(view: PodView) -> bool:
    """Whether each init container ended well."""
    return all(isinstance(record.state, Terminated) and record.state.exit_code == 0 for record in view.inits)


def phase(view: PodView) -> str:
    """Return the pod's phase, by the kubelet's rules."""
    policy = "Never" if view.ending else view.pod["spec"].get("restartPolicy", "Always")
    if not initialized(view):
        failed = any(_failed_for_good(record, policy) for record in view.inits)
        return "Failed" if failed or (view.ending and not _runs(view.inits)) else "Pending"
    states = [record.state for record in view.mains]
    ended = [state for state in states if isinstance(state, Terminated)]
    if len(ended) == len(states):
        if any(restarts(policy, state.exit_code) for state in ended):
            return "Running"
        return "Failed" if any(state.exit_code for state in ended) else "Succeeded"
    if view.ending and not _runs(view.mains):
        return "Failed"
    never_ran = any(isinstance(record.state, Waiting) and record.last is None for record in view.mains)
    return "Pending" if never_ran else "Running"


def _failed_for_good(record: Record, policy: str) -> bool:
    return policy == "Never" and isinstance(record.state, Terminated) and record.state.exit_code != 0


def _runs(records: Iterable[Record]) -> bool:
    return any(isinstance(record.state, Running) for record in records)


def pod_status(view: PodView, previous: Sequence[Json], at: str) -> Json:
    """Return the status to be written; `previous` are the conditions written last, `at` is the present time."""
    generation = view.pod["metadata"].get("generation")
    status = {
        "phase": phase(view), "hostIP": HOST_IP, "hostIPs": [{"ip": HOST_IP}], "podIP": view.ip,
        "podIPs": [{"ip": view.ip}], "startTime": view.start_time, "conditions": _conditions(view, previous, at),
        "containerStatuses": [container_status(record) for record in view.mains],
    }  # fmt: skip
    if view.inits:
        status["initContainerStatuses"] = [container_status(record) for record in view.inits]
    if generation is not None:
        status["observedGeneration"] = generation
    return status


def container_status(record: Record) -> Json:
    """Return a container's status as the API has it."""
    shown: Json = {
        "name": record.name, "image": record.image, "imageID": "", "restartCount": record.restarts,
        "ready": record.ready, "started": record.started, "state": _state(record.state),
        "lastState": {} if record.last is None else _state(record.last),
    }  # fmt: skip
    if not isinstance(record.state, Waiting):
        shown["containerID"] = record.state.container_id
    elif record.last is not None:
        shown["containerID"] = record.last.container_id
    return shown


def _state(state: Waiting | Running | Terminated) -> Json:
    if isinstance(state, Waiting):
        return {"waiting": _without_empty({"reason": state.reason, "message": state.message})}
    if isinstance(state, Running):
        return {"running": {"startedAt": state.started_at}}
    optional = {
        "reason": state.reason, "message": state.message, "signal": state.signal, "startedAt": state.started_at,
        "finishedAt": state.finished_at, "containerID": state.container_id,
    }  # fmt: skip
    return {"terminated": {"exitCode": state.exit_code, **_without_empty(optional)}}


def _without_empty(entries: Json) -> Json:
    return {key: value for key, value in entries.items() if value}


def _conditions(view: PodView, previous: Sequence[Json], at: str) -> list[Json]:
    before = {condition["type"]: condition for condition in previous}
    generation = view.pod["metadata"].get("generation")
    observed = {} if generation is None else {"observedGeneration": generation}
    wanted = _wanted_conditions(view)
    return [_condition(kind, (reason, text), before.get(kind), at) | observed for kind, reason, text in wanted]


def _condition(kind: str, why: tuple[str, str], before: Json | None, at: str) -> Json:
    reason, message = why
    done = reason in {"", "PodCompleted"} and kind in {"Initialized", "PodScheduled"}
    status = "True" if done or not reason else "False"
    since = before["lastTransitionTime"] if before is not None and before["status"] == status else at
    # Null takes away what the former state left: the patch is merged by type.
    told = {"reason": reason or None, "message": message or None}
    return {"type": kind, "status": status, "lastTransitionTime": since, **told}


def _wanted_conditions(view: PodView) -> list[tuple[str, str, str]]:
    """Name each condition with the reason why it is false (empty: true) and a message."""
    reason, message = _unready(view)
    gates = "ReadinessGatesNotReady" if not reason and not _gates_open(view.pod) else ""
    sandbox = "PodCompleted" if phase(view) in TERMINAL else ""
    return [
        ("PodReadyToStartContainers", sandbox, ""),
        ("Initialized", *_uninitialized(view)),
        ("Ready", reason or gates, message),
        ("ContainersReady", reason, message),
        ("PodScheduled", "", ""),
    ]


def _uninitialized(view: PodView) -> tuple[str, str]:
    if initialized(view):
        return ("PodCompleted" if phase(view) == "Succeeded" else "", "")
    return "ContainersNotInitialized", _named("containers with incomplete status", view.inits)


def _unready(view: PodView) -> tuple[str, str]:
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase(view))
    if ended is not None:
        return ended, ""
    unready = [record for record in view.mains if not record.ready]
    return ("ContainersNotReady", _named("containers with unready status", unready)) if unready else ("", "")


def _named(what: str, records: Iterable[Record]) -> str:
    return f"{what}: [{' '.join(record.name for record in records)}]"


def _gates_open(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    true = {condition["type"] for condition in conditions if condition["status"] == "True"}
    return all(gate["conditionType"] in true for gate in pod["spec"].get("readinessGates") or [])


StatusField = Literal["containerStatuses", "initContainerStatuses"]


def restored(pod: Json, containers: Sequence[Json], field: StatusField, at: str) -> list[Record]:
    """Return what a pod's status says of its containers; one that ran is lost, as its process went with the agent."""
    known = {status["name"]: status for status in (pod.get("status") or {}).get(field) or []}
    return [_restored(container, known.get(container["name"]), at) for container in containers]


def _restored(container: Json, status: Json | None, at: str) -> Record:
    name, image = container["name"], container.get("image", "")
    if status is None:
        return Record(name, image, Waiting())
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    record = Record(name, image, Waiting(), last and _terminated(last), status.get("restartCount", 0))
    if "terminated" in state:
        record.state = _terminated(state["terminated"])
    elif "running" in state:
        record.state = Terminated(
            LOST_EXIT_CODE, "ContainerStatusUnknown", "The process ended together with the node agent that ran it.",
            started_at=state["running"].get("startedAt"), finished_at=at, container_id=status.get("containerID", ""),
        )  # fmt: skip
    return record


def _terminated(state: Json) -> Terminated:
    return Terminated(
        state["exitCode"], state.get("reason", ""), state.get("message", ""), state.get("signal", 0),
        state.get("startedAt"), state.get("finishedAt"), state.get("containerID", ""),
    )  # fmt: skip
