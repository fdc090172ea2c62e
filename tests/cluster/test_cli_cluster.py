"""The command line against a real API server: what it shows, what it changes, what it says when it may not."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command_line import Run, on_namespace
from support.live_states import PLAN, SPEC, STATES
from whimbrel_api.migration import MigrationStatus
from whimbrel_cli.exits import Exit
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

API = "whimbrel.dev/v1alpha1"


@pytest.fixture
def run(cluster: KubernetesCluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Run:
    return on_namespace(cluster, namespace, capsys)


def found(cluster: KubernetesCluster, namespace: str, what: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cluster.kubectl("-n", namespace, "get", what, "-o", "json"))
    return value


def put_status(cluster: KubernetesCluster, namespace: str, status: dict[str, Any], what: str) -> None:
    """Writes a status as the operator does, through the subresource."""
    plural, _, name = what.partition("/")
    body = found(cluster, namespace, what) | {"status": status}
    path = f"/apis/{API}/namespaces/{namespace}/{plural}/{name}/status"
    cluster.kubectl("replace", "--raw", path, "-f", "-", input=json.dumps(body))


def make(cluster: KubernetesCluster, namespace: str, state: str, **metadata: Any) -> dict[str, Any]:
    """A Migration named shop in one of the states that views are tested on; as the API server has it."""
    body = {"apiVersion": API, "kind": "Migration", "metadata": {"name": "shop", **metadata}, "spec": SPEC}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", input=json.dumps(body))
    status = MigrationStatus.model_validate(STATES[state]).model_dump(mode="json", by_alias=True, exclude_none=True)
    put_status(cluster, namespace, status, "migrations/shop")
    return found(cluster, namespace, "migrations/shop")


def spec_of(cluster: KubernetesCluster, namespace: str) -> dict[str, Any]:
    spec: dict[str, Any] = found(cluster, namespace, "migrations/shop")["spec"]
    return spec


def test_an_approval_is_for_the_current_plan(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    make(cluster, namespace, "following")
    code, shown, _ = run("approve", "shop", "--plan", PLAN)
    assert code == Exit.DONE
    assert f"Approved the plan {PLAN} of shop." in shown
    assert spec_of(cluster, namespace)["cutover"]["approvedPlan"] == PLAN


def test_an_approval_of_an_older_plan_is_refused(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    make(cluster, namespace, "following")
    code, _, errors = run("approve", "shop", "--plan", "sha256:old")
    assert code == Exit.FAILED
    assert f"sha256:old is not the plan of shop any more; it is {PLAN}." in errors
    assert f"status shop -n {namespace}" in errors
    assert spec_of(cluster, namespace)["cutover"]["approvedPlan"] == ""


def test_pause_resume_and_cancel_change_the_spec(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    make(cluster, namespace, "snapshot")
    for command, expected in ((["pause"], True), (["resume"], False)):
        assert run(*command, "shop")[0] == Exit.DONE
        assert spec_of(cluster, namespace)["paused"] is expected
    assert run("cancel", "shop", "--yes")[0] == Exit.DONE
    assert spec_of(cluster, namespace)["cancel"] is True


@pytest.mark.parametrize("command", ["approve", "pause", "resume", "cancel"])
def test_a_dry_run_shows_the_change_and_makes_none(
    command: str, cluster: KubernetesCluster, namespace: str, run: Run
) -> None:
    before = make(cluster, namespace, "following")
    code, shown, _ = run(command, "shop", "--dry-run")
    assert code == Exit.DONE
    assert list(yaml.safe_load(shown)) == ["spec"]
    assert found(cluster, namespace, "migrations/shop")["metadata"]["generation"] == before["metadata"]["generation"]


def test_where_git_decides_the_field_to_put_there_is_named(
    cluster: KubernetesCluster, namespace: str, run: Run
) -> None:
    make(cluster, namespace, "following", annotations={"argocd.argoproj.io/tracking-id": "shop"})
    _, shown, _ = run("approve", "shop")
    note, _, change = shown.partition("Argo CD keeps this resource as git has it.")[2].partition("\n")
    assert "Put this there too" in note
    assert yaml.safe_load(change) == {"spec": {"cutover": {"approvedPlan": PLAN}}}


def test_what_is_at_its_end_cannot_be_steered(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    make(cluster, namespace, "completed")
    code, _, errors = run("pause", "shop")
    assert code == Exit.FAILED
    assert "shop is Completed already" in errors


def test_a_name_that_is_not_there_is_answered_with_what_is(
    cluster: KubernetesCluster, namespace: str, run: Run
) -> None:
    code, _, errors = run("status", "sohp")
    assert code == Exit.USAGE
    assert f"No resource 'sohp' in the namespace '{namespace}'." in errors
    make(cluster, namespace, "pending")
    assert f"shop (Migration, {namespace})" in run("status", "sohp")[2]


def test_a_status_shows_the_whole_picture(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    resource = make(cluster, namespace, "following")
    uid = resource["metadata"]["uid"]
    make_event(cluster, namespace, uid, "SnapshotComplete", "all rows are copied")
    make_event(cluster, namespace, "an-older-one", "Forgotten", "of a resource made before under this name")
    make_report(cluster, namespace, uid)
    code, shown, _ = run("status", "shop")
    words = " ".join(shown.split())
    assert code == Exit.DONE
    assert "▶Following" in shown
    assert "SnapshotComplete: all rows are copied" in shown
    assert "Forgotten" not in shown
    assert "running · 50% · 1,000 of 2,000 rows compared" in words
    assert f"approve shop -n {namespace} --plan {PLAN}" in words


def make_event(cluster: KubernetesCluster, namespace: str, uid: str, reason: str, note: str) -> None:
    body = {
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"generateName": "shop-", "namespace": namespace},
        "eventTime": _micro(datetime.now(UTC)), "reportingController": "whimbrel.dev/test",
        "reportingInstance": "test", "action": "Test", "reason": reason, "type": "Normal", "note": note,
        "regarding": {"apiVersion": API, "kind": "Migration", "namespace": namespace, "name": "shop", "uid": uid},
    }  # fmt: skip
    cluster.kubectl("create", "-f", "-", input=json.dumps(body))


def make_report(cluster: KubernetesCluster, namespace: str, uid: str) -> None:
    """A worker that compares."""
    body = {"apiVersion": API, "kind": "WorkerReport", "metadata": {"name": "w-0", "labels": {"whimbrel.dev/uid": uid}}}
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(body | {"spec": {}}))
    check = {"rowsCompared": 1000, "rowsTotal": 2000}
    status = {"task": "check", "taskId": "check", "state": "Running", "observedAt": _micro(datetime.now(UTC))}
    put_status(cluster, namespace, status | {"check": check}, "workerreports/w-0")


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_status_names_the_commands_that_show_the_logs(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    uid = make(cluster, namespace, "snapshot")["metadata"]["uid"]
    pod = {"restartPolicy": "Never", "containers": [{"name": "worker", "image": "none", "command": ["true"]}]}
    body = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "shop-copy", "labels": {"whimbrel.dev/uid": uid}},
        "spec": {"suspend": True, "parallelism": 2, "completions": 2, "template": {"spec": pod}},
    }  # fmt: skip
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(body))
    assert f"Logs     kubectl logs -n {namespace} job/shop-copy --all-pods --prefix" in run("status", "shop")[1]


def test_nobody_is_called_idle_while_a_lease_is_renewed(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    make(cluster, namespace, "snapshot")
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 3600, "renewTime": _micro(datetime.now(UTC))}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "whimbrel-operator"}}
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(lease | {"spec": spec}))
    assert "Idle" not in run("status", "shop")[1]


def test_the_list_holds_a_namespace_or_all(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    assert "Start one with: kubectl apply -f FILE" in run("status")[1]
    make(cluster, namespace, "stalled")
    _, row = run("status")[1].splitlines()
    assert row.split() == [namespace, "shop", "Migration", "Preflight", "–", "Stalled"]
    assert namespace in run("status", "-A")[1]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_status_for_scripts_is_what_the_api_server_has(
    output: str, cluster: KubernetesCluster, namespace: str, run: Run
) -> None:
    resource = make(cluster, namespace, "following", labels={"team": "shop"})
    value = yaml.safe_load(run("status", "shop", "-o", output)[1])
    resource["metadata"].pop("managedFields", None)
    assert value == resource
    (item,) = yaml.safe_load(run("status", "-o", output)[1])["items"]
    assert item["metadata"]["labels"] == {"team": "shop"}


@pytest.mark.parametrize(("state", "code"), [("completed", Exit.DONE), ("cancelled", Exit.FAILED)])
def test_watching_ends_when_the_migration_is_at_its_end(
    state: str, code: Exit, cluster: KubernetesCluster, namespace: str, run: Run
) -> None:
    make(cluster, namespace, state)
    assert run("status", "shop", "-w")[0] == code


def reader(cluster: KubernetesCluster, namespace: str, folder: Path) -> Path:
    """The kubeconfig of an account that may look at migrations and at nothing else."""
    named = ["-n", namespace]
    cluster.kubectl(*named, "create", "serviceaccount", "reader")
    cluster.kubectl(
        *named,
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=migrations.whimbrel.dev,validations.whimbrel.dev",
    )
    cluster.kubectl(*named, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/reader/token"
    token = json.loads(cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(request)))["status"][
        "token"
    ]
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    view["users"] = [{"name": view["users"][0]["name"], "user": {"token": token}}]
    (folder / "reader").write_text(json.dumps(view))
    return folder / "reader"


def test_a_missing_right_is_named_and_what_may_not_be_read_is_left_out(
    cluster: KubernetesCluster, namespace: str, run: Run, tmp_path: Path
) -> None:
    make(cluster, namespace, "snapshot")
    own = reader(cluster, namespace, tmp_path)
    code, shown, _ = run("status", "shop", kubeconfig=own)
    assert code == Exit.DONE
    assert "▶Snapshot" in shown
    assert "Hidden   you may not read here: events, jobs, worker reports" in shown
    assert "Idle" not in shown
    code, _, errors = run("pause", "shop", kubeconfig=own)
    assert code == Exit.FAILED
    assert 'cannot patch resource "migrations" in API group "whimbrel.dev"' in errors
    assert "kubectl auth can-i --list" in errors
    assert f"shop (Migration, {namespace})" in run("status", "other", kubeconfig=own)[2]
    assert "cannot list resource" in run("status", "-A", kubeconfig=own)[2]


def test_a_refusal_of_the_server_is_told_in_its_own_words(cluster: KubernetesCluster, namespace: str, run: Run) -> None:
    """A policy of the cluster that refuses the pause, as CEL rules of the resource do."""
    make(cluster, namespace, "snapshot")
    name = f"no-pause-{namespace}"
    rule = {"apiGroups": ["whimbrel.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["migrations"]}
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "!object.spec.paused", "message": "nobody pauses on a Friday"}],
        },
    }  # fmt: skip
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = policy | {
        "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}},
    }
    both = yaml.safe_dump_all([policy, binding])
    cluster.kubectl("create", "-f", "-", input=both)
    try:
        errors = _refused(run)
    finally:
        cluster.kubectl("delete", "-f", "-", input=both)
    assert "nobody pauses on a Friday" in errors


def _refused(run: Run) -> str:
    """What `pause` says once the API server has taken the policy up; it does so within seconds."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while datetime.now(UTC) < deadline:
        code, _, errors = run("pause", "shop")
        if code == Exit.FAILED:
            return errors
        assert run("resume", "shop")[0] == Exit.DONE
    raise AssertionError("the policy was not enforced within 30 s")


def test_kubectl_finds_the_plugin_and_the_contexts_namespace(
    cluster: KubernetesCluster, namespace: str, tmp_path: Path
) -> None:
    make(cluster, namespace, "following")
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    view["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "kubeconfig").write_text(json.dumps(view))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "PATH": path, "HOME": str(tmp_path)}
    from whimbrel_testbed.kubernetes.kubectl import kubectl_binary

    command = [str(kubectl_binary()), "whimbrel", "status", "shop"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.DONE, done.stderr
    assert f"To cut over: kubectl whimbrel approve shop --plan {PLAN}" in " ".join(done.stdout.split())
