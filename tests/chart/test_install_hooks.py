"""The chart's life on a real cluster: tested, upgraded from the version before, refused to go, gone without a trace.

The cluster is one of its own, because definitions come and go in it. `previous` is the chart of the version before.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest

from support.chart import CHART, IMAGE, REVERSE
from support.inventory import everything
from support.patience import eventually
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, kubernetes_cluster

PREVIOUS, CRDS = Path(__file__).parent / "previous", CHART.parents[1] / "crds"
README = (CHART / "README.md").read_text(encoding="utf-8")
SYSTEM, SHOP = "whimbrel-system", "shop"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def empty() -> Iterator[KubernetesCluster]:
    """A cluster that has never heard of Whimbrel."""
    with kubernetes_cluster() as running:
        yield running


@pytest.fixture
def helm(empty: KubernetesCluster) -> Iterator[helm_python.Config]:
    """Helm in the operator's namespace, beside one for resources. Afterwards nothing may be left in the cluster."""
    before = everything(empty)
    for each in (SYSTEM, SHOP):
        empty.kubectl("create", "namespace", each)
        empty.kubectl("wait", "--for=create", "-n", each, "serviceaccount/default", "--timeout=60s")
    empty.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    with helm_python.Config(kubeconfig_path=str(empty.kubeconfig), namespace=SYSTEM) as config:
        yield config
    empty.kubectl("delete", "namespace", SYSTEM, SHOP, "--ignore-not-found", "--timeout=60s")
    eventually(lambda: everything(empty) <= before, lambda: everything(empty) - before)


def install(helm: helm_python.Config, chart: Path = CHART, **values: Any) -> None:
    helm.install(str(chart), "whimbrel", {"image": IMAGE, **values}, wait="watcher", timeout=120)


def start_one(cluster: KubernetesCluster) -> None:
    """A resource that the operator has taken charge of."""
    cluster.kubectl("-n", SHOP, "apply", "-f", "-", input=json.dumps(REVERSE))
    eventually(lambda: "whimbrel.dev/finalizer" in finalizers(cluster), lambda: finalizers(cluster))


def finalizers(cluster: KubernetesCluster) -> str:
    return cluster.kubectl("-n", SHOP, "get", "reversesyncs", "back", "-o", "jsonpath={.metadata.finalizers}")


def end_it(cluster: KubernetesCluster) -> None:
    cluster.kubectl("-n", SHOP, "delete", "migrations,validations,reversesyncs", "--all", "--timeout=30s")


def readme(beginning: str) -> list[list[str]]:
    """The words of those kubectl commands of the chart's README that begin so; there is one at least."""
    found = re.findall(rf"^kubectl {re.escape(beginning)}.*$", README, re.MULTILINE)
    assert found, beginning
    return [shlex.split(line)[1:] for line in found]


def test_it_says_that_it_works_and_leaves_nothing(empty: KubernetesCluster, helm: helm_python.Config) -> None:
    before = everything(empty)
    install(helm, crds={"keep": False})
    told = helm.test("whimbrel", timeout=120, logs=True)
    assert "the operator is ready and one of it leads" in told["logs"]
    assert empty.kubectl("-n", SYSTEM, "get", "lease", "whimbrel-operator", "-o", "name")
    helm.uninstall("whimbrel", timeout=150)
    eventually(lambda: everything(empty) <= before, lambda: everything(empty) - before)


def test_it_does_not_go_while_a_resource_waits_for_it(empty: KubernetesCluster, helm: helm_python.Config) -> None:
    install(helm, crds={"keep": False})
    start_one(empty)
    before = everything(empty)
    with pytest.raises(helm_python.HelmError, match="whimbrel-uninstall"):
        helm.uninstall("whimbrel", timeout=150)
    log = empty.kubectl("-n", SYSTEM, "logs", "job/whimbrel-uninstall")
    assert "ReverseSync shop/back (phase" in log
    assert "kubectl -n shop delete migrations,validations,reversesyncs --all" in log
    gone = before - everything(empty)
    assert gone == set()
    go_on_after_a_refusal(empty, helm)
    end_it(empty)
    helm.uninstall("whimbrel", timeout=150)
    # The API server takes a definition away a moment after it was deleted.
    eventually(lambda: "CustomResourceDefinition" not in " ".join(everything(empty)), lambda: everything(empty))


def go_on_after_a_refusal(empty: KubernetesCluster, helm: helm_python.Config) -> None:
    """As the log says: back to the last revision, which is then as good as any."""
    helm.rollback("whimbrel", version=1)
    helm.upgrade(str(CHART), "whimbrel", {"image": IMAGE, "crds": {"keep": False}, "logFormat": "json"}, timeout=120)
    assert helm.status("whimbrel")["status"] == "deployed"
    assert finalizers(empty)


@pytest.mark.parametrize("definitions", ["with the chart", "by kubectl"])
def test_it_takes_over_from_the_version_before(
    empty: KubernetesCluster, helm: helm_python.Config, tmp_path: Path, definitions: str
) -> None:
    older = older_chart(tmp_path)
    if definitions == "by kubectl":
        empty.install(older / "crds")
    install(helm, older)
    start_one(empty)
    with pytest.raises(helm_python.HelmError, match="invalid ownership metadata"):
        upgrade(helm)
    hand_over(empty)
    upgrade(helm)
    assert "rsync" in empty.kubectl(
        "get", "crd", "reversesyncs.whimbrel.dev", "-o", "jsonpath={.spec.names.shortNames}"
    )
    assert finalizers(empty)
    end_it(empty)
    helm.uninstall("whimbrel", timeout=150)
    for command in readme("delete crd"):
        empty.kubectl(*command)


def hand_over(cluster: KubernetesCluster) -> None:
    """As the README says."""
    for beginning in ("label crd", "annotate crd", "patch crd"):
        for command in readme(beginning):
            cluster.kubectl(*command)


def upgrade(helm: helm_python.Config) -> None:
    helm.upgrade(str(CHART), "whimbrel", {"image": IMAGE}, wait="watcher", timeout=120)


def older_chart(folder: Path) -> Path:
    """The version before, with definitions that lack something which those of today have."""
    chart = shutil.copytree(PREVIOUS, folder / "whimbrel")
    shutil.copytree(CRDS, chart / "crds")
    file = chart / "crds" / "whimbrel.dev_reversesyncs.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("- rsync\n", "- older\n", 1), encoding="utf-8")
    assert text != file.read_text(encoding="utf-8")
    return chart


def test_a_namespace_that_it_looks_after_does_not_go_before_its_resources(
    empty: KubernetesCluster, helm: helm_python.Config
) -> None:
    """Else the operator's rights there would go first, and the finalizer stay for ever."""
    install(helm, namespaces=[SHOP], replicas=1, crds={"keep": False})
    start_one(empty)
    eventually(lambda: "ReverseSync shop/back is not ended yet" in refusal(empty), lambda: refusal(empty), seconds=30)
    assert empty.kubectl("get", "namespace", SHOP, "-o", "jsonpath={.status.phase}") == "Active"
    end_it(empty)
    empty.kubectl("delete", "namespace", SHOP, "--timeout=60s")
    helm.uninstall("whimbrel", timeout=150)


def refusal(cluster: KubernetesCluster) -> str:
    """What the API server says to the deletion of the namespace; empty while it has not yet read the policy."""
    try:
        cluster.kubectl("delete", "namespace", SHOP, "--dry-run=server")
    except TestbedError as error:
        return str(error)
    return ""
