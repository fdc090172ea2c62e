"""The chart rendered and checked without a cluster: schemas, values, rights. On a cluster: see test_install."""

from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "whimbrel"
KUBERNETES = "1.36"
VALUES: list[dict[str, Any]] = [
    {},
    {"namespaces": ["shop", "stock"], "replicas": 1, "metrics": {"service": False}},
    {"image": {"repository": "registry.example/whimbrel", "digest": "sha256:" + "0" * 64}, "logFormat": "json"},
    {
        "serviceAccount": {"create": False, "name": "mine"},
        "imagePullSecrets": [{"name": "pull"}],
        "podAnnotations": {"a": "1"},
        "podLabels": {"b": "2"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "databases", "operator": "Exists"}],
        "priorityClassName": "high",
        "fullnameOverride": "x" * 52,
    },
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image": {"tog": "1"}}, "tog"),
    ({"image": {"repository": ""}}, "repository"),
    ({"image": {"digest": "sha256:short"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": "two"}, "replicas"),
    ({"namespaces": "shop"}, "namespaces"),
    ({"namespaces": ["shop", "shop"]}, "namespaces"),
    ({"logFormat": "xml"}, "logFormat"),
    ({"workers": {}}, "workers"),
]


def rendered(values: dict[str, Any], name: str = "whimbrel") -> list[dict[str, Any]]:
    """All objects of the chart, its notes and its CRDs apart."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=name, namespace="whimbrel-system")
    texts = [text for file, text in sorted(files.items()) if file.endswith(".yaml") and "/crds/" not in file]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] == kind]


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_every_object_passes_the_strict_schemas(values: dict[str, Any]) -> None:
    objects = rendered(values)
    assert len(of_kind(objects, "Deployment")) == 1
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(("values", "named"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_wrong_values_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=named):
        rendered(values)


def test_an_account_of_ones_own_needs_a_name() -> None:
    with pytest.raises(helm_python.HelmError, match=r"serviceAccount\.name is needed"):
        rendered({"serviceAccount": {"create": False}})


def test_lint_finds_nothing_wrong() -> None:
    assert helm_python.lint(str(CHART))["errors"] == []


def test_the_pod_meets_the_restricted_standard() -> None:
    pod = of_kind(rendered({}), "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_named_namespaces_get_roles_of_their_own_and_nothing_else_is_touched() -> None:
    objects = rendered({"namespaces": ["shop", "stock"]})
    assert of_kind(objects, "ClusterRoleBinding") == []
    bound = {each["metadata"]["namespace"] for each in of_kind(objects, "RoleBinding")}
    assert bound == {"shop", "stock", "whimbrel-system"}


def test_workers_run_the_operators_image() -> None:
    container = of_kind(rendered(VALUES[2]), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["WHIMBREL_WORKER_IMAGE"] == container["image"] == "registry.example/whimbrel@sha256:" + "0" * 64


def test_two_releases_do_not_share_a_name() -> None:
    first, second = rendered({}, "one"), rendered({}, "two")
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in (first, second)]
    assert not names[0] & names[1]
