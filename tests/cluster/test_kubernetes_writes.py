"""The Kubernetes runtime on a real API server: status, events, rights, the end of a resource, and what goes wrong."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio import client as plain

from support.stage import NOWHERE, RBAC, Cluster, Play, Stage, running, soon
from whimbrel_api.base import API_VERSION
from whimbrel_api.migration import Migration, MigrationStatus, Phase
from whimbrel_api.reports import WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.observed import Memory
from whimbrel_operator.errors import (
    ClusterAway,
    Forbidden,
    LeaseLost,
    NamespaceEnding,
    Outdated,
    Refused,
    ResourceUnreadable,
    StatusConflict,
)
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.flow import ALIKE
from whimbrel_operator.runtime.kubernetes.reads import parsed
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.specs.names import job_name
from whimbrel_operator.specs.rights import OPERATOR_RULES


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


def test_what_was_written_since_it_was_seen_is_not_deleted_for_that_version(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        api, namespace = stage.runtime.api, stage.owner.namespace
        meta = {"name": "back", "namespace": namespace}
        body = {"apiVersion": API_VERSION, "kind": "ReverseSync", "metadata": meta}
        seen = (await api.create(kinds.REVERSE_SYNCS, {**body, "spec": {"migrationRef": {"name": "shop"}}}))["metadata"]
        changed = await api.merge(kinds.REVERSE_SYNCS, namespace, "back", {"spec": {"paused": True}})
        version, now = seen["resourceVersion"], changed["metadata"]["resourceVersion"]
        with pytest.raises(Outdated):
            await api.delete(kinds.REVERSE_SYNCS, namespace, "back", uid=seen["uid"], version=version)
        assert await api.get(kinds.REVERSE_SYNCS, namespace, "back") is not None
        await api.delete(kinds.REVERSE_SYNCS, namespace, "back", uid=seen["uid"], version=now)
        assert await api.get(kinds.REVERSE_SYNCS, namespace, "back") is None

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
        said = datetime.now(UTC).second
        while datetime.now(UTC).second == said:  # an Event's times are whole seconds
            await asyncio.sleep(0.02)
        await stage.runtime.event(stage.key, replace(event, reason="Other", type="Normal"))
        found = await stage.admin.list(kinds.EVENTS, stage.owner.namespace)
        own = {each["reason"]: each for each in found if each["involvedObject"].get("uid") == stage.owner.uid}
        assert sorted(own) == ["Other", "Stalled"]
        assert own["Stalled"]["count"] == 3
        assert own["Other"]["count"] == 1
        told = stage.cluster.kubectl("-n", stage.owner.namespace, "describe", "migration", "shop")
        assert "the password is wrong" in told
        listed = told.split("Events:")[1]
        assert listed.index("Stalled") < listed.index("Other"), "by their times"

    play(scene)


def test_many_events_alike_are_one_that_has_the_newest_message(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        for number in range(ALIKE + 3):
            await stage.runtime.event(stage.key, Event("Warning", "Retrying", f"port {number} is closed"))
        found = await stage.admin.list(kinds.EVENTS, stage.owner.namespace)
        told = {each["message"]: each["count"] for each in found if each["reason"] == "Retrying"}
        assert len(told) == ALIKE + 1
        assert told[f"(one of many alike) port {ALIKE + 2} is closed"] == 3

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


def test_a_deletion_that_waits_for_a_lost_node_says_so_once(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.until(running, stage.wanted(TaskKind.STREAM))
        pod = await stage.pod("stream")
        name, held = pod["metadata"]["name"], ["whimbrel.dev/lost-node"]
        finalizers = {"metadata": {"finalizers": [*pod["metadata"]["finalizers"], *held]}}
        await stage.admin.merge(kinds.PODS, stage.owner.namespace, name, finalizers)
        assert await stage.runtime.clear(stage.key, stage.owner.uid)
        assert "DeletionWaits" not in stage.cluster.kubectl(
            "-n", stage.owner.namespace, "describe", "migration", "shop"
        )
        stage.ahead[0] = timedelta(minutes=5)

        async def told() -> bool:
            assert await stage.runtime.clear(stage.key, stage.owner.uid)
            said = stage.cluster.kubectl("-n", stage.owner.namespace, "describe", "migration", "shop")
            return "DeletionWaits" in said and name in said

        await soon(told)
        before = stage.runtime.api.requests
        await stage.runtime.clear(stage.key, stage.owner.uid)
        assert stage.runtime.api.requests == before + 3, "three lists, and no event again"
        await stage.admin.merge(kinds.PODS, stage.owner.namespace, name, {"metadata": {"finalizers": None}})

    play(scene)


def test_what_somebody_took_from_a_running_task_is_made_anew(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        wanted = stage.wanted(TaskKind.STREAM)
        await stage.until(running, wanted)
        await stage.runs("stream")
        before = sorted(stage.left())
        kubectl, ns = stage.cluster.kubectl, stage.owner.namespace
        kubectl("-n", ns, "delete", "configmap,serviceaccount,role,rolebinding", "-l", "whimbrel.dev/task=stream")
        await stage.step(wanted)
        assert len(stage.left()) == len(before) - 4
        stage.ahead[0] = timedelta(minutes=2)
        await stage.step(wanted)
        assert sorted(stage.left()) == before

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


def test_one_that_lost_the_lease_in_the_middle_of_a_pass_writes_nothing_more(play: Play) -> None:
    """It stood still between two requests; what it had decided may be against what its successor does now."""

    async def scene(stage: Stage) -> None:
        first = iter([True])
        runtime = KubernetesRuntime(
            stage.client, NOWHERE, lambda: datetime.now(UTC), may_write=lambda: next(first, False)
        )
        await runtime.observe(stage.key, Memory())
        with pytest.raises(LeaseLost, match="does not lead any more"):
            await runtime.apply(stage.key, stage.wanted())
        assert await stage.job() is None
        (left,) = stage.left()
        assert left.startswith("workerreport"), "what was written while it led stands, and is seen by the next"

    play(scene)


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
