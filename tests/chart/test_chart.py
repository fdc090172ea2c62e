"""The chart rendered and checked without a cluster: schemas, values, rights. On a cluster: see test_install."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from support.chart import CHART, is_hook, of_kind, rendered
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.settings import PORT, Settings
from whimbrel_operator.specs import pods_form
from whimbrel_operator.specs.jobs import OWN_VARIABLES
from whimbrel_operator.specs.settings import PodSettings, Resources, usual_resources

KUBERNETES = "1.36"
OWN_KINDS = {"ServiceMonitor", "PrometheusRule", "CustomResourceDefinition"}
PEER = {"ipBlock": {"cidr": "10.20.0.0/16", "except": ["10.20.3.0/24"]}}
ENDPOINTS = [
    {"to": [PEER, {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "mysql"}}}], "ports": [3306]}
]
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
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "WHIMBREL_LOG_LEVEL", "value": "DEBUG"},
        ],
        "extraEnvFrom": [{"prefix": "A_", "configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    },
    {
        "namespaces": ["shop", "stock"],
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"], "ports": [6443]},
            "workers": {"endpoints": ENDPOINTS},
        },
    },
    {"networkPolicy": {"enabled": True, "workers": {"enabled": False}}, "podDisruptionBudget": {"enabled": False}},
    {"userRoles": {"enabled": False}, "guards": {"uninstall": False, "namespaces": False}, "namespaces": ["shop"]},
    {"userRoles": {"aggregate": False}, "crds": {"enabled": True, "keep": False}},
    {"metrics": {"serviceMonitor": {"enabled": True, "interval": "1m", "labels": {"release": "prometheus"}}}},
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
    ({"workers": {"extraEnv": [{"name": "HOME", "value": "/"}]}}, "extraEnv"),
    ({"workers": {"extraVolumes": [{"name": "secret-0"}]}}, "extraVolumes"),
    ({"workers": {"extraVolumeMounts": [{"name": "ca"}]}}, "mountPath"),
    ({"crds": {"install": True}}, "install"),
    ({"crds": {"keep": "yes"}}, "keep"),
    ({"chart": ""}, "chart"),
    ({"userRoles": {"view": True}}, "view"),
    ({"guards": {"uninstal": True}}, "uninstal"),
    ({"extraEnv": [{"name": "WHIMBREL_PODS", "value": "{}"}]}, "extraEnv"),
    ({"extraEnv": [{"name": "A", "value": 1}]}, "value"),
    ({"extraEnv": [{"name": "A", "valueFrom": {"secretKey": {}}}]}, "secretKey"),
    ({"extraEnvFrom": [{"secretRef": {}}]}, "name"),
    ({"extraVolumes": [{"name": "tmp"}]}, "extraVolumes"),
    ({"extraVolumeMounts": [{"name": "ca"}]}, "mountPath"),
    ({"podDisruptionBudget": {"minAvailable": 1}}, "minAvailable"),
    ({"metrics": {"serviceMonitor": {"interval": "soon"}}}, "interval"),
    ({"metrics": {"dashboard": {"namespace": "No"}}}, "namespace"),
    ({"metrics": {"prometheusRule": {"docs": "here"}}}, "docs"),
    ({"networkPolicy": {"workers": {"endpoints": [{"to": [], "ports": [3306]}]}}}, "endpoints"),
    ({"networkPolicy": {"workers": {"endpoints": [{"to": [{"cidr": "10.0.0.0/8"}], "ports": [1]}]}}}, "cidr"),
    ({"networkPolicy": {"workers": {"endpoints": [{"to": [PEER], "ports": [70000]}]}}}, "ports"),
    ({"networkPolicy": {"apiServer": {"cidrs": ["api.example.com"]}}}, "cidrs"),
    ({"topologySpreadConstraints": [{"topologyKey": "zone"}]}, "maxSkew"),
    ({"nameOverride": "Mine"}, "nameOverride"),
    ({"fullnameOverride": "2nd"}, "fullnameOverride"),
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
    "serviceAccountName": "dynamodb",
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "terminationGracePeriodSeconds": 90,
}


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_every_object_passes_the_strict_schemas(values: dict[str, Any]) -> None:
    objects = rendered(values)
    assert len(of_kind(objects, "Deployment")) == 1
    for each in objects:
        if each["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(("values", "named"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_wrong_values_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        rendered(values)
    # Helm's first lines name the chart, whatever is wrong.
    assert named in str(refused.value).split("whimbrel:\n", 1)[1]


@pytest.mark.parametrize("name", OWN_VARIABLES)
def test_a_variable_of_whimbrels_own_is_no_extra_one_for_workers(name: str) -> None:
    given = {"extraEnv": [{"name": name, "value": "x"}]}
    with pytest.raises(helm_python.HelmError, match="extraEnv"):
        rendered({"workers": given})
    with pytest.raises(ValueError, match=f"{name} is set by Whimbrel itself"):
        pods_form.parse(json.dumps(given))


def test_no_variable_that_the_chart_sets_is_an_extra_one_for_the_operator() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    refused = schema["definitions"]["env"]["items"]["properties"]["name"]["not"]["enum"]
    (container,) = pod_specs(of_kind(rendered({}), "Deployment"))[0]["containers"]
    assert refused == [each["name"] for each in container["env"]]


def test_an_account_of_ones_own_needs_a_name() -> None:
    with pytest.raises(helm_python.HelmError, match=r"serviceAccount\.name is needed"):
        rendered({"serviceAccount": {"create": False}})


def test_lint_finds_nothing_wrong() -> None:
    assert helm_python.lint(str(CHART))["errors"] == []


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all pods that the chart makes, those of hooks too."""
    owners = [each for kind in ("Deployment", "Job") for each in of_kind(objects, kind)]
    return [each["spec"]["template"]["spec"] for each in owners] + [each["spec"] for each in of_kind(objects, "Pod")]


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_every_pod_meets_the_restricted_standard(values: dict[str, Any]) -> None:
    for pod in pod_specs(rendered(values)):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() == set()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_named_namespaces_get_roles_of_their_own_and_nothing_else_is_touched() -> None:
    objects = [each for each in rendered({"namespaces": ["shop", "stock"]}) if not is_hook(each)]
    assert of_kind(objects, "ClusterRoleBinding") == []
    # These are nobody's until somebody binds them.
    assert {each["metadata"]["name"] for each in of_kind(objects, "ClusterRole")} == {
        "whimbrel-viewer",
        "whimbrel-editor",
    }
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
    assert (pods.account, list(pods.env)) == ("dynamodb", WORKERS["extraEnv"])
    assert (list(pods.volumes), list(pods.volume_mounts)) == (WORKERS["extraVolumes"], WORKERS["extraVolumeMounts"])


def test_a_variable_within_a_worker_s_variable_is_left_to_the_worker() -> None:
    """The kubelet reads `$(NAME)` in the operator's variables too, and makes `$$` one dollar."""
    variable = {"name": "COLLECTOR", "value": "http://$(WHIMBREL_NAMESPACE):4317/$$(A)"}
    told = environment({"workers": {"extraEnv": [variable]}})["WHIMBREL_PODS"]
    assert "$" not in told.replace("$$", "")
    pods = pods_form.parse(told.replace("$$", "$")).settings("image", "Always")
    assert list(pods.env) == [variable]


def test_the_usual_values_leave_workers_as_the_code_has_them() -> None:
    told = environment({})
    assert pods_form.parse(told["WHIMBREL_PODS"]).settings("image", "Always") == PodSettings("image", "Always")
    assert (
        Settings.from_environment({**told, "WHIMBREL_NAMESPACE": "x", "KUBERNETES_SERVICE_HOST": "x"}).listen[1] == PORT
    )


def test_the_chart_offers_every_task_and_the_form_all_that_the_chart_offers() -> None:
    offered = json.loads((CHART / "values.schema.json").read_text())["properties"]["workers"]["properties"]
    assert set(offered["resources"]["properties"]) == {kind.value for kind in TaskKind}
    renamed = {"podLabels": "labels", "podAnnotations": "annotations"}
    fields = {field.alias or name for name, field in pods_form.PodsForm.model_fields.items()}
    assert {renamed.get(name, name) for name in offered} | {"imagePullSecrets"} == fields


def test_names_that_yaml_takes_for_numbers_stay_names() -> None:
    values = {**VALUES[4], "namespaces": ["2024", "1e3"], "priorityClassName": "100", "serviceAccount": {"name": "7"}}
    monitored = {"serviceMonitor": {"enabled": True}, "dashboard": {"enabled": True}}
    objects = rendered({**values, "metrics": monitored}, name="42", namespace="0007")
    for each in objects:
        if each["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    assert {each["metadata"].get("namespace") for each in objects} == {None, "0007", "2024", "1e3"}
    (monitor,) = of_kind(objects, "ServiceMonitor")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["0007"]}


def test_labels_of_ones_own_never_hide_the_selectors() -> None:
    deployment = of_kind(rendered({"podLabels": {"app.kubernetes.io/name": "mine", "team": "data"}}), "Deployment")[0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "data"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_releases_of_one_name_with_namespaces_of_their_own_share_nothing() -> None:
    def names(namespace: str, watched: str) -> set[tuple[str, str, str]]:
        found = rendered({"namespaces": [watched], "userRoles": {"enabled": False}}, namespace=namespace)
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in found}

    assert not names("one", "shop") & names("two", "stock")


def test_a_second_release_in_one_namespace_meets_the_first_ones_role() -> None:
    first, second = rendered({"namespaces": ["shop"]}, "one"), rendered({"namespaces": ["stock"]}, "two")
    names = [
        {(each["kind"], each["metadata"]["name"]) for each in all_ if not is_hook(each)} for all_ in (first, second)
    ]
    assert names[0] & names[1] == {("Role", "whimbrel-operator-lease"), ("RoleBinding", "whimbrel-operator-lease")}


def paths_of(values: dict[str, Any], table: str, prefix: str = "") -> list[str]:
    """The values by their paths, each as deep as the table goes."""
    found = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        deeper = isinstance(value, dict) and f"`{path}." in table
        found += paths_of(value, table, f"{path}.") if deeper else [path]
    return found


def test_the_readme_has_every_value_with_its_default_and_no_other() -> None:
    told = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", (CHART / "README.md").read_text(), re.MULTILINE))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    paths = paths_of(values, "".join(f"`{path}`" for path in told))
    assert sorted(told) == sorted(paths)
    for path, shown in told.items():
        value: Any = values
        for part in path.split("."):
            value = value[part]
        # What stands in backticks is the default as YAML; other words describe it.
        assert not shown.startswith("`") or yaml.safe_load(shown.split("`")[1]) == value, path


def test_the_schema_has_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)


def strict_and_open(part: Any, path: str = "") -> Iterator[str]:
    """Objects of the schema that would let an unknown name pass, without being meant to."""
    if isinstance(part, dict):
        if part.get("type") == "object" and part.get("properties") and part.get("additionalProperties") is not False:
            yield path
        for name, inner in part.items():
            yield from strict_and_open(inner, f"{path}/{name}")


def test_the_schema_is_strict_wherever_it_names_properties() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    # A volume is one of thirty kinds: the API server judges it.
    assert list(strict_and_open(schema)) == ["/definitions/named/items"]
