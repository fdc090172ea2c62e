"""A Migration on a real cluster, worked on by an operator process, watched, steered and ended from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import kubernetes

from support.cut import kill_connections
from support.moves import Move, Tasks
from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.migration import MigrationStatus
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.processes import free_port

WAIT_SECONDS = 90.0
NAME = "shop"
_POLL = 0.1


@dataclass
class OperatorProcess:
    """`python -m whimbrel_operator` as a process on this machine, looking after one namespace."""

    cluster: KubernetesCluster
    namespace: str
    log_file: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "whimbrel_operator"], env=self.variables(), stdout=log, stderr=log
            )

    def variables(self) -> dict[str, str]:
        """Its environment, with a free port to listen at."""
        self.port = free_port()
        told = {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "WHIMBREL_NAMESPACE": self.namespace,
            "WHIMBREL_NAMESPACES": self.namespace,
            "WHIMBREL_WORKER_IMAGE": "whimbrel:test",
            "WHIMBREL_LISTEN": f"127.0.0.1:{self.port}",
            "WHIMBREL_LEASE_DURATION": "4s",
            "WHIMBREL_LEASE_RENEW_DEADLINE": "3s",
            "WHIMBREL_LEASE_RETRY_PERIOD": "500ms",
            **self.environment,
        }
        return os.environ | told

    def kill(self) -> None:
        """As a node that loses its power."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait(WAIT_SECONDS)
            self.process = None

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of an answer of its own small web server; 0 where there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def log(self) -> str:
        return self.log_file.read_text()[-4000:] if self.log_file.exists() else ""


class MigrationRun:
    """One Migration `shop` in a namespace of its own, whatever its ends are."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, move: Tasks, **spec: Any) -> None:
        self.cluster, self.namespace, self.tasks = cluster, namespace, move
        document = {"source": move.source(), "target": move.target, "tables": move.tables, **spec}
        named = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "Migration", "metadata": {"name": NAME}}
        self.manifest: dict[str, Any] = {**named, "spec": document}
        self.operator = OperatorProcess(cluster, namespace, move.directory / "operator.log")

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def give_secrets(self) -> None:
        for name, folder in self.tasks.secrets.items():
            self.give_secret(name, Path(folder))

    def give_secret(self, name: str, folder: Path) -> None:
        """Create or replace a Secret from a folder of files."""
        told = self.kubectl(
            "create", "secret", "generic", name, f"--from-file={folder}", "--dry-run=client", "-o", "json"
        )
        self.kubectl("apply", "--server-side", "-f", "-", input=told)

    def apply(self, **spec: Any) -> None:
        """Apply the manifest, with these fields of the spec changed."""
        self.manifest["spec"] = {**self.manifest["spec"], **spec}
        self.kubectl("apply", "-f", "-", input=json.dumps(self.manifest))

    @contextmanager
    def begun(self) -> Iterator[Self]:
        """Secrets, Migration and operator; the operator ends with the block, the namespace with the test."""
        self.give_secrets()
        self.apply()
        self.operator.start()
        try:
            yield self
        finally:
            self.operator.stop()

    def patch(self, **spec: Any) -> None:
        self.kubectl("patch", "migration", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))

    def approve(self) -> None:
        self.patch(cutover={"approvedPlan": self.status().plan.hash})

    def resource(self) -> dict[str, Any]:
        """As the API server has it; asked without kubectl, which takes a tenth of a second of CPU each time."""
        told = (GROUP, VERSION, self.namespace, "migrations", NAME)
        return cast(dict[str, Any], self._api.get_namespaced_custom_object(*told))

    @cached_property
    def _api(self) -> kubernetes.client.CustomObjectsApi:
        settings = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(self.cluster.kubeconfig), client_configuration=settings)
        return kubernetes.client.CustomObjectsApi(kubernetes.client.ApiClient(settings))

    def status(self) -> MigrationStatus:
        return MigrationStatus.model_validate(self.resource().get("status", {}))

    def until(self, holds: Callable[[MigrationStatus], bool], seconds: float = WAIT_SECONDS) -> MigrationStatus:
        """Wait for a status."""
        deadline = time.monotonic() + seconds
        while not holds(status := self.status()):
            assert time.monotonic() < deadline, f"not within {seconds} s\n{status}\n{self.story()}"
            time.sleep(_POLL)
        return status

    def items(self, kinds: str) -> list[dict[str, Any]]:
        """All objects of these kinds in the namespace."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return found

    def events(self) -> list[tuple[str, str]]:
        """Reason and text of each event about the Migration."""
        return [
            (each.get("reason", ""), each.get("message", ""))
            for each in self.items("events")
            if each.get("involvedObject", {}).get("kind") == "Migration"
        ]

    def left(self) -> list[str]:
        """What the namespace still holds of all that is ever made for a Migration."""
        kinds = "jobs,pods,workerreports,configmaps,serviceaccounts,roles,rolebindings"
        usual = {"default", "kube-root-ca.crt"}
        return [
            f"{each['kind']} {each['metadata']['name']}"
            for each in self.items(kinds)
            if each["metadata"]["name"] not in usual
        ]

    def until_nothing_is_left(self, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while left := self.left():
            assert time.monotonic() < deadline, f"still there after {seconds} s: {left}\n{self.story()}"
            time.sleep(_POLL)

    def until_no_job_runs(self, seconds: float = WAIT_SECONDS) -> None:
        self.until_true(lambda: not self.items("jobs,pods"), "jobs and pods are gone", seconds)

    def until_true(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.story()}"
            time.sleep(_POLL)

    def pod_of(self, task: str) -> str:
        """The uid of the one pod that works on a task."""
        pods = [each for each in self.items("pods") if each["metadata"]["labels"].get("whimbrel.dev/task") == task]
        assert len(pods) == 1, self.story()
        return str(pods[0]["metadata"]["uid"])

    def until_pod_sees(self, key: str, value: str) -> None:
        """Wait until a file of that name in the node's folder holds the value: the node has carried a Secret over."""
        folder = self.cluster.server_process("node-agent").directory

        def seen() -> bool:
            return any(path.read_text() == value for path in folder.rglob(key) if path.is_file())

        self.until_true(seen, f"a pod sees the new {key}")

    def story(self) -> str:
        """What a person would look at when it does not go on."""
        pods = self.kubectl("get", "jobs,pods", "-o", "wide")
        return "\n".join([pods, *map(str, self.events()[-12:]), self.operator.log()])


class ClusterRun(MigrationRun):
    """One Migration from a fresh MySQL database."""

    def __init__(
        self, cluster: KubernetesCluster, namespace: str, move: Move, mysql: MySQLServer, database: str, **spec: Any
    ) -> None:
        super().__init__(cluster, namespace, move, **spec)
        self.move, self.mysql, self.database = move, mysql, database

    def execute(self, *statements: str) -> None:
        with closing(self.mysql.connect(self.database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def until_target(self, statement: str, rows: list[tuple[Any, ...]], seconds: float = WAIT_SECONDS) -> None:
        """Wait until the target answers with these rows."""
        self.until_true(lambda: self.move.look(statement) == rows, f"{statement} gives {rows}", seconds)

    def break_source_connections(self) -> None:
        """Kill every connection of the migration's account in the source."""
        with closing(self.mysql.connect()) as connection, connection.cursor() as cursor:
            kill_connections(cursor, self.mysql.migration.user)

    def differences(self, tables: list[str]) -> list[str]:
        """What a comparison that shares no code with the product finds."""
        return self.move.differences([f"{self.database}.{table}" for table in tables])
