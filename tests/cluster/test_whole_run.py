"""What the whole run (tests/e2e) does when it does not come to its end: nothing of it stays in the cluster."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from support.helm import Helm
from support.inventory import everything
from support.site import SHOP, SYSTEM, Site, definitions
from whimbrel_cli.demo.shell import Shell
from whimbrel_operator.handlers import FINALIZER
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "mysql-to-aurora-dsql.yaml"

pytestmark = pytest.mark.slow


def _site(cluster: KubernetesCluster, folder: Path) -> Site:
    shell = Shell(Console(file=StringIO(), width=150), cluster.kubeconfig, folder)
    return Site(cluster, shell, Helm(shell, SYSTEM), "agent", frozenset(everything(cluster)), seconds=20)


def _said(site: Site) -> str:
    assert isinstance(site.console.file, StringIO)
    return site.console.file.getvalue()


def test_an_interrupted_run_leaves_nothing_though_no_operator_runs(cluster: KubernetesCluster, tmp_path: Path) -> None:
    (migration,) = [
        each for each in yaml.safe_load_all(EXAMPLE.read_text("utf-8")) if each and each["kind"] == "Migration"
    ]
    migration["metadata"] = {"name": "flights", "finalizers": [FINALIZER]}
    site = _site(cluster, tmp_path)
    for name in (SYSTEM, SHOP):
        cluster.kubectl("create", "namespace", name)
    cluster.kubectl("create", "-n", SHOP, "-f", "-", input=json.dumps(migration))
    with pytest.raises(KeyboardInterrupt), site.minded():
        raise KeyboardInterrupt
    assert site.namespaces() == []
    said = _said(site)
    assert "Interrupted" in said
    assert "$ kubectl delete migration.whimbrel.dev/flights -n whimbrel-e2e" in said
    assert "$ kubectl patch migration.whimbrel.dev/flights -n whimbrel-e2e" in said
    assert "Still in the cluster" not in said


def test_where_nothing_was_made_nothing_is_done(cluster: KubernetesCluster, tmp_path: Path) -> None:
    site = _site(cluster, tmp_path)
    site.tidy()
    assert "$" not in _said(site)
    assert len(definitions(cluster)) == 4
