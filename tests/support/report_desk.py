"""A WorkerReport on a real API server with a worker's account that may do what a worker may, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.relay import HOST, Relay
from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import ReportResource, TaskFile
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

JOB, ACCOUNT = "job", "worker"
WAIT_SECONDS = 30.0


@dataclass
class ReportDesk:
    """Reports `job-0` … of one namespace, the folder that a pod would have, and the workers started with it."""

    cluster: KubernetesCluster
    namespace: str
    directory: Path
    way: Relay | None = None
    """What stands between the workers and the API server, if anything does."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prepare(self, reports: int = 2) -> None:
        """Make the reports, the account, its rights and its files."""
        names = [f"{JOB}-{index}" for index in range(reports)]
        rules = [_rule("workerreports", "get", names), _rule("workerreports/status", "patch", names)]
        rbac = "rbac.authorization.k8s.io"
        self._apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": ACCOUNT}, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": ACCOUNT},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}],
            },
            *(_report(name) for name in names),
        )
        (self.directory / "access").mkdir()
        (self.directory / "task").mkdir()
        self.write_token(self.fresh_token())
        until(lambda: self._authority() != "", "the namespace's kube-root-ca.crt")
        (self.directory / "access" / "ca.crt").write_text(self._authority())

    def fresh_token(self) -> str:
        return self.kubectl("create", "token", ACCOUNT, "--duration=1h").strip()

    def write_token(self, token: str) -> None:
        """As the kubelet does: the new file takes the old one's place at once."""
        fresh = self.directory / "access" / "..new"
        fresh.write_text(token)
        fresh.replace(self.directory / "access" / "token")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def order(self, index: int = 0, **orders: Any) -> None:
        patch = json.dumps({"spec": {"orders": orders}})
        self.kubectl("patch", "workerreport", f"{JOB}-{index}", "--type=merge", "-p", patch)

    def report(self, index: int = 0) -> WorkerReport | None:
        """What the report says now."""
        status = self.status(index)
        return WorkerReport.model_validate(status) if status else None

    def status(self, index: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "workerreport", f"{JOB}-{index}", "-o", "json"))
        status: dict[str, Any] = found.get("status") or {}
        return status

    def file(self, task: TaskFile) -> TaskFile:
        """The task as a pod is told it: reports to the WorkerReport."""
        resource = ReportResource(namespace=self.namespace, name=JOB, access="../access")
        return task.model_copy(update={"report_file": "", "orders_file": "", "report_resource": resource})

    @property
    def environment(self) -> dict[str, str]:
        """What Kubernetes tells a pod; no answer ever comes from a proxy."""
        host, port = self.address()
        if self.way is not None:
            host, port = HOST, self.way.port
        pod = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        return pod | dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")

    def address(self) -> tuple[str, int]:
        server = urlsplit(self.cluster.server)
        return server.hostname or "", server.port or 443

    def start(self, task: TaskFile, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker; its log is appended to `log`."""
        return self.start_text(self.file(task).model_dump_json(by_alias=True), **environment)

    def start_text(self, text: str, **environment: str) -> subprocess.Popen[bytes]:
        path = self.directory / "task" / "task.json"
        path.write_text(text)
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "whimbrel_worker", str(path)],
                env=os.environ | self.environment | environment,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def run(self, task: TaskFile, **environment: str) -> int:
        return self.start(task, **environment).wait(WAIT_SECONDS)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", input=json.dumps(items))

    def _authority(self) -> str:
        arguments = ("get", "configmap", "kube-root-ca.crt", "--ignore-not-found", "-o", r"jsonpath={.data.ca\.crt}")
        return self.kubectl(*arguments)


def _report(name: str) -> dict[str, Any]:
    return {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "WorkerReport", "metadata": {"name": name}, "spec": {}}


def _rule(resource: str, verb: str, names: list[str]) -> dict[str, Any]:
    return {"apiGroups": ["whimbrel.dev"], "resources": [resource], "resourceNames": names, "verbs": [verb]}


def until(reached: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
