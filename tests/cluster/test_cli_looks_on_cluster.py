"""`tree`, `logs`, `diff` and `report` against a real API server and pods that run, and kubectl's own completion."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command_line import Run, on_namespace
from support.live_states import SPEC, STATES
from support.node import Pods, TestNode, eventually, running_node
from whimbrel_api.migration import MigrationStatus
from whimbrel_cli.exits import Exit
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.kubernetes.kubectl import kubectl_binary

API = "whimbrel.dev/v1alpha1"
JOB = "shop-check-0-0a1b2c3d"
DIFFERENT = {"name": "check-0", "result": "Different", "rowsCompared": 9, "differences": {"changed": 1}}


@pytest.fixture(scope="module")
def node(cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    with running_node(cluster, tmp_path_factory.mktemp("agent")) as started:
        yield started


@pytest.fixture
def pods(node: TestNode, namespace: str) -> Pods:
    return Pods(node, namespace)


@pytest.fixture
def run(cluster: KubernetesCluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Run:
    return on_namespace(cluster, namespace, capsys)


def put_status(pods: Pods, plural: str, name: str, status: dict[str, Any]) -> None:
    """Writes a status as the operator or a worker does, through the subresource."""
    body = json.loads(pods.kubectl("get", f"{plural}.whimbrel.dev/{name}", "-o", "json")) | {"status": status}
    path = f"/apis/{API}/namespaces/{pods.namespace}/{plural}/{name}/status"
    pods.node.cluster.kubectl("replace", "--raw", path, "-f", "-", input=json.dumps(body))


def made(pods: Pods, state: str, **status: Any) -> str:
    """A Migration named shop in that state; its uid."""
    pods.apply({"apiVersion": API, "kind": "Migration", "metadata": {"name": "shop"}, "spec": SPEC})
    told = MigrationStatus.model_validate(STATES[state] | status)
    put_status(pods, "migrations", "shop", told.model_dump(mode="json", by_alias=True, exclude_none=True))
    return pods.kubectl("get", "migration/shop", "-o", "jsonpath={.metadata.uid}")


def labels(uid: str) -> dict[str, str]:
    """What the children of a task carry."""
    mine = {"whimbrel.dev/uid": uid, "whimbrel.dev/task": "check-0", "batch.kubernetes.io/job-name": JOB}
    return mine | {"app.kubernetes.io/managed-by": "whimbrel", "app.kubernetes.io/component": "check"}


def worked_on(pods: Pods, uid: str, script: str) -> str:
    """A pod that runs that shell script as a worker, and its report; the pod's name."""
    name = f"{JOB}-0-x"
    told = json.dumps(["sh", "-c", script])
    pods.create(name, f"containers: [{{name: worker, command: {told}}}]", labels=labels(uid))
    meta = {"name": f"{JOB}-0", "labels": labels(uid)}
    pods.apply({"apiVersion": API, "kind": "WorkerReport", "metadata": meta, "spec": {}})
    check = {"result": "Different", "rowsCompared": 9, "examples": ['shop.a {"id": "7"}: changed in name']}
    word = {"task": "check", "taskId": "check-0", "state": "Done", "observedAt": datetime.now(UTC).isoformat()}
    put_status(pods, "workerreports", f"{JOB}-0", word | {"check": check})
    return name


def test_the_tree_of_a_cluster_has_pods_and_reports_and_the_validations(pods: Pods, run: Run) -> None:
    pods.phase(worked_on(pods, made(pods, "following"), "sleep 600"), "Running")
    check = {"apiVersion": API, "kind": "Validation", "metadata": {"name": "weekly"}}
    pods.apply(check | {"spec": {"migrationRef": {"name": "shop"}}})
    code, shown, errors = run("tree", "shop", "-o", "json")
    assert (code, errors) == (Exit.DONE, "")
    root = json.loads(shown)
    assert [(each["kind"], each["name"], each["state"]) for each in root["children"]] == [
        ("Pod", f"{JOB}-0-x", "Running"), ("WorkerReport", f"{JOB}-0", "Done"), ("Validation", "weekly", "Pending"),
    ]  # fmt: skip
    assert f"Pod/{JOB}-0-x" in run("tree", "shop")[1]


def test_logs_are_followed_to_the_migrations_end_with_all_that_was_written(
    pods: Pods, cluster: KubernetesCluster, namespace: str
) -> None:
    script = "echo 2026-11-21 12:00:00,000 INFO first; sleep 2; echo 2026-11-21 12:00:05,000 INFO last; sleep 600"
    uid = made(pods, "following")
    pods.phase(worked_on(pods, uid, script), "Running")
    program = [sys.executable, "-m", "whimbrel_cli", "--kubeconfig", str(cluster.kubeconfig)]
    command = [*program, "logs", "shop", "-n", namespace, "--task", "check", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            seen = [following.stdout.readline(), following.stdout.readline()]
            put_status(pods, "migrations", "shop", {"phase": "Completed", "conditions": []})
            rest, errors = following.communicate(timeout=60)
        finally:
            following.kill()
    assert (following.returncode, rest, errors) == (Exit.DONE, "", "")
    assert [line.split()[-1] for line in seen] == ["first", "last"]
    assert seen[0].startswith(f"[{JOB}-0-x] ")


def test_logs_of_a_pod_that_has_ended_are_still_there(pods: Pods, run: Run) -> None:
    pods.phase(worked_on(pods, made(pods, "following"), "echo one; echo two"), "Succeeded")
    code, shown, errors = run("logs", "shop", "--tail", "1", "--no-prefix")
    assert (code, shown, errors) == (Exit.DONE, "two\n", "")


def test_the_examples_of_a_comparison_are_shown_and_where_the_rows_are(pods: Pods, run: Run) -> None:
    worked_on(pods, made(pods, "following", validation=DIFFERENT), "true")
    code, shown, _ = run("diff", "shop")
    assert code == Exit.DIFFERENT
    assert 'Examples shop.a {"id": "7"}: changed in name' in shown
    assert "with a Validation of its own" in shown


def test_the_record_of_a_migration_on_a_cluster(pods: Pods, run: Run) -> None:
    made(pods, "completed")
    value = yaml.safe_load(run("report", "shop", "-o", "yaml")[1])
    assert value["phase"] == "Completed"
    assert value["snapshot"]["rowsCopied"] == 364_000
    assert any("events are not kept" in each for each in value["notKnown"])
    assert run("report", "shop")[1].startswith(f"# Migration {pods.namespace}/shop: Completed\n")


def looker(pods: Pods, folder: Path) -> Path:
    """The kubeconfig of an account that may look at migrations and at nothing else."""
    pods.kubectl("create", "serviceaccount", "reader")
    pods.kubectl("create", "role", "reader", "--verb=get,list", "--resource=migrations.whimbrel.dev")
    pods.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={pods.namespace}:reader")
    token = pods.kubectl("create", "token", "reader").strip()
    view = json.loads(pods.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    view["users"] = [{"name": view["users"][0]["name"], "user": {"token": token}}]
    (folder / "reader").write_text(json.dumps(view))
    return folder / "reader"


def test_what_may_not_be_read_is_named(pods: Pods, run: Run, tmp_path: Path) -> None:
    made(pods, "completed")
    own = looker(pods, tmp_path)
    code, shown, _ = run("tree", "shop", kubeconfig=own)
    assert code == Exit.DONE
    assert "Hidden   you may not read here: jobs, pods, reverse syncs, validations, worker reports" in shown
    for follow in ((), ("-f",)):
        code, _, errors = run("logs", "shop", *follow, kubeconfig=own)
        assert code == Exit.FAILED
        assert "You may not read here: pods." in errors
    value = json.loads(run("report", "shop", "-o", "json", kubeconfig=own)[1])
    assert any("events, reverse syncs, validations" in each for each in value["notKnown"])


def plugin(folder: Path) -> None:
    """Both programs that kubectl looks for, as an installation puts them on PATH."""
    for name, call in (
        (
            "kubectl-whimbrel",
            "import sys; sys.argv[0] = 'kubectl-whimbrel'; from whimbrel_cli.main import main; main()",
        ),
        ("kubectl_complete-whimbrel", "from whimbrel_cli.main import kubectl_complete as f; f()"),
    ):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{call}" "$@"\n')
        (folder / name).chmod(0o755)


def test_kubectl_completes_the_plugins_commands_and_the_names_of_the_cluster(
    pods: Pods, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    made(pods, "following")
    plugin(tmp_path)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}

    def completed(*words: str) -> list[str]:
        command = [str(kubectl_binary()), "__complete", "whimbrel", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [re.split(r"\t", line)[0] for line in done.stdout.splitlines()]

    assert completed("re") == ["report", "resume", ":4"]
    assert eventually(lambda: completed("status", "-n", pods.namespace, "s")) == ["shop", ":4"]
