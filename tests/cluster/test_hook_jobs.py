"""The Jobs of hooks under the operator's own rights on a real API server: made once, seen, ended, and cleared away."""

import json
from typing import Any

import pytest

from support.stage import Play, Stage, soon
from whimbrel_api.hooks import Hook, HookPoint, HookState
from whimbrel_operator.domain.hook_jobs import HookJob, HookRun, WantedHook
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.specs.names import HOOK, HOOK_POINT, job_name

pytestmark = pytest.mark.timeout(120)
RUN_ID = "before-freeze-stop-1"


def wanted(*, start: bool = True, **more: Any) -> WantedHook:
    told = {"name": "stop", "serviceAccountName": "nobody-made-it", "image": "tools:1", "timeout": "3s", **more}
    return WantedHook(HookRun(HookPoint.BEFORE_FREEZE, Hook.model_validate(told), RUN_ID, 1), start=start)


async def seen(stage: Stage) -> tuple[HookJob, ...]:
    return (await stage.observe()).hooks


async def jobs(stage: Stage) -> list[dict[str, Any]]:
    return await stage.admin.list(kinds.JOBS, stage.owner.namespace)


async def said(stage: Stage, reason: str) -> str:
    """The text of the event of that reason, once it is there."""
    found: list[str] = []

    async def there() -> bool:
        events = await stage.admin.list(kinds.EVENTS, stage.owner.namespace)
        found[:] = [each["message"] for each in events if each["reason"] == reason]
        return bool(found)

    await soon(there)
    return found[0]


def test_it_is_made_once_and_seen_apart_from_tasks(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        await stage.runtime.run_hook(stage.key, wanted(start=False))
        assert await jobs(stage) == []
        for _ in range(2):
            await stage.runtime.run_hook(stage.key, wanted())
        (job,) = await seen(stage)
        assert (job.run_id, job.name, job.state) == (RUN_ID, "stop", HookState.RUNNING)
        assert (await stage.observe()).tasks.instances == ()
        assert len(await jobs(stage)) == 1

    play(scene)


def test_an_account_that_is_not_there_ends_in_its_timeout(play: Play) -> None:
    """The operator need not look: Kubernetes makes no pod, and the deadline counts all the same."""

    async def scene(stage: Stage) -> None:
        await stage.observe()
        await stage.runtime.run_hook(stage.key, wanted())

        async def failed() -> bool:
            return (await seen(stage))[0].state is HookState.FAILED

        await soon(failed)
        (job,) = await seen(stage)
        assert "it took longer than its timeout" in job.message
        assert job.finished_at is not None

    play(scene)


def test_it_is_ended_when_it_is_not_wanted_any_more_and_with_its_migration(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()

        async def gone() -> bool:
            return await seen(stage) == ()

        await stage.runtime.run_hook(stage.key, wanted())
        await stage.runtime.end_hook(stage.key, RUN_ID)
        await soon(gone)
        await stage.runtime.end_hook(stage.key, RUN_ID)
        await stage.runtime.run_hook(stage.key, wanted())
        assert len(await seen(stage)) == 1

        async def cleared() -> bool:
            return not await stage.runtime.clear(stage.key, stage.owner.uid)

        await soon(cleared)
        assert await jobs(stage) == []

    play(scene)


def test_it_goes_with_its_migration_whatever_somebody_wrote_into_it(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        await stage.runtime.run_hook(stage.key, wanted())
        damage = {"metadata": {"labels": {HOOK: "another"}, "annotations": {HOOK_POINT: None}}}
        await stage.admin.merge(kinds.JOBS, stage.owner.namespace, job_name(stage.owner, RUN_ID), damage)

        async def cleared() -> bool:
            return not await stage.runtime.clear(stage.key, stage.owner.uid)

        await soon(cleared)
        assert await jobs(stage) == []

    play(scene)


def test_what_the_cluster_refuses_is_an_event_and_no_failed_pass(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        await stage.runtime.run_hook(stage.key, wanted(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}))
        assert await seen(stage) == ()
        assert "must be less than or equal to cpu limit" in await said(stage, "HookRefused")

    play(scene)


def test_a_strangers_job_of_that_name_is_left_alone_and_told(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.observe()
        pod = {"containers": [{"name": "x", "image": "x"}], "restartPolicy": "Never"}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job_name(stage.owner, RUN_ID), "namespace": stage.owner.namespace},
            "spec": {"suspend": True, "template": {"spec": pod}},
        }
        stage.cluster.kubectl("create", "-f", "-", input=json.dumps(body))
        await stage.runtime.run_hook(stage.key, wanted())
        assert await seen(stage) == ()
        assert "not Whimbrel's" in await said(stage, "HookRefused")

    play(scene)
