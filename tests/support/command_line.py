"""The command line called in this process on a namespace of a cluster; what it is called with stands in the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from whimbrel_cli.main import invoke
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

Run = Callable[..., tuple[int, str, str]]
"""A command and its arguments: exit code, output, errors."""


def on_namespace(cluster: KubernetesCluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line on a namespace, as the cluster's administrator where no other `kubeconfig` is given."""

    def call(command: str, *arguments: str, kubeconfig: Path = cluster.kubeconfig) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke(["--kubeconfig", str(kubeconfig), command, *arguments, "-n", namespace])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call
