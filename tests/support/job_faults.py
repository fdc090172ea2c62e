"""A migration whose pods run on a node of the test's own, and what is done to their processes, nodes and statuses."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import kubernetes

from support.churn import CHURNED
from support.cluster_run import NAME, ClusterRun
from support.node import TestNode, eventually
from whimbrel_api.base import GROUP, VERSION
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

Json = dict[str, Any]
KILLED = 137


@dataclass
class FaultyNode(TestNode):
    """A node that gives every container the environment which the test wishes, and that may be lost."""

    __test__ = False
    others: list[str] = field(default_factory=list)

    @property
    def environment_file(self) -> Path:
        return self.directory / "environment"

    def start(self) -> None:
        self.options = ["--environment-file", str(self.environment_file)]
        super().start()

    def give(self, **variables: str) -> None:
        """What the containers that start from now on find in their environment beside what they ask for."""
        fresh = self.environment_file.with_suffix(".new")
        fresh.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        fresh.replace(self.environment_file)

    def receives(self) -> None:
        """From now on pods start on this node only."""
        self.cluster.kubectl("uncordon", self.name)
        self.cluster.kubectl("cordon", *self.others)

    def is_passed_over(self) -> None:
        """From now on pods start on the other nodes only."""
        self.cluster.kubectl("uncordon", *self.others)
        self.cluster.kubectl("cordon", self.name)

    def is_given_up(self) -> None:
        """A person says that it will not come back, by deleting it; the cluster then fails its pods within a minute."""
        self.cluster.kubectl("delete", "node", self.name)

    def freeze(self) -> None:
        """The agent neither does nor says anything, its pods' processes stay as they are."""
        self.agent.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.agent.send_signal(signal.SIGCONT)

    def worker_log(self, pod: Json) -> str:
        """The log of a pod that the API server may have forgotten."""
        uid = str(pod["metadata"]["uid"])
        return (self.directory / "node" / "pods" / uid / "containers" / "worker" / "0.log").read_text()


@contextmanager
def faulty_node(cluster: KubernetesCluster, directory: Path) -> Iterator[FaultyNode]:
    """The one node on which pods start; what was there before is there again afterwards."""
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    others = [each["metadata"]["name"] for each in nodes if not each["spec"].get("unschedulable")]
    node = FaultyNode(cluster, directory, others=others)
    node.start()
    try:
        node.receives()
        yield node
    finally:
        cluster.kubectl("uncordon", *others)
        if node.agent.poll() is None:
            node.thaw()
            node.stop()
        cluster.kubectl("delete", "node", node.name, "--ignore-not-found", "--wait=false")


class FaultRun(ClusterRun):
    """A ClusterRun whose pods, connections and status can be got at."""

    @cached_property
    def _pods(self) -> kubernetes.client.CoreV1Api:
        return kubernetes.client.CoreV1Api(self._api.api_client)

    def pods(self, task: str = "") -> list[Json]:
        """The pods of a task as the API server has them, the oldest first."""
        labels = f"whimbrel.dev/task={task}" if task else ""
        answer: Any = self._pods.list_namespaced_pod(self.namespace, label_selector=labels, _preload_content=False)
        found: list[Json] = json.loads(answer.data)["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def until_running(self, task: str, but: str = "") -> Json:
        """The running pod of a task, another one than `but` (a uid)."""

        def look() -> Json:
            fresh = [pod for pod in self.pods(task) if pod["metadata"]["uid"] != but and "running" in state_of(pod)]
            return fresh[-1] if fresh else {}

        self.until_true(lambda: bool(look()), f"a pod of {task} runs")
        return look()

    def until_killed(self, task: str) -> None:
        """Wait until a pod of the task has ended by SIGKILL."""

        def killed() -> bool:
            return any(state_of(pod).get("terminated", {}).get("exitCode") == KILLED for pod in self.pods(task))

        self.until_true(killed, f"a pod of {task} is killed")

    def task_of(self, kind: str) -> str:
        """The task of the one Job of a kind of resource."""
        (job,) = (each for each in self.items("jobs") if each["metadata"]["labels"]["whimbrel.dev/kind"] == kind)
        return str(job["metadata"]["labels"]["whimbrel.dev/task"])

    def apply_validation(self, name: str, **spec: Any) -> None:
        body = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "Validation", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def validation(self, name: str) -> Json:
        """The status of a Validation."""
        told = (GROUP, VERSION, self.namespace, "validations", name)
        found = cast(Json, self._api.get_namespaced_custom_object(*told))
        return cast(Json, found.get("status") or {})

    def give_up(self, pod: Json) -> None:
        """What the cluster does to the pods of a node that was deleted: marked as failed, and gone without a word."""
        name = pod["metadata"]["name"]
        moved = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        told = {"status": {"phase": "Failed", "conditions": [moved]}}
        self.kubectl("patch", "pod", name, "--subresource=status", "-p", json.dumps(told))
        self.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")

    def chunks_done(self) -> int:
        return int(self.move.look("SELECT count(*) FROM whimbrel.chunks WHERE state = 'done'")[0][0])

    def copied(self) -> dict[str, int]:
        """Rows that the chunks count as copied, by table."""
        found = self.move.look("SELECT tbl, sum(copied)::int FROM whimbrel.chunks GROUP BY tbl")
        return {name.removeprefix(f"{self.database}."): count for name, count in found}

    def began(self) -> list[tuple[Any, ...]]:
        """What the target knows of the migration and must never be begun anew: epoch and start position."""
        return self.move.look("SELECT epoch, start_position FROM whimbrel.migrations")

    def until_equal(self) -> None:
        """No traffic any more: the target becomes what the source is."""
        last: list[str] = []

        def equal() -> bool:
            last[:] = self.differences(CHURNED)
            return not last

        try:
            self.until_true(equal, "source and target are equal", 40)
        except AssertionError as error:
            raise AssertionError(f"{last[:5]}\n{error}") from None

    def tamper(self, *operations: Json) -> None:
        """A JSON patch of the status subresource, by hand."""
        told = ("--subresource=status", "--type=json", "-p", json.dumps(operations))
        self.kubectl("patch", "migration", NAME, *told)

    def sessions(self) -> list[tuple[Any, ...]]:
        """Sessions in the target's database beside the one that asks; without one there is no lock."""
        return self.move.look(
            "SELECT application_name, state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def readers(self) -> list[tuple[Any, ...]]:
        """Connections of the migration's account in the source."""
        with closing(self.mysql.connect()) as connection, connection.cursor() as cursor:
            told = "SELECT id, command, info FROM information_schema.processlist WHERE user = %s"
            cursor.execute(told, (self.mysql.migration.user,))
            return list(cursor.fetchall())

    def until_nobody_is_connected(self) -> None:
        """Servers notice the end of a connection a moment after the process that held it."""
        self.until_true(lambda: not self.readers(), "no connection in the source", 10)
        self.until_true(lambda: not self.sessions(), "no session in the target", 10)


def state_of(pod: Json) -> Json:
    """The state of the pod's one container, empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    state: Json = statuses[0]["state"] if statuses else {}
    return state


def process_of(pod: Json) -> int:
    """The process id of a pod on a node of the test bed."""
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def until_ended(pid: int) -> None:
    """Wait until a process has ended, though nobody may have asked how."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(ended, 90)


def exit_code(pid: int) -> int | None:
    """How a process ended whose parent has not asked yet; None where it has (proc(5), the last field of stat)."""
    try:
        status = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[-1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return os.waitstatus_to_exitcode(status)
