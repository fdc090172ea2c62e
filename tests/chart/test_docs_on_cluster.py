"""The docs' lines of kubectl and helm on a real cluster that has the chart installed, and all that they name.

How a line is adapted says support/docs_cluster.py: what would change something is sent as a dry run of the server.
What an install, an upgrade and an uninstall come to is shown by test_install_hooks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from support.chart import CHART, IMAGE, rendered
from support.docs_cluster import Helm, helm, kubectl, merged
from support.docs_commands import PAGES, ROOT, Block, Command, blocks, commands, inline, simple
from support.patience import eventually
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, kubernetes_cluster
from whimbrel_testbed.kubernetes.kubectl import kubectl_binary

SYSTEM = "whimbrel-system"
PLACES = ("default", "flights", "shop", "argocd")
VALUES: dict[str, Any] = {"image": IMAGE, "crds": {"enabled": False}, "namespaces": [SYSTEM], "replicas": 1}
FILES = ("username", "password", "ca.crt", "accessKeyId", "secretAccessKey")
pytestmark = pytest.mark.timeout(300)


def _listed(program: str) -> list[Command]:
    """Those of a program that a test can run, each once: of blocks, and of sentences where they are whole."""
    written = [each for each in commands() if not each.needs]
    written += [each for each in inline() if "…" not in each.text and len(each.words) > 2]
    ours = [each for each in written if each.words[0] == program and each.words[1] != "whimbrel"]
    return list({each.words: each for each in ours if program != "helm" or "-n" in each.words}.values())


KUBECTL, HELM = _listed("kubectl"), _listed("helm")


@dataclass(frozen=True)
class Stage:
    """The cluster, and a folder that looks as the tree does to a reader, with a Secret's files in it."""

    cluster: KubernetesCluster
    folder: Path

    def run(self, arguments: tuple[str, ...], given: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as a reader's shell would run it, whose editor changes nothing."""
        environment = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig), "KUBE_EDITOR": "true"}
        return subprocess.run(
            [str(kubectl_binary()), *arguments], cwd=self.folder, env=environment, input=given, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("reader")
    for each in ("charts", "crds", "examples"):
        (folder / each).symlink_to(ROOT / each)
    for each in FILES:
        (folder / each).write_text("swordfish")
    with kubernetes_cluster(crds=ROOT / "crds") as cluster:
        for each in (SYSTEM, *PLACES[1:]):
            cluster.kubectl("create", "namespace", each)
            cluster.kubectl("wait", "--for=create", "-n", each, "serviceaccount/default", "--timeout=60s")
        with helm_python.Config(kubeconfig_path=str(cluster.kubeconfig), namespace=SYSTEM) as config:
            config.install(str(CHART), "whimbrel", VALUES, wait="watcher", timeout=120)
        cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": _things()}))
        for each in PLACES[:3]:
            # As long as nothing has begun, a reader may still put other ends into a Migration.
            begins = ("--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Pending"}}')
            cluster.kubectl("-n", each, "patch", "migrations", "flights", "shop", *begins)
            cluster.kubectl("-n", each, "wait", "--for=condition=Complete", "job/job", "--timeout=60s")
        yield Stage(cluster, folder)


def _things() -> list[dict[str, Any]]:
    """All that the docs name, where they name it. No operator looks after these namespaces."""
    found = [_job("whimbrel-uninstall", SYSTEM), _object("v1", "ConfigMap", "argocd-cm", "argocd")]
    for place in PLACES[:3]:
        found += [_migration(name, place) for name in ("flights", "shop")]
        found += [
            _custom("ReverseSync", name, place, {"migrationRef": {"name": "flights"}}) for name in ("back", "flights")
        ]
        found += [_custom("Validation", "flights", place, {"migrationRef": {"name": "flights"}})]
        found += [_object("v1", "ConfigMap", "shop", place), _object("v1", "Secret", "flights", place)]
        found += [_job("job", place), _object("v1", "Pod", "pod", place) | {"spec": _pod()}]
    return found


def _object(version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _custom(kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _object("whimbrel.dev/v1alpha1", kind, name, namespace) | {"spec": spec}


def _migration(name: str, namespace: str) -> dict[str, Any]:
    end = {"region": "us-east-1", "credentialsSecretRef": {"name": "keys"}}
    polardb = {"host": "polardb.example", "credentialsSecretRef": {"name": "keys"}}
    spec = {
        "source": {"dynamodb": end},
        "target": {"dynamodb": {**end, "endpoint": "http://polardb.example:5432"}},
        "reverseSync": {"enabled": True, "polardb": polardb},
    }
    return _custom("Migration", name, namespace, spec)


def _pod() -> dict[str, Any]:
    return {"restartPolicy": "Never", "containers": [{"name": "a", "image": "none", "command": ["echo", "said"]}]}


def _job(name: str, namespace: str) -> dict[str, Any]:
    return _object("batch/v1", "Job", name, namespace) | {"spec": {"template": {"spec": _pod()}}}


@pytest.mark.parametrize("command", KUBECTL, ids=lambda each: " ".join(each.words)[:90])
def test_kubectl_takes_it(stage: Stage, command: Command) -> None:
    line = kubectl(command.words[1:])
    done = stage.run(line.arguments, _given(command))
    allowed = bool(line.may_fail) and line.may_fail in done.stderr
    assert done.returncode == 0 or allowed, f"{command.place}: {' '.join(line.arguments)}\n{done.stderr}"
    # The API server drops a field that it does not know, and only warns.
    assert not [word for word in ("unknown field", "deprecated") if word in done.stderr], done.stderr


def _given(command: Command) -> str | None:
    """What stands before a pipe: Helm's templates."""
    first = simple(command.text)[0]
    if first[0] != "helm":
        return None
    told = helm(first[1:])
    with helm_python.Chart.load(str(CHART)) as chart:
        files: dict[str, str] = chart.render(told.values, name=told.release, namespace=told.namespace)
    return "\n---\n".join(text for name, text in files.items() if name.endswith(".yaml") and "helm.sh/hook" not in text)


@pytest.mark.parametrize("command", HELM, ids=lambda each: " ".join(each.words)[:90])
def test_helm_takes_it(stage: Stage, command: Command) -> None:
    told = helm(command.words[1:])
    with helm_python.Config(kubeconfig_path=str(stage.cluster.kubeconfig), namespace=told.namespace) as config:
        _do(config, told)


def _do(config: helm_python.Config, told: Helm) -> None:
    chart = str(ROOT / told.chart)
    if told.verb == "install":
        config.install(chart, told.release, told.values, dry_run="client", timeout=60)
    elif told.verb == "upgrade":
        config.upgrade(chart, told.release, merged(VALUES, told.values), dry_run="server", timeout=60)
    elif told.verb == "template":
        with helm_python.Chart.load(chart) as loaded:
            assert loaded.render(told.values, name=told.release, namespace=told.namespace)
    elif told.verb == "uninstall":
        config.uninstall(told.release, dry_run=True)
    elif told.verb == "rollback":
        config.rollback(told.release, version=told.revision, dry_run="server", timeout=60)
    elif told.verb == "history":
        assert config.history(told.release)
    else:
        config.test(told.release, timeout=120)


def _values() -> list[Block]:
    """The blocks of YAML that are no manifests."""
    found = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    return [block for block in found if not block.lines[0].startswith("apiVersion: ")]


@pytest.mark.parametrize("block", _values(), ids=lambda each: each.place)
def test_the_chart_takes_the_values_that_are_shown(block: Block) -> None:
    kinds = [each["kind"] for each in rendered(yaml.safe_load("\n".join(block.lines)))]
    assert {"Deployment", "NetworkPolicy"} <= set(kinds)


def test_the_operator_of_the_release_works(stage: Stage) -> None:
    """So that what its lines say of it was true while they ran."""
    ready = ("-n", SYSTEM, "get", "deployment", "whimbrel", "-o", "jsonpath={.status.readyReplicas}")
    eventually(lambda: stage.cluster.kubectl(*ready) == "1", lambda: stage.cluster.kubectl("-n", SYSTEM, "get", "pods"))
