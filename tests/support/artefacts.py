"""What is kept of a cluster when a run on it fails; a Secret's value is in none of it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes import standing
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

_OURS = "migrations,validations,reversesyncs,workerreports"
_LINES = "5000"


def keep(cluster: KubernetesCluster, namespaces: Sequence[str], folder: Path) -> None:
    """Write into the folder what a person needs to see why it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = {
        "nodes.txt": ["describe", "nodes"],
        "pods.txt": ["get", "pods", "-A", "-o", "wide"],
        "events.txt": ["get", "events", "-A", "--sort-by=.lastTimestamp"],
    }
    for namespace in namespaces:
        questions |= _questions(cluster, namespace)
    for name, arguments in questions.items():
        (folder / name).write_text(_answer(cluster, arguments), encoding="utf-8")


def _questions(cluster: KubernetesCluster, namespace: str) -> dict[str, list[str]]:
    where = ["-n", namespace]
    pods = _answer(cluster, [*where, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).split()
    return {
        f"{namespace}.pods.txt": [*where, "describe", "pods"],
        f"{namespace}.objects.txt": [*where, "get", "jobs,deployments,replicasets,leases,configmaps", "-o", "wide"],
        f"{namespace}.whimbrel.yaml": [*where, "get", _OURS, "-o", "yaml"],
        **{f"{namespace}.{pod}.log": [*where, "logs", pod, "--all-containers", "--tail=-1"] for pod in pods},
    }


def _answer(cluster: KubernetesCluster, arguments: Sequence[str]) -> str:
    """What kubectl says, or why it says nothing: the rest is asked for all the same."""
    try:
        return cluster.kubectl(*arguments)
    except TestbedError as error:
        return f"{error}\n"


def keep_servers(folder: Path) -> None:
    """Write what the test bed's control plane and node have printed last."""
    try:
        state = standing.known()
    except TestbedError as error:
        (folder / "cluster.txt").write_text(f"{error}\n", encoding="utf-8")
        return
    for name, log in state.logs.items() if state is not None else ():
        with (folder / f"{name}.log").open("wb") as copy:
            subprocess.run(["tail", "-n", _LINES, log], stdout=copy, stderr=subprocess.STDOUT, check=False)
