"""The chart rendered and checked without a cluster: schemas, values, rights. On a cluster: see test_install."""

import json
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from whimbrel_api.tasks import TaskKind
from whimbrel_operator.settings import Settings
from whimbrel_operator.specs import pods_form
from whimbrel_operator.specs.settings import PodSettings, Resources, usual_resources

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
    ({"namespaces": ["Shop"]}, "namespaces"),
    ({"resources": {"limit": {}}}, "limit"),
    ({"tolerations": [{"effects": "NoSchedule"}]}, "effects"),
    ({"affinity": {"node": {}}}, "node"),
    ({"workers": {"resources": {"snap": {}}}}, "snap"),
    ({"workers": {"resources": {"check": {"limits": {"memory": "lots"}}}}}, "memory"),
    ({"workers": {"image": "mine"}}, "image"),
    ({"workers": {"terminationGracePeriodSeconds": 0}}, "terminationGracePeriodSeconds"),
]
WORKERS: dict[str, Any] = {
    "resources": {"snapshot": {"requests": {"cpu": 2}, "limits": {"memory": "4Gi"}}, "stream": {}},
    "podAnnotations": {"note": 'quotes " and <signs>'},
    "podLabels": {"team": "data"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "databases", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "high",
    "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/whimbrel"},
    "terminationGracePeriodSeconds": 90,
}


def rendered(
    values: dict[str, Any], name: str = "whimbrel", namespace: str = "whimbrel-system"
) -> list[dict[str, Any]]:
    """All objects of the chart, its notes and its CRDs apart."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=name, namespace=namespace)
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
    assert of_kind(objects, "ClusterRoleBinding") == of_kind(objects, "ClusterRole") == []
    bound = {each["metadata"]["namespace"] for each in of_kind(objects, "RoleBinding")}
    assert bound == {"shop", "stock", "whimbrel-system"}


def environment(values: dict[str, Any]) -> dict[str, str]:
    """The operator's variables that have a plain value, and its image."""
    container = of_kind(rendered(values), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    return {"image": container["image"]} | {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_workers_run_the_operators_image() -> None:
    told = environment(VALUES[2])
    assert told["WHIMBREL_WORKER_IMAGE"] == told["image"] == "registry.example/whimbrel@sha256:" + "0" * 64


def test_the_operator_reads_what_the_chart_says_about_workers() -> None:
    told = environment({"workers": WORKERS, "imagePullSecrets": [{"name": "pull"}]})
    pods = pods_form.parse(told["WHIMBREL_PODS"]).settings("image", "Always")
    assert pods.resources_of(TaskKind.SNAPSHOT) == Resources({"cpu": "2", "memory": "256Mi"}, {"memory": "4Gi"})
    assert pods.resources_of(TaskKind.STREAM) == usual_resources()[TaskKind.STREAM]
    assert (pods.annotations, pods.labels) == (WORKERS["podAnnotations"], WORKERS["podLabels"])
    assert (pods.node_selector, list(pods.tolerations)) == (WORKERS["nodeSelector"], WORKERS["tolerations"])
    assert (pods.affinity, pods.priority_class) == (WORKERS["affinity"], "high")
    assert pods.account_annotations == WORKERS["serviceAccountAnnotations"]
    assert (pods.grace, pods.image_pull_secrets) == (90, ("pull",))


def test_the_usual_values_leave_workers_as_the_code_has_them() -> None:
    told = environment({})
    assert pods_form.parse(told["WHIMBREL_PODS"]).settings("image", "Always") == PodSettings("image", "Always")
    assert (
        Settings.from_environment({**told, "WHIMBREL_NAMESPACE": "x", "KUBERNETES_SERVICE_HOST": "x"}).listen[1] == 8080
    )


def test_the_chart_offers_every_task_and_the_form_all_that_the_chart_offers() -> None:
    offered = json.loads((CHART / "values.schema.json").read_text())["properties"]["workers"]["properties"]
    assert set(offered["resources"]["properties"]) == {kind.value for kind in TaskKind}
    renamed = {"podLabels": "labels", "podAnnotations": "annotations"}
    fields = {field.alias or name for name, field in pods_form.PodsForm.model_fields.items()}
    assert {renamed.get(name, name) for name in offered} | {"imagePullSecrets"} == fields


def test_labels_of_ones_own_never_hide_the_selectors() -> None:
    deployment = of_kind(rendered({"podLabels": {"app.kubernetes.io/name": "mine", "team": "data"}}), "Deployment")[0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "data"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_releases_of_one_name_with_namespaces_of_their_own_share_nothing() -> None:
    def names(namespace: str, watched: str) -> set[tuple[str, str, str]]:
        found = rendered({"namespaces": [watched]}, namespace=namespace)
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in found}

    assert not names("one", "shop") & names("two", "stock")


def test_a_second_release_in_one_namespace_meets_the_first_ones_role() -> None:
    first, second = rendered({"namespaces": ["shop"]}, "one"), rendered({"namespaces": ["stock"]}, "two")
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in (first, second)]
    assert names[0] & names[1] == {("Role", "whimbrel-operator-lease"), ("RoleBinding", "whimbrel-operator-lease")}


def test_every_value_is_in_the_readme() -> None:
    table = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    grouped = ("image", "serviceAccount", "workers", "metrics")
    paths = [f"{name}.{inner}" if inner else name for name in values for inner in _inner(values, name, grouped)]
    assert [path for path in paths if f"`{path}`" not in table] == []


def _inner(values: dict[str, Any], name: str, grouped: tuple[str, ...]) -> list[str]:
    return list(values[name]) if name in grouped else [""]
