"""Hooks and switches of a cutover on a real cluster: Jobs under the user's account, awaited, once, and put back."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster_run import NAME, ClusterRun
from support.live_run import at_least
from support.moves import Move
from whimbrel_api.cutover import CutoverState
from whimbrel_api.hooks import HookPoint, HookState, HookStatus
from whimbrel_api.migration import Migration, MigrationStatus, Phase
from whimbrel_operator.domain.hook_jobs import HookRun
from whimbrel_operator.specs import hooks
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
QUICK = {"snapshot": {"workers": 1}, "stream": {"flushInterval": "50ms"}, "thresholds": {"samples": 1}}
ACCOUNT = "mover"
OLD, NEW = "the-old-password", "the-new-password"
RULES = [
    {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["get", "patch"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["app", "app-next", f"whimbrel-before-{NAME}.password"],
        "verbs": ["get", "patch"],
    },
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
]
SWITCHES = [
    {"name": "host", "configMap": {"name": "app", "key": "host", "value": "target.example"}},
    {"name": "password", "secret": {"name": "app", "key": "password", "from": {"name": "app-next", "key": "password"}}},
    {"name": "service", "service": {"name": "db", "selector": {"db": "target"}}},
]


@pytest.fixture
def run(
    cluster: KubernetesCluster, namespace: str, postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> Iterator[ClusterRun]:
    """A Migration that is not applied yet, and in its namespace an application with an account of its own."""
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start are no processes of this machine")
    made = ClusterRun(cluster, namespace, postgres_move, mysql, mysql_database, **QUICK)
    made.execute("CREATE TABLE words (id INT PRIMARY KEY)", "INSERT INTO words VALUES (1), (2)")
    made.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": application()}))
    yield made
    made.operator.stop()


def application() -> list[dict[str, Any]]:
    """Where the application finds its database, and the account that may change it."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT}
    return [
        thing("ServiceAccount"),
        {**thing("Role", f"{group}/v1"), "rules": RULES},
        {
            **thing("RoleBinding", f"{group}/v1"),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
            "subjects": [subject],
        },
        {**thing("ConfigMap", name="app"), "data": {"host": "source.example", "port": "3306"}},
        {**thing("Secret", name="app"), "stringData": {"password": OLD, "user": "app"}},
        {**thing("Secret", name="app-next"), "stringData": {"password": NEW}},
        {**thing("Service", name="db"), "spec": {"selector": {"app": "source"}, "ports": [{"port": 5432}]}},
    ]


def thing(kind: str, version: str = "v1", name: str = ACCOUNT) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def hook(name: str, script: str, **more: Any) -> dict[str, Any]:
    command = ["/bin/sh", "-ec", script]
    return {"name": name, "serviceAccountName": ACCOUNT, "image": "any.example/tools:1", "command": command, **more}


def switches() -> list[dict[str, Any]]:
    return [{**each, "serviceAccountName": ACCOUNT} for each in SWITCHES]


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def hooks_of(status: MigrationStatus) -> dict[str, HookStatus]:
    return {each.name: each for each in status.cutover.hooks}


def condition(status: MigrationStatus) -> tuple[str, str, str]:
    found = next(each for each in status.conditions if each.type == "HooksSucceeded")
    return found.status, found.reason, found.message


def settings_of(run: ClusterRun) -> tuple[str, str, dict[str, str]]:
    """What the application would find: host, password, the Service's selector."""

    def body(kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run.kubectl("get", kind, name, "-o", "json"))
        return found

    password = base64.b64decode(body("secret", "app")["data"]["password"]).decode()
    return body("configmap", "app")["data"]["host"], password, body("service", "db")["spec"]["selector"]


BEFORE = ("source.example", OLD, {"app": "source"})
AFTER = ("target.example", NEW, {"db": "target"})


def test_a_whole_cutover_with_a_hook_at_each_point_and_all_switches_put_back(run: ClusterRun, tmp_path: Path) -> None:
    done, go = tmp_path / "done", tmp_path / "go"
    tell = f'echo "$WHIMBREL_HOOK_POINT $WHO" >> {done}'
    who = [{"name": "WHO", "valueFrom": {"secretKeyRef": {"name": "app", "key": "user"}}}]
    run.manifest["spec"]["cutover"] = {
        "hooks": {
            "beforeFreeze": [hook("stop", f"while [ ! -e {go} ]; do sleep 0.1; done; {tell}", env=who)],
            "afterDrain": [hook("look", tell, env=who)],
            "afterSwitch": [hook("start", tell, env=who), hook("tell", tell)],
        },
        "switch": switches(),
    }
    with run.begun():
        run.until(awaiting)
        run.approve()
        run.until(lambda status: "stop" in hooks_of(status))
        run.operator.kill()
        run.operator.start()
        assert settings_of(run) == BEFORE
        go.touch()
        status = run.until(lambda status: condition(status)[0] == "True")
        assert status.phase is Phase.COMPLETED
        assert done.read_text().splitlines() == [
            "BeforeFreeze app",
            "AfterDrain app",
            "AfterSwitch app",
            "AfterSwitch ",
        ]
        assert {each.state for each in status.cutover.hooks} == {HookState.SUCCEEDED}
        assert [each.name for each in status.cutover.hooks] == [
            "stop", "look", "host", "password", "service", "start", "tell",
        ]  # fmt: skip
        assert settings_of(run) == AFTER
        run.until_true(lambda: "HookSucceeded" in {reason for reason, _ in run.events()}, "its events are there")
        told = run.kubectl(
            "get", "secrets,configmaps,services,migrations,jobs,events", "-o", "jsonpath={..annotations}"
        )
        told += json.dumps(run.resource()) + run.operator.log() + "".join(map(str, run.events()))
        assert OLD not in told
        assert base64.b64encode(OLD.encode()).decode() not in told
        run.operator.stop()
        put_back(run)
        assert settings_of(run) == BEFORE
        run.operator.start()
        run.kubectl("delete", "migration", NAME, "--timeout=60s")
        own = {"ConfigMap app", "ServiceAccount mover", "Role mover", "RoleBinding mover"}
        run.until_true(lambda: set(run.left()) == own, "nothing else is left")


def put_back(run: ClusterRun) -> None:
    """The Jobs that put the switches back, the last one first; an operator would end what its tables do not want."""
    migration = Migration.model_validate(run.resource())
    owner = Owner.of(migration)
    for each in reversed(migration.spec.cutover.switch):
        told = HookRun(HookPoint.PUT_BACK, each, f"put-back-{each.name}-1", 1)
        made = hooks.job(owner, told, PodSettings(image="whimbrel:test"))
        run.kubectl("create", "-f", "-", input=json.dumps(made))
        run.kubectl("wait", f"job/{made['metadata']['name']}", "--for=condition=Complete", "--timeout=60s")


def test_a_failing_hook_gives_the_cutover_up_before_the_switch_and_never_undoes_it_after(
    run: ClusterRun, tmp_path: Path
) -> None:
    bad, good = hook("app", "echo no; exit 3"), hook("app", f"echo yes >> {tmp_path}/done")
    run.manifest["spec"]["cutover"] = {"hooks": {"beforeFreeze": [bad], "afterSwitch": [bad]}, "switch": switches()[:1]}
    with run.begun():
        run.until(awaiting)
        run.approve()
        status = run.until(lambda status: status.phase is Phase.FOLLOWING and status.plan.attempt == 2)
        assert status.cutover.state is CutoverState.TIMED_OUT
        assert "hook app (before freeze) failed" in status.cutover.message
        assert f"logs job/{hooks_of(status)['app'].job}" in status.cutover.message
        assert "no" in run.kubectl("logs", f"job/{hooks_of(status)['app'].job}")
        assert condition(status)[:2] == ("False", "HookFailed")
        assert settings_of(run) == BEFORE
        run.patch(cutover={"hooks": {"beforeFreeze": [good]}})
        run.until(lambda status: status.observed_generation == run.resource()["metadata"]["generation"])
        run.approve()
        status = run.until(lambda status: at_least(Phase.COMPLETED)(status) and condition(status)[0] == "False")
        assert settings_of(run)[0] == "target.example"
        failed = next(each for each in status.cutover.hooks if each.point is HookPoint.AFTER_SWITCH)
        again = f"kubectl -n {run.namespace} delete job {failed.job}"
        assert again in condition(status)[2]
        assert ("HookFailed", True) in {(reason, again in message) for reason, message in run.events()}
        run.patch(cutover={"hooks": {"afterSwitch": [good]}})
        run.kubectl("delete", "job", failed.job)
        status = run.until(lambda status: condition(status)[0] == "True")
        assert status.cutover.state is CutoverState.SWITCHED
        assert (tmp_path / "done").read_text() == "yes\nyes\n"
