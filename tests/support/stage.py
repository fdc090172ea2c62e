"""A Migration on a real API server, the runtime over it under the operator's own rights, and a node that is played.

`Stage` stands in for a kubelet: it writes the pod statuses that one would write (`runs`, `ends`), and the reports that
a worker would (`speak`); so every exit code and every order of events is at the test's hand.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from kubernetes.aio import client as plain

from support.wanted import instances, work
from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, TaskState
from whimbrel_operator.errors import (
    Forbidden,
)
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs.names import Owner, children_of, job_name, report_name
from whimbrel_operator.specs.settings import PodSettings

NOWHERE = PodSettings(image="registry.example/whimbrel:0.1.0", node_selector={"whimbrel.dev/test": "nowhere"})
EVERY_KIND = "jobs,pods,configmaps,serviceaccounts,roles,rolebindings,workerreports.whimbrel.dev"
DEADLINE = 30.0
RBAC = "rbac.authorization.k8s.io"
ROLE = f"whimbrel-{os.getpid()}"


class Cluster(Protocol):
    kubeconfig: Path
    directory: Path

    def kubectl(self, *args: str, input: str | None = None) -> str: ...


@dataclass
class Stage:
    """A Migration in a namespace, the runtime over it under the operator's own account, and a node that is played."""

    cluster: Cluster
    admin: Api
    owner: Owner
    runtime: KubernetesRuntime
    client: plain.ApiClient
    ahead: list[timedelta] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return Key(self.owner.namespace, "Migration", self.owner.name)

    def wanted(self, kind: TaskKind = TaskKind.PREFLIGHT, count: int = 1, **more: Any) -> tuple[WantedTask, ...]:
        one = WantedTask(kind, TaskRef(kind.value), work(self.owner), epoch=7, generation=1)
        return instances(replace(one, **more), count)

    async def observe(self) -> Observed:
        found = await self.runtime.observe(self.key, Memory())
        assert isinstance(found, Observed)
        return found

    async def states(self, task_id: str = "preflight") -> tuple[TaskState, ...]:
        return (await self.observe()).tasks.of(task_id)

    async def step(self, wanted: Sequence[WantedTask]) -> tuple[TaskState, ...]:
        """A pass: look, and take one step."""
        found = await self.states(wanted[0].ref.task_id)
        await self.runtime.apply(self.key, wanted)
        return found

    async def until(
        self, holds: Callable[[tuple[TaskState, ...]], bool], wanted: Sequence[WantedTask]
    ) -> tuple[TaskState, ...]:
        """Pass after pass until the instances are so."""
        found: list[tuple[TaskState, ...]] = []

        async def once() -> bool:
            found.append(await self.step(wanted))
            return holds(found[-1])

        await soon(once)
        return found[-1]

    async def removed(self, task_id: str) -> None:
        """Remove again and again until nothing of the task shows."""

        async def once() -> bool:
            there = bool(await self.states(task_id))
            await self.runtime.remove(self.key, task_id)
            return not there

        await soon(once)

    async def job(self, task_id: str = "preflight") -> JSON | None:
        return await self.admin.get(kinds.JOBS, self.owner.namespace, job_name(self.owner, task_id))

    async def job_uid(self, task_id: str = "preflight") -> str:
        found = await self.job(task_id)
        assert found is not None
        return str(found["metadata"]["uid"])

    def left(self) -> list[str]:
        """All that still carries the Migration's label."""
        told = self.cluster.kubectl(
            "-n", self.owner.namespace, "get", EVERY_KIND, "-l", children_of(self.owner), "-o", "name"
        )
        return told.split()

    async def speak(self, kind: TaskKind, state: WorkerState, index: int = 0, **more: Any) -> None:
        """What a worker does: write its status."""
        report = WorkerReport(
            task=kind, task_id=kind.value, index=index, state=state, observed_at=datetime.now(UTC), **more
        )
        name = report_name(job_name(self.owner, kind.value), index)
        status = report.model_dump(mode="json", by_alias=True, exclude_none=True)
        await self.admin.merge(kinds.WORKER_REPORTS, self.owner.namespace, name, {"status": status}, "status")

    async def pod(self, task_id: str = "preflight", index: int = 0) -> JSON:
        """The pod of an instance that has not ended, once the Job controller has made it."""
        found: list[JSON] = []

        async def there() -> bool:
            selector = f"{children_of(self.owner)},whimbrel.dev/task={task_id}"
            pods = await self.admin.list(
                kinds.PODS, self.owner.namespace, f"{selector},batch.kubernetes.io/job-completion-index={index}"
            )
            found[:] = [each for each in pods if each["status"]["phase"] in ("Pending", "Running")]
            return bool(found)

        await soon(there)
        return found[0]

    async def runs(self, task_id: str = "preflight", index: int = 0) -> None:
        """Stand-in for a kubelet: the container has started."""
        await self._status(await self.pod(task_id, index), "Running", {"running": {"startedAt": stamp()}})

    async def ends(
        self, code: int, task_id: str = "preflight", index: int = 0, message: str = "", ran: float = 1
    ) -> str:
        """Stand-in for a kubelet: the container has ended. Returns the pod's name."""
        pod = await self.pod(task_id, index)
        times = {"startedAt": stamp(-ran), "finishedAt": stamp()}
        state = {
            "terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message, **times}
        }
        await self._status(pod, "Failed" if code else "Succeeded", state)
        return str(pod["metadata"]["name"])

    async def _status(self, pod: JSON, phase: str, state: JSON) -> None:
        name = pod["metadata"]["name"]
        told = {"name": "worker", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        patch = {"status": {"phase": phase, "containerStatuses": [told]}}
        await self.admin.merge(kinds.PODS, self.owner.namespace, name, patch, "status")


def stamp(seconds: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, "not so within its time"
        await asyncio.sleep(0.05)


Play = Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], None]


@dataclass(frozen=True)
class Rights:
    """The ClusterRole of the chart stands in the cluster; this is what a pod under it is told of the API server."""

    where: dict[str, str]
    authority: bytes


@asynccontextmanager
async def stage(cluster: Cluster, rights: Rights, namespace: str, folder: Path) -> AsyncIterator[Stage]:
    owner = prepared(cluster, namespace)
    token = cluster.kubectl("-n", namespace, "create", "token", "operator").strip()
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(rights.authority)
    admin = await connect(kubeconfig=cluster.kubeconfig, service_account=folder)
    operator = await connect(kubeconfig=None, service_account=folder, environ=rights.where)
    ahead = [timedelta()]
    async with admin, operator:
        runtime = KubernetesRuntime(operator, NOWHERE, lambda: datetime.now(UTC) + ahead[0])
        ready = Stage(cluster, Api(admin), owner, runtime, operator, ahead)
        await soon(lambda: _may(runtime, ready.key))
        yield ready


async def _may(runtime: KubernetesRuntime, key: Key) -> bool:
    """The API server learns of new rights by a watch of its own."""
    try:
        return await runtime.observe(key, Memory()) is not None
    except Forbidden:
        return False


def prepared(cluster: Cluster, namespace: str) -> Owner:
    """A Migration, and the operator's service account with the chart's rights, all in one namespace."""
    spec = work(Owner("Migration", namespace, "shop", "u"))
    ends = {"source": spec.source, "target": spec.target}
    manifest = {
        "apiVersion": "whimbrel.dev/v1alpha1",
        "kind": "Migration",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {end: each.model_dump(mode="json", by_alias=True, exclude_none=True) for end, each in ends.items()},
    }
    named = {"metadata": {"name": "operator", "namespace": namespace}}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        **named,
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", **named["metadata"]}],
    }
    bodies = [manifest, {"apiVersion": "v1", "kind": "ServiceAccount", **named}, binding]
    whole = {"apiVersion": "v1", "kind": "List", "items": bodies}
    told = cluster.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(whole))
    first, _ = json.JSONDecoder().raw_decode(told)
    return Owner("Migration", namespace, "shop", first["metadata"]["uid"])


def failed(states: tuple[TaskState, ...]) -> bool:
    return any(state.failed for state in states)


def running(states: tuple[TaskState, ...]) -> bool:
    return bool(states) and all(state.running and not state.stopping for state in states)


def run_so_many(count: int) -> Callable[[tuple[TaskState, ...]], bool]:
    return lambda states: running(states) and len(states) == count


def error(category: ErrorCategory = ErrorCategory.CONFIGURATION) -> ReportedError:
    return ReportedError(category=category, what="the password is wrong", where="mysql:3306", todo="fix Secret src")
