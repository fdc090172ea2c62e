"""The Kubernetes runtime on a real API server, Job controller and garbage collector, with the operator's own rights.

No node takes these pods. `Node` stands in for a kubelet: it writes the pod statuses that one would write, and the
reports that a worker would; so every exit code and every order of events is at the test's hand.
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web
from kubernetes.aio import client as plain

from support.wanted import instances, work
from whimbrel_api.migration import Migration, MigrationStatus, Phase
from whimbrel_api.reports import ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import FreezeOptions, Orders, TaskKind
from whimbrel_operator.domain.decision import Event, WantedTask
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, TaskState
from whimbrel_operator.errors import (
    ClusterAway,
    Forbidden,
    NamespaceEnding,
    Refused,
    ResourceUnreadable,
    StatusConflict,
)
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.observe.objects import job_of
from whimbrel_operator.runtime.kubernetes.reads import parsed
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.runtime.kubernetes.writes import Writer
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs.names import Owner, children_of, job_name, report_name
from whimbrel_operator.specs.rights import OPERATOR_RULES, cluster_role
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
        """Node: the container has started."""
        await self._status(await self.pod(task_id, index), "Running", {"running": {"startedAt": stamp()}})

    async def ends(
        self, code: int, task_id: str = "preflight", index: int = 0, message: str = "", ran: float = 1
    ) -> str:
        """Node: the container has ended. Returns the pod's name."""
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


@pytest.fixture(scope="module")
def rights(cluster: Cluster) -> Iterator[Rights]:
    cluster.kubectl("create", "-f", "-", input=json.dumps(cluster_role(ROLE)))
    told = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--flatten", "--minify"))["clusters"][0]["cluster"]
    where = urlsplit(told["server"])
    environ = {"KUBERNETES_SERVICE_HOST": str(where.hostname), "KUBERNETES_SERVICE_PORT": str(where.port)}
    yield Rights(environ, base64.b64decode(told["certificate-authority-data"]))
    cluster.kubectl("delete", "clusterrole", ROLE)


@pytest.fixture
def play(cluster: Cluster, rights: Rights, namespace: str, tmp_path: Path) -> Play:
    """Run a scene on a stage of its own."""

    async def whole(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        async with stage(cluster, rights, namespace, tmp_path) as ready:
            await scene(ready)

    return lambda scene: asyncio.run(whole(scene))


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
        ready = Stage(cluster, Api(admin), owner, runtime, ahead)
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


def _run(count: int) -> Callable[[tuple[TaskState, ...]], bool]:
    return lambda states: running(states) and len(states) == count


def error(category: ErrorCategory = ErrorCategory.CONFIGURATION) -> ReportedError:
    return ReportedError(category=category, what="the password is wrong", where="mysql:3306", todo="fix Secret src")


def test_a_task_is_made_in_few_requests_and_then_left_alone(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        assert await stage.states() == ()
        before = stage.runtime.api.requests
        await stage.runtime.apply(stage.key, wanted)
        assert stage.runtime.api.requests - before == 6
        await stage.pod()
        before = stage.runtime.api.requests
        (state,) = await stage.step(wanted)
        assert stage.runtime.api.requests - before == 5
        assert (state.running, state.stopping, state.failures, state.report, state.generation) == (
            True,
            False,
            0,
            None,
            1,
        )
        assert state.fingerprint == wanted[0].fingerprint
        before = stage.runtime.api.requests
        await stage.runtime.apply(stage.key, wanted)
        assert stage.runtime.api.requests == before

    play(scene)


def test_applied_twice_upon_one_look_a_task_is_made_once(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        await stage.runtime.apply(stage.key, stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.RUNNING)
        uid = await stage.job_uid()
        await stage.runtime.apply(stage.key, stage.wanted())
        assert await stage.job_uid() == uid
        (state,) = await stage.states()
        assert state.report is not None, "a worker's word was taken away by the second time"

    play(scene)


def test_a_finished_task_stays_finished_and_is_removed_without_a_trace(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.runs()
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        (state,) = await stage.until(lambda states: states[0].done, wanted)
        assert state.word is not None
        assert (state.word.state, state.exit_code, state.failures) == (WorkerState.DONE, 0, 0)
        uid = await stage.job_uid()
        await stage.step(wanted)
        assert await stage.job_uid() == uid
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_a_removed_result_is_not_read_while_it_goes(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        await stage.until(lambda states: states[0].done, wanted)
        await stage.runtime.remove(stage.key, "preflight")
        seen = await stage.until(lambda states: running(states) and states[0].report is None, wanted)
        assert not any(state.done for state in seen)

    play(scene)


def test_a_stream_that_ended_is_started_again_where_it_has_no_end(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(TaskKind.STREAM, again=True)
        await stage.step(wanted)
        first = await stage.job_uid("stream")
        await stage.speak(TaskKind.STREAM, WorkerState.DONE)
        await stage.ends(0, "stream")
        await stage.until(lambda states: states[0].done, stage.wanted(TaskKind.STREAM, again=True, start=False))
        await stage.until(lambda states: running(states) and states[0].report is None, wanted)
        assert await stage.job_uid("stream") != first

    play(scene)


def test_a_finished_worker_whose_report_was_taken_away_is_no_result(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(start=False)
        await stage.step(stage.wanted())
        await stage.ends(0)
        (state,) = await stage.until(failed, wanted)
        assert state.last_error is not None
        assert "its report is gone" in state.last_error.what

    play(scene)


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (2, ErrorCategory.CONFIGURATION),
        (3, ErrorCategory.SOURCE_LOG_LOST),
        (4, ErrorCategory.FENCED_OUT),
    ],
)
def test_what_is_hopeless_fails_the_task_at_once(play: Play, code: int, category: ErrorCategory) -> None:
    async def scene(stage: Stage) -> None:
        held = stage.wanted(start=False)
        await stage.step(stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error(category))
        await stage.ends(code)
        (state,) = await stage.until(failed, held)
        assert (state.exit_code, state.failures, state.running, state.stopping) == (code, 1, False, False)
        assert state.last_error == error(category)
        assert state.last_failure_at is not None
        assert await stage.job() is not None, "a failed task is kept until it is tried again"

    play(scene)


def test_failures_are_counted_over_jobs_and_a_former_report_is_not_read(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted, held = stage.wanted(), stage.wanted(start=False)
        seen: list[TaskState] = []
        for times in (1, 2):
            await stage.until(running, wanted)
            await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error())
            await stage.ends(2)
            (state,) = await stage.until(failed, held)
            assert state.failures == times
            uid = await stage.job_uid()

            def told(states: tuple[TaskState, ...], times: int = times) -> bool:
                seen.extend(states)
                return running(states) and states[0].failures == times

            (fresh,) = await stage.until(told, wanted)
            assert (fresh.report, fresh.last_error) == (None, error())
            assert await stage.job_uid() != uid
        assert all(state.failures > 0 for state in seen), "the failures were forgotten for a moment"
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        (state,) = await stage.until(lambda states: states[0].done, wanted)
        assert (state.failures, state.last_error) == (0, None)

    play(scene)


def test_a_crash_between_counting_and_deleting_counts_nothing_twice(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.step(stage.wanted())
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.FAILED, last_error=error())
        await stage.ends(2)
        (state,) = await stage.until(failed, stage.wanted(start=False))
        job = await stage.job()
        assert job is not None
        await Writer(stage.runtime.api, NOWHERE).remember(stage.owner, job_of(job), [state])
        (again,) = await stage.states()
        assert (again.failures, again.failed, again.last_error) == (1, True, error())

    play(scene)


def test_a_worker_that_crashed_is_tried_again_within_its_job(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.runs()
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.RUNNING)
        name = await stage.ends(137, message="…out of patience")
        (state,) = await stage.until(lambda states: states[0].failures == 1, wanted)
        assert state.running
        assert state.last_error is not None
        for part in ("exit code 137", name, "out of patience", f"logs {name}"):
            assert part in state.last_error.sentence()

    play(scene)


def test_a_worker_told_to_stop_has_not_failed(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        await stage.ends(5)

        async def accounted() -> bool:
            job = await stage.job()
            return job is not None and job["status"].get("failed") == 1

        await soon(accounted)
        (state,) = await stage.states()
        assert (state.running, state.failures, state.last_error) == (True, 0, None)

    play(scene)


def test_one_hopeless_instance_ends_the_others_with_it(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted, held = stage.wanted(TaskKind.SNAPSHOT, 3), stage.wanted(TaskKind.SNAPSHOT, 3, start=False)
        await stage.step(wanted)
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.DONE, 2)
        await stage.ends(0, "snapshot", 2)
        await stage.until(lambda states: states[2].done, wanted)
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.FAILED, 1, last_error=error())
        await stage.ends(2, "snapshot", 1)
        states = await stage.until(failed, held)
        assert [state.exit_code for state in states] == [5, 2, 0]
        assert [state.failures for state in states] == [0, 1, 0]
        uid = await stage.job_uid("snapshot")
        mixed = tuple(replace(each, start=each.ref.index != 1) for each in wanted)
        await stage.step(mixed)
        assert await stage.job_uid("snapshot") == uid, "none begins while one has to wait"
        await stage.step(tuple(replace(each, start=each.ref.index != 2) for each in wanted))
        states = await stage.until(running, wanted)
        assert await stage.job_uid("snapshot") != uid
        assert [state.failures for state in states] == [0, 1, 0]

    play(scene)


def test_the_number_of_workers_changes_in_flight(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        def reports() -> list[str]:
            told = stage.cluster.kubectl("-n", stage.owner.namespace, "get", "workerreports", "-o", "name")
            return sorted(each.rpartition("-")[2] for each in told.split())

        async def rights() -> int:
            role = await stage.admin.get(kinds.ROLES, stage.owner.namespace, job_name(stage.owner, "snapshot"))
            assert role is not None
            return len(role["rules"][0]["resourceNames"])

        for count in (2, 4, 1):
            await stage.until(_run(count), stage.wanted(TaskKind.SNAPSHOT, count))
            await stage.pod("snapshot", count - 1)
            assert (reports(), await rights()) == ([str(index) for index in range(count)], count)
        assert await stage.job_uid("snapshot")

    play(scene)


def test_a_finished_task_for_more_workers_is_done_once_more(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.step(stage.wanted(TaskKind.SNAPSHOT, 1))
        await stage.speak(TaskKind.SNAPSHOT, WorkerState.DONE)
        await stage.ends(0, "snapshot")
        await stage.until(lambda states: states[0].done, stage.wanted(TaskKind.SNAPSHOT, 1))
        states = await stage.until(_run(2), stage.wanted(TaskKind.SNAPSHOT, 2))
        assert [state.report for state in states] == [None, None]

    play(scene)


def test_another_wish_ends_the_job_and_makes_another(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(TaskKind.FREEZE)
        await stage.until(running, wanted)
        first = await stage.job_uid("freeze")
        other = stage.wanted(TaskKind.FREEZE, freeze=FreezeOptions(quiet_seconds=9))
        held = tuple(replace(each, start=False) for each in other)
        await stage.step(held)
        await stage.until(lambda states: all(not state.running and state.exit_code == 5 for state in states), held)
        await stage.until(lambda states: running(states) and states[0].fingerprint == other[0].fingerprint, other)
        assert await stage.job_uid("freeze") != first

    play(scene)


def test_orders_are_written_when_they_change_only(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.until(running, stage.wanted(TaskKind.STREAM))
        told = stage.wanted(TaskKind.STREAM, orders=Orders(drain_to="u:1-7", rows_per_second=9))
        for writes in (1, 0):
            await stage.observe()
            before = stage.runtime.api.requests
            await stage.runtime.apply(stage.key, told)
            assert stage.runtime.api.requests - before == writes
        name = report_name(job_name(stage.owner, "stream"), 0)
        for orders in (told[0].orders, Orders()):
            report = await stage.admin.get(kinds.WORKER_REPORTS, stage.owner.namespace, name)
            assert report is not None
            assert Orders.model_validate(report["spec"]["orders"]) == orders
            await stage.step(stage.wanted(TaskKind.STREAM))

    play(scene)


def test_a_task_in_flight_is_removed_without_a_trace(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.until(running, stage.wanted(TaskKind.SNAPSHOT, 2))
        await stage.runs("snapshot", 0)
        await stage.runtime.remove(stage.key, "snapshot")
        assert all(state.stopping or not state.running for state in await stage.states("snapshot"))
        await stage.removed("snapshot")
        assert stage.left() == []

    play(scene)


def test_what_a_deleted_job_leaves_is_seen_and_taken_up_again(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.until(running, wanted)
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all")
        held = stage.wanted(start=False)
        (state,) = await stage.until(lambda states: not states[0].running, held)
        assert (state.exit_code, state.failures) == (5, 0)
        await stage.until(running, wanted)
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all")
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_pods_whose_job_was_taken_from_under_them_are_ended(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.until(running, wanted)
        orphan = (await stage.pod())["metadata"]["name"]
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all", "--cascade=orphan")
        (state,) = await stage.states()
        assert (state.running, state.stopping) == (True, True)
        await stage.until(running, wanted)
        assert (await stage.pod())["metadata"]["name"] != orphan
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "job", "--all", "--cascade=orphan")
        await stage.removed("preflight")
        assert stage.left() == []

    play(scene)


def test_a_pod_that_finds_no_node_says_so(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted()
        await stage.step(wanted)
        name = (await stage.pod())["metadata"]["name"]
        stage.ahead[0] = timedelta(seconds=30)
        (state,) = await stage.until(lambda states: "Unschedulable" in states[0].report_problem, wanted)
        assert f"describe pod {name}" in state.report_problem

    play(scene)


def test_a_quota_that_lets_no_pod_through_says_so(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.cluster.kubectl("-n", stage.owner.namespace, "create", "quota", "none", "--hard=pods=0")
        wanted = stage.wanted()
        await stage.step(wanted)
        stage.ahead[0] = timedelta(seconds=90)
        (state,) = await stage.states()
        assert "describe job" in state.report_problem

    play(scene)


def test_a_status_is_written_once_for_a_version(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        seen = await stage.observe()
        status = MigrationStatus(phase=Phase.SNAPSHOT, progress="3%", observed_generation=1)
        await stage.runtime.report(stage.key, status, seen.resource_version)
        with pytest.raises(StatusConflict):
            await stage.runtime.report(stage.key, MigrationStatus(), seen.resource_version)
        after = await stage.observe()
        assert after.resource.status == status
        assert after.resource_version != seen.resource_version
        stage.cluster.kubectl("-n", stage.owner.namespace, "delete", "migration", "shop")
        with pytest.raises(StatusConflict):
            await stage.runtime.report(stage.key, status, after.resource_version)
        assert await stage.runtime.observe(stage.key, Memory()) is None

    play(scene)


def test_an_event_said_again_only_counts(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        event = Event("Warning", "Stalled", "the password is wrong\n" + "€" * 2000)
        for _ in range(3):
            await stage.runtime.event(stage.key, event)
        await stage.runtime.event(stage.key, replace(event, reason="Other", type="Normal"))
        found = await stage.admin.list(kinds.EVENTS, stage.owner.namespace)
        own = {each["reason"]: each for each in found if each["regarding"].get("uid") == stage.owner.uid}
        assert sorted(own) == ["Other", "Stalled"]
        assert own["Stalled"]["series"]["count"] == 3
        assert "series" not in own["Other"]
        told = stage.cluster.kubectl("-n", stage.owner.namespace, "describe", "migration", "shop")
        assert "the password is wrong" in told

    play(scene)


def test_a_missing_right_is_named(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        rules = [rule for rule in OPERATOR_RULES if "serviceaccounts" not in rule["resources"]]
        less = {"metadata": {"name": "less", "namespace": stage.owner.namespace}, "rules": rules}
        kubectl, ns = stage.cluster.kubectl, stage.owner.namespace
        kubectl("create", "-f", "-", input=json.dumps({"apiVersion": f"{RBAC}/v1", "kind": "Role", **less}))
        kubectl("-n", ns, "delete", "rolebinding", "operator")
        kubectl("-n", ns, "create", "rolebinding", "less", "--role=less", f"--serviceaccount={ns}:operator")
        caught: list[Forbidden] = []

        async def refused() -> bool:
            try:
                await stage.step(stage.wanted())
            except Forbidden as problem:
                caught.append(problem)
            return "serviceaccounts" in str(caught[-1:])

        await soon(refused)
        for part in ("patch", f"in namespace {stage.owner.namespace}", "kubectl auth can-i"):
            assert part in str(caught[-1])

    play(scene)


def test_the_operator_may_not_read_secrets(cluster: Cluster, play: Play) -> None:
    async def scene(stage: Stage) -> None:
        who = f"system:serviceaccount:{stage.owner.namespace}:operator"
        told = cluster.kubectl("-n", stage.owner.namespace, "auth", "can-i", "--list", "--as", who)
        assert "secrets" not in told
        assert "*.*" not in told

    play(scene)


def test_a_deleted_resource_is_cleared_in_a_namespace_that_is_ending(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        kubectl, ns = stage.cluster.kubectl, stage.owner.namespace
        keep = {"metadata": {"finalizers": ["whimbrel.dev/finalizer"]}}
        kubectl("-n", ns, "patch", "migration", "shop", "--type=merge", "-p", json.dumps(keep))
        await stage.until(running, stage.wanted(TaskKind.SNAPSHOT, 2))
        await stage.observe()
        kubectl("delete", "namespace", ns, "--wait=false")

        async def ending() -> bool:
            return "Terminating" in kubectl("get", "namespace", ns)

        await soon(ending)
        with pytest.raises(NamespaceEnding):
            await stage.runtime.apply(stage.key, stage.wanted(TaskKind.STREAM))
        await stage.runtime.event(stage.key, Event("Normal", "Deleted", "gone"))

        async def nothing() -> bool:
            return not await stage.runtime.clear(stage.key, stage.owner.uid)

        await soon(nothing)
        assert [each for each in stage.left() if each.startswith(("job", "pod"))] == []
        kubectl("-n", ns, "patch", "migration", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    play(scene)


def test_clearing_takes_away_all_tasks(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        for kind in (TaskKind.STREAM, TaskKind.PREFLIGHT):
            await stage.until(running, stage.wanted(kind))
        await stage.speak(TaskKind.PREFLIGHT, WorkerState.DONE)
        await stage.ends(0)
        assert await stage.runtime.clear(stage.key, stage.owner.uid)

        async def nothing() -> bool:
            return not await stage.runtime.clear(stage.key, stage.owner.uid) and not stage.left()

        await soon(nothing)

    play(scene)


def test_a_stranger_under_the_jobs_name_is_named(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        name = job_name(stage.owner, "preflight")
        stage.cluster.kubectl("-n", stage.owner.namespace, "create", "job", name, "--image=x")
        with pytest.raises(Refused, match="not Whimbrel's"):
            await stage.step(stage.wanted())
        assert "TaskRefused" in stage.cluster.kubectl("-n", stage.owner.namespace, "describe", "migration", "shop")

    play(scene)


def test_an_api_server_that_is_away_is_told_and_tried_again(tmp_path: Path, play: Play) -> None:
    async def scene(stage: Stage) -> None:
        folder = tmp_path
        gone = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
        async with await connect(kubeconfig=None, service_account=folder, environ=gone) as client:
            runtime = KubernetesRuntime(client, NOWHERE, lambda: datetime.now(UTC))
            with pytest.raises(ClusterAway, match=r"does not answer.*127\.0\.0\.1:1"):
                await runtime.observe(stage.key, Memory())

    play(scene)


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks() -> None:
    """A server that plays a busy API server: what is under test is the client's patience."""

    async def scene() -> None:
        asked: list[float] = []
        loop = asyncio.get_running_loop()

        async def busy(_: web.Request) -> web.Response:
            asked.append(loop.time())
            if len(asked) == 1:
                return web.json_response({"message": "too many requests"}, status=429, headers={"Retry-After": "1"})
            return web.json_response({"message": "wait"}, status=429, headers={"Retry-After": "60"})

        app = web.Application()
        app.router.add_get("/{any:.*}", busy)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        settings = plain.Configuration()
        settings.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with plain.ApiClient(settings) as client:
            with pytest.raises(ClusterAway) as told:
                await Api(client).get(kinds.JOBS, "default", "any")
        await runner.cleanup()
        assert len(asked) == 2
        assert asked[1] - asked[0] >= 1.0
        assert told.value.retry_after == 60

    asyncio.run(scene())


def test_a_resource_that_the_types_cannot_read_says_why(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        body = await stage.admin.get(kinds.MIGRATIONS, stage.owner.namespace, "shop")
        assert body is not None
        body["spec"]["snapshot"] = {"workers": 2, "novelty": 1}
        body["status"] = {"fromTheFuture": 1}
        with pytest.raises(ResourceUnreadable, match=r"spec\.snapshot\.novelty") as told:
            parsed(Migration, body)
        assert told.value.resource_version == body["metadata"]["resourceVersion"]
        del body["spec"]["snapshot"]
        assert parsed(Migration, body).status == MigrationStatus()

    play(scene)
