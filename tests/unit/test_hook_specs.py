"""The Jobs of hooks and switches: restricted pods, the user's account, strict schemas, what Jobs say of their ends."""

import json
from typing import Any

import kubernetes_validate
import pytest

from support.wanted import OWNER, SETTINGS
from whimbrel_api.hooks import Hook, HookPoint, HookState, SwitchOrder, SwitchStep
from whimbrel_operator.domain.hook_jobs import HookRun
from whimbrel_operator.errors import StateUnreadable
from whimbrel_operator.runtime.kubernetes.observe.hooks import hook_job_of, is_hook
from whimbrel_operator.runtime.kubernetes.reads import Children
from whimbrel_operator.specs import hooks, names

ENV = [
    {"name": "TOKEN", "value_from": {"secret_key_ref": {"name": "app", "key": "token"}}},
    {"name": "A", "value": "b"},
]
SWITCH = {"secret": {"name": "app", "key": "password", "from": {"name": "next", "key": "password"}}}
VERSIONS = ("1.36", "1.37")


def a_hook(**more: Any) -> HookRun:
    told = {"name": "stop", "serviceAccountName": "mover", "image": "tools:1", **more}
    return HookRun(HookPoint.BEFORE_FREEZE, Hook.model_validate(told), "before-freeze-stop-1", 1)


def a_switch(point: HookPoint = HookPoint.SWITCH) -> HookRun:
    told = SwitchStep.model_validate({"name": "password", "serviceAccountName": "mover", **SWITCH})
    return HookRun(point, told, f"{point.value.lower()}-password-1", 1)


def built(run: HookRun) -> dict[str, Any]:
    return hooks.job(OWNER, run, SETTINGS)


def pod(run: HookRun) -> dict[str, Any]:
    found: dict[str, Any] = built(run)["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("run", [a_hook(env=ENV, resources={"limits": {"memory": "64Mi"}}), a_switch()])
def test_the_jobs_pass_the_strict_schemas(run: HookRun, version: str) -> None:
    kubernetes_validate.validate(built(run), version, strict=True)


@pytest.mark.parametrize("run", [a_hook(), a_switch()])
def test_a_pod_is_restricted_and_has_the_users_account(run: HookRun) -> None:
    told, container = pod(run), pod(run)["containers"][0]
    assert told["serviceAccountName"] == "mover"
    assert told["automountServiceAccountToken"] is False
    assert told["restartPolicy"] == "Never"
    assert told["securityContext"]["runAsNonRoot"] is True
    assert told["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_a_hook_is_as_the_manifest_says() -> None:
    run = a_hook(
        command=["sh"], args=["-c", "true"], env=ENV, timeout="90.5s", backoffLimit=2, automountServiceAccountToken=True
    )
    job, container = built(run), pod(run)["containers"][0]
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["backoffLimit"]) == (91, 2)
    assert "ttlSecondsAfterFinished" not in job["spec"], "the Job is the record of what has been done"
    assert pod(run)["automountServiceAccountToken"] is True
    assert (container["image"], container["command"], container["args"]) == ("tools:1", ["sh"], ["-c", "true"])
    assert container["env"][-2:] == [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "app", "key": "token"}}},
        {"name": "A", "value": "b"},
    ]
    assert {each["name"] for each in container["env"][:-2]} == {
        "WHIMBREL_MIGRATION", "WHIMBREL_HOOK_POINT", "WHIMBREL_ATTEMPT",
    }  # fmt: skip
    plain = pod(a_hook(podSecurity="Unset"))
    assert "securityContext" not in plain
    assert "securityContext" not in plain["containers"][0]


def test_names_tell_attempts_apart_and_pods_are_not_taken_for_those_of_tasks() -> None:
    job = built(a_hook())
    assert job["metadata"]["name"] == names.job_name(OWNER, "before-freeze-stop-1")
    assert job["metadata"]["name"] != names.job_name(OWNER, "before-freeze-stop-2")
    assert job["metadata"]["labels"][names.UID] == OWNER.uid
    assert names.UID not in job["spec"]["template"]["metadata"]["labels"]
    assert job["metadata"]["ownerReferences"][0]["uid"] == OWNER.uid


@pytest.mark.parametrize(("point", "back"), [(HookPoint.SWITCH, False), (HookPoint.PUT_BACK, True)])
def test_a_switch_is_told_by_reference_and_runs_whimbrels_image(point: HookPoint, back: bool) -> None:
    container = pod(a_switch(point))["containers"][0]
    assert container["image"] == SETTINGS.image
    assert container["command"] == ["python", "-m", "whimbrel_worker.switching"]
    told = next(each["value"] for each in container["env"] if each["name"] == hooks.ORDER)
    order = SwitchOrder.model_validate_json(told)
    assert (order.namespace, order.owner_uid, order.back) == (OWNER.namespace, OWNER.uid, back)
    assert json.loads(told)["switch"]["secret"]["from"] == {"name": "next", "key": "password"}
    sources = pod(a_switch())["volumes"][0]["projected"]["sources"]
    assert "serviceAccountToken" in sources[0]


def seen(**status: Any) -> dict[str, Any]:
    job = built(a_hook())
    meta = {**job["metadata"], "uid": "u", "creationTimestamp": "2026-11-21T12:00:00Z"}
    return {**job, "metadata": meta, "status": status}


def ended(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, Any]:
    at = "2026-11-21T12:05:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


@pytest.mark.parametrize(
    ("conditions", "state", "message"),
    [
        ([], HookState.RUNNING, ""),
        ([ended("SuccessCriteriaMet")], HookState.RUNNING, ""),
        ([ended("FailureTarget", "DeadlineExceeded")], HookState.RUNNING, ""),
        ([ended("Complete", status="False")], HookState.RUNNING, ""),
        ([ended("SuccessCriteriaMet"), ended("Complete")], HookState.SUCCEEDED, ""),
        (
            [ended("Failed", "DeadlineExceeded", "Job was active longer")],
            HookState.FAILED,
            "it took longer than its timeout and was ended (DeadlineExceeded: Job was active longer)",
        ),
        (
            [ended("Failed", "BackoffLimitExceeded", "limit")],
            HookState.FAILED,
            "its pod failed as often as it may (BackoffLimitExceeded: limit)",
        ),
    ],
)
def test_what_a_job_says_of_its_end(conditions: list[dict[str, Any]], state: HookState, message: str) -> None:
    body = seen(conditions=conditions)
    found = hook_job_of(body)
    assert is_hook(body)
    assert (found.state, found.message) == (state, message)
    assert (found.run_id, found.point, found.name) == ("before-freeze-stop-1", HookPoint.BEFORE_FREEZE, "stop")
    assert (found.finished_at is None) == (state is HookState.RUNNING)


def test_a_damaged_job_is_named() -> None:
    body = seen()
    body["metadata"]["annotations"] = {}
    with pytest.raises(StateUnreadable, match="delete job shop-before-freeze"):
        hook_job_of(body)


def test_whoever_takes_all_away_needs_no_annotation_of_it() -> None:
    body = seen()
    body["metadata"]["annotations"] = {}
    found = Children({}, (body,))
    assert found.hook_jobs == (body["metadata"]["name"],)
    with pytest.raises(StateUnreadable):
        _ = found.hooks
