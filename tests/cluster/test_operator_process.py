"""The operator process on a real API server: the Lease, probes, daemons, deletion, outages. No data moves."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.cluster_run import OperatorProcess
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, kubernetes_cluster

CRDS = Path(__file__).parents[2] / "crds"
PATIENCE = 30.0
SOURCE = {"mysql": {"host": "127.0.0.1", "port": 9, "credentialsSecretRef": {"name": "none"}}}
TARGET = {"auroraDSQL": {"endpoint": "abc.dsql.us-east-1.on.aws", "region": "us-east-1"}}
ENDS = {"source": SOURCE, "target": TARGET}


def until(holds: Callable[[], Any], told: Callable[[], object], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s\n{told()}"
        time.sleep(0.02)
    return found


class Stage:
    """Operator processes over one namespace."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self._folder = cluster, namespace, folder
        self.operators: list[OperatorProcess] = []

    def operator(self, **environment: str) -> OperatorProcess:
        file = self._folder / f"operator-{len(self.operators)}.log"
        made = OperatorProcess(self.cluster, self.namespace, file, environment)
        self.operators.append(made)
        made.start()
        return made

    def leading(self, **environment: str) -> OperatorProcess:
        made = self.operator(**environment)
        self.leads(made)
        return made

    def leads(self, operator: OperatorProcess, seconds: float = PATIENCE) -> None:
        until(lambda: operator.probe("/readyz") == (200, "ok: it leads\n"), operator.log, seconds)

    def says(self, operator: OperatorProcess, pattern: str, seconds: float = PATIENCE) -> None:
        until(lambda: re.search(pattern, operator.log()), operator.log, seconds)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        named = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", input=json.dumps({**named, "spec": spec}))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def lease(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("lease", "whimbrel-operator")["spec"]
        return found

    def condition(self, kind: str, name: str, wanted: str) -> dict[str, Any]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == wanted), {})

    def stalled(self, kind: str, name: str, reason: str) -> dict[str, Any]:
        def holds() -> dict[str, Any]:
            found = self.condition(kind, name, "Stalled")
            return found if (found.get("status"), found.get("reason")) == ("True", reason) else {}

        found: dict[str, Any] = until(holds, self.log)
        return found

    def paused(self, word: str) -> dict[str, Any]:
        def holds() -> dict[str, Any]:
            found = self.condition("Migration", "shop", "Paused")
            return found if found.get("status") == word else {}

        found: dict[str, Any] = until(holds, self.log)
        return found

    def settled(self, kind: str, name: str, phase: str = "Preflight") -> None:
        until(lambda: self.get(kind, name).get("status", {}).get("phase") == phase, self.log)

    def left(self) -> list[str]:
        kinds = (
            "migrations,validations,reversesyncs,jobs,pods,workerreports,configmaps,serviceaccounts,roles,rolebindings"
        )
        names = self.kubectl("get", kinds, "-o", "name").split()
        return [name for name in names if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]

    def end(self) -> None:
        for operator in self.operators:
            operator.kill()

    def log(self) -> str:
        return "\n".join(operator.log() for operator in self.operators)


@pytest.fixture
def stage(cluster: KubernetesCluster, namespace: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(cluster, namespace, tmp_path) as made:
        yield made


@contextmanager
def staged(cluster: KubernetesCluster, namespace: str, folder: Path) -> Iterator[Stage]:
    made = Stage(cluster, namespace, folder)
    with ExitStack() as stack:
        stack.callback(made.end)
        stack.callback(lambda: free(made))
        yield made


def free(stage: Stage) -> None:
    """A test that failed must not leave a namespace that cannot end."""
    for name in stage.kubectl("get", "migrations,validations,reversesyncs", "-o", "name").split():
        stage.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def code(operator: OperatorProcess) -> int:
    assert operator.process is not None
    return operator.process.wait(PATIENCE)


@contextmanager
def hung(cluster: KubernetesCluster) -> Iterator[None]:
    """The API server holds its connections and says nothing."""
    if not cluster.pids:
        pytest.skip("the API server of a cluster of one's own is not suspended")
    pid = cluster.server_process("kube-apiserver").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_second_waits_alive_and_ready_and_takes_over_when_the_first_is_told_to_stop(stage: Stage) -> None:
    first = stage.leading()
    assert stage.lease()["leaseDurationSeconds"] == 4
    second = stage.operator()
    until(lambda: second.probe("/readyz") == (200, "ok: it waits for the Lease\n"), stage.log)
    assert second.probe("/healthz") == (200, "ok\n")
    assert "whimbrel_leader 0.0" in second.probe("/metrics")[1]
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    assert code(first) == 0
    ended = datetime.now(UTC)
    stage.leads(second)
    taken = datetime.fromisoformat(stage.lease()["acquireTime"])
    assert (taken - ended).total_seconds() < 2, "it had to wait for the Lease to run out"
    assert stage.lease()["leaseTransitions"] == 1


def test_the_second_takes_over_when_the_first_is_killed(stage: Stage) -> None:
    first = stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    stage.settled("Migration", "shop")
    second = stage.operator()
    stage.says(second, "waits: .* holds the Lease")
    first.kill()
    stage.leads(second)
    stage.kubectl("patch", "mig", "shop", "--type=merge", "-p", '{"spec":{"paused":true}}')
    stage.paused("True")


def test_one_that_loses_the_lease_ends_with_a_failure_at_once(stage: Stage) -> None:
    operator = stage.leading()
    stage.kubectl("patch", "lease", "whimbrel-operator", "--type=merge", "-p", '{"spec":{"holderIdentity":"thief"}}')
    began = time.monotonic()
    assert code(operator) == 1
    assert time.monotonic() - began < 4
    assert "held by thief" in operator.log()
    assert stage.lease()["holderIdentity"] == "thief"


def test_a_migration_gets_a_status_and_nothing_of_kopf_but_the_finalizer(stage: Stage) -> None:
    stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    stage.settled("Migration", "shop")
    found = stage.get("Migration", "shop")
    assert found["metadata"]["finalizers"] == ["whimbrel.dev/finalizer"]
    assert list(found["metadata"]["annotations"]) == ["kubectl.kubernetes.io/last-applied-configuration"]
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"] == 1
    assert {"Succeeded", "Reconciling", "Stalled", "PreflightPassed"} <= {
        c["type"] for c in found["status"]["conditions"]
    }


def test_a_change_is_seen_within_a_second(stage: Stage) -> None:
    stage.leading()
    stage.apply("Migration", "shop", **ENDS, paused=True)
    stage.paused("True")
    for paused, word in ((False, "False"), (True, "True"), (False, "False")):
        stage.kubectl("patch", "mig", "shop", "--type=merge", "-p", json.dumps({"spec": {"paused": paused}}))
        patched = datetime.now(UTC)
        decided = datetime.fromisoformat(stage.paused(word)["lastTransitionTime"])
        assert (decided - patched).total_seconds() < 1.0


def test_a_deleted_migration_is_gone_with_all_that_belonged_to_it(stage: Stage) -> None:
    stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    until(lambda: any(name.startswith("job") for name in stage.left()), stage.log)
    stage.kubectl("delete", "migration", "shop", "--timeout=90s")
    until(lambda: not stage.left(), lambda: (stage.left(), stage.log()))
    stage.says(stage.operators[0], "shop: deleted: nothing of it is left")


def test_what_was_deleted_while_no_operator_ran_is_cleared_by_the_next(stage: Stage) -> None:
    first = stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    until(lambda: any(name.startswith("job") for name in stage.left()), stage.log)
    first.stop()
    stage.kubectl("delete", "migration", "shop", "--wait=false")
    assert stage.get("migration", "shop")["metadata"]["deletionTimestamp"]
    stage.leading()
    until(lambda: not stage.left(), lambda: (stage.left(), stage.log()), 90)


def test_a_namespace_that_is_being_deleted_comes_to_its_end(stage: Stage) -> None:
    stage.kubectl("create", "namespace", f"{stage.namespace}-b")
    inner = Stage(stage.cluster, f"{stage.namespace}-b", Path())
    stage.leading(WHIMBREL_NAMESPACES=f"{stage.namespace}-b")
    for name in ("one", "two"):
        inner.apply("Migration", name, **ENDS)
        inner.settled("Migration", name)
    inner.apply("Validation", "check", migrationRef={"name": "one"})
    stage.cluster.kubectl("delete", "namespace", inner.namespace, "--timeout=90s", timeout=100)


def test_workers_go_on_when_the_operator_is_told_to_stop(stage: Stage) -> None:
    operator = stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    until(lambda: any(name.startswith("job") for name in stage.left()), stage.log)
    operator.stop()
    assert any(name.startswith("job") for name in stage.left())
    assert stage.get("migration", "shop")["metadata"]["finalizers"] == ["whimbrel.dev/finalizer"]


def test_a_reverse_sync_waits_for_its_migration_and_goes_when_nothing_was_made(stage: Stage) -> None:
    stage.leading()
    stage.apply("ReverseSync", "back", migrationRef={"name": "shop"})
    until(lambda: stage.condition("ReverseSync", "back", "Ready").get("reason") == "Waiting", stage.log)
    stage.apply("Migration", "shop", **ENDS)
    stage.stalled("ReverseSync", "back", "NoWayBack")
    stage.kubectl("delete", "reversesync", "back", "--timeout=30s")


def test_a_spec_that_the_types_refuse_is_stalled_until_it_is_corrected(stage: Stage) -> None:
    """The API server's \\s knows ASCII only, the types' knows the no-break space."""
    operator = stage.leading()
    hostile = {"mysql": SOURCE["mysql"] | {"host": "db\u00a01"}}
    stage.apply("Migration", "shop", source=hostile, target=TARGET)
    found = stage.stalled("Migration", "shop", "InvalidSpec")
    assert "spec.source.mysql.host" in found["message"]
    assert stage.get("migration", "shop")["status"]["observedGeneration"] == 1
    assert "Traceback" not in operator.log()
    stage.apply("Migration", "shop", **ENDS)
    stage.settled("Migration", "shop")


def test_what_the_cluster_refuses_stalls_the_migration_until_it_is_allowed(stage: Stage) -> None:
    stage.leading()
    stage.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    stage.apply("Migration", "shop", **ENDS)
    found = stage.stalled("Migration", "shop", "Refused")
    assert "exceeded quota: none" in found["message"]
    stage.kubectl("delete", "quota", "none")
    stage.settled("Migration", "shop")
    assert stage.condition("Migration", "shop", "Stalled")["status"] == "False"


def test_a_validation_is_woken_by_its_migration(stage: Stage) -> None:
    stage.leading()
    stage.apply("Validation", "check", migrationRef={"name": "shop"})
    until(lambda: "not found" in stage.condition("val", "check", "Reconciling").get("message", ""), stage.log)
    stage.apply("Migration", "shop", **ENDS)
    began = time.monotonic()
    until(lambda: "is in" in stage.condition("val", "check", "Reconciling").get("message", ""), stage.log)
    assert time.monotonic() - began < 3, "only the timer had woken it"


def test_the_figures_can_be_scraped_and_end_with_their_resource(stage: Stage) -> None:
    operator = stage.leading()
    stage.apply("Migration", "shop", **ENDS)
    stage.settled("Migration", "shop")
    labels = {"namespace": stage.namespace, "name": "shop", "phase": "Preflight"}
    until(lambda: ("whimbrel_migration_phase", labels, 1.0) in samples(operator), stage.log)
    until(lambda: passes(operator) >= 2, stage.log)
    found = {name: value for name, _, value in samples(operator)}
    assert found["whimbrel_leader"] == 1
    assert "whimbrel_migration_lag_seconds" not in found
    stage.kubectl("delete", "migration", "shop", "--timeout=90s")
    assert not [labels for _, labels, _ in samples(operator) if labels.get("name") == "shop"]


def passes(operator: OperatorProcess) -> float:
    return sum(value for name, _, value in samples(operator) if name == "whimbrel_reconcile_seconds_count")


def samples(operator: OperatorProcess) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(operator.probe("/metrics")[1])
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def test_liveness_fails_while_the_api_server_hangs_and_comes_back_with_it(stage: Stage) -> None:
    operator = stage.leading(
        WHIMBREL_STALLED_AFTER="3s",
        WHIMBREL_PASS_TIMEOUT="2s",
        WHIMBREL_LEASE_DURATION="120s",
        WHIMBREL_LEASE_RENEW_DEADLINE="100s",
    )
    stage.apply("Migration", "shop", **ENDS)
    stage.settled("Migration", "shop")
    assert operator.probe("/healthz")[0] == 200
    with hung(stage.cluster):
        until(lambda: operator.probe("/healthz")[0] == 503, operator.log)
        assert f"{stage.namespace}/Migration/shop" in operator.probe("/healthz")[1]
    until(lambda: operator.probe("/healthz")[0] == 200, operator.log)
    assert "Traceback" not in operator.log()


def test_a_hung_api_server_costs_the_lease_and_the_process_ends_by_itself(stage: Stage) -> None:
    operator = stage.leading()
    with hung(stage.cluster):
        began = time.monotonic()
        assert code(operator) == 1
        assert time.monotonic() - began < 4 + 3, "it outlived its Lease"
    assert "could not be renewed for 3 s" in operator.log()
    assert "Traceback" not in operator.log()


def test_a_short_outage_is_survived(stage: Stage) -> None:
    if not stage.cluster.pids:
        pytest.skip("the API server of a cluster of one's own is not taken away")
    operator = stage.leading(WHIMBREL_LEASE_DURATION="60s", WHIMBREL_LEASE_RENEW_DEADLINE="50s")
    stage.apply("Migration", "shop", **ENDS, paused=True)
    stage.paused("True")
    stage.cluster.stop_api_server()
    stage.says(operator, "cannot renew the Lease")
    stage.cluster.start_api_server()
    stage.kubectl("patch", "mig", "shop", "--type=merge", "-p", '{"spec":{"paused":false}}')
    stage.paused("False")
    assert operator.process is not None
    assert operator.process.poll() is None
    assert "Traceback" not in operator.log()


def test_what_is_missing_at_the_start_is_told_with_the_command_and_waited_for(tmp_path: Path) -> None:
    with kubernetes_cluster(nodes=False) as bare, staged(bare, "default", tmp_path) as stage:
        folder = tmp_path / "account"
        folder.mkdir()
        stage.kubectl("create", "serviceaccount", "operator")
        (folder / "token").write_text(stage.kubectl("create", "token", "operator").strip())
        (folder / "namespace").write_text("default")
        (folder / "ca.crt").write_text(authority(stage))
        host, port = bare.server.removeprefix("https://").split(":")
        bare.stop_api_server()
        operator = stage.operator(
            KUBECONFIG="",
            KUBERNETES_SERVICE_HOST=host,
            KUBERNETES_SERVICE_PORT=port,
            WHIMBREL_SERVICE_ACCOUNT=str(folder),
            WHIMBREL_NAMESPACES="",
        )
        stage.says(operator, "cannot begin yet, tries again: the API server cannot be reached")
        bare.start_api_server()
        stage.says(operator, "kubectl apply --server-side -f crds/")
        assert operator.probe("/healthz")[0] == 200
        assert operator.probe("/readyz")[0] == 503
        bare.install(CRDS)
        stage.says(operator, "lacks rights: list migrations.whimbrel.dev in all namespaces.*helm upgrade --install")
        rights = ("--clusterrole=cluster-admin", "--serviceaccount=default:operator")
        stage.cluster.kubectl("create", "clusterrolebinding", "operator", *rights)
        stage.leads(operator, 45)
        stage.apply("Migration", "shop", **ENDS)
        stage.settled("Migration", "shop")
        assert "Traceback" not in operator.log()
        assert (folder / "token").read_text() not in operator.log()


def authority(stage: Stage) -> str:
    found = json.loads(stage.kubectl("get", "configmap", "kube-root-ca.crt", "-o", "json"))
    return str(found["data"]["ca.crt"])
