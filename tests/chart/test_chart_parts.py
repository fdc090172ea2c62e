"""Parts of the chart that can be left out: definitions, guards, roles for people, network, monitoring."""

from __future__ import annotations

import gzip
from typing import Any

import helm_python
import pytest
import yaml

from support.chart import CHART, files, is_hook, of_kind, rendered
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import LEASE, Owner

ROOT = CHART.parents[1]
KEEP = {"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": "Prune=false"}
ENDPOINTS = [{"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [3306, 5432]}]


@pytest.mark.parametrize("keep", [True, False])
def test_the_definitions_come_as_the_code_has_them(keep: bool) -> None:
    found = of_kind(rendered({"crds": {"enabled": True, "keep": keep}}), "CustomResourceDefinition")
    written = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert len(found) == 4
    for ours, theirs in zip(found, written, strict=True):
        assert ours["spec"] == theirs["spec"]
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]
        said = ours["metadata"].get("annotations") or {}
        assert KEEP.items() <= said.items() if keep else not KEEP.keys() & said.keys()


def test_definitions_of_ones_own_are_left_alone_and_the_notes_say_so() -> None:
    assert files({"crds": {"enabled": False}})["whimbrel/templates/crds.yaml"].strip() == ""
    assert "kubectl apply --server-side -f crds/" in files({"crds": {"enabled": False}})["whimbrel/templates/NOTES.txt"]


def test_what_the_chart_carries_fits_into_a_release() -> None:
    """Helm keeps chart and manifest, packed, in one Secret of at most 1 MiB."""
    text = "".join(files({}).values()) + "".join(path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml")))
    assert len(gzip.compress(text.encode())) * 4 / 3 < 300_000


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({}, []),
        ({"namespaces": ["shop", "stock"]}, ["shop", "stock"]),
        # With the definitions the resources of every namespace go.
        ({"namespaces": ["shop"], "crds": {"enabled": True, "keep": False}}, []),
        ({"namespaces": ["shop"], "crds": {"enabled": True, "keep": True}}, ["shop"]),
    ],
)
def test_before_it_goes_the_release_asks_where_resources_could_wait(values: dict[str, Any], asked: list[str]) -> None:
    hooks = [each for each in rendered(values) if is_hook(each)]
    job = next(each for each in of_kind(hooks, "Job"))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][2:] == ["whimbrel_operator.uninstall", *asked]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 120)


def test_the_guard_may_only_list_and_comes_with_an_account_of_its_own() -> None:
    hooks = [each for each in rendered({}) if "pre-delete" in str(each["metadata"].get("annotations"))]
    (role,) = of_kind(hooks, "ClusterRole")
    assert [rule["verbs"] for rule in role["rules"]] == [["list"]]
    (binding,) = of_kind(hooks, "ClusterRoleBinding")
    (account,) = of_kind(hooks, "ServiceAccount")
    (job,) = of_kind(hooks, "Job")
    name = account["metadata"]["name"]
    assert binding["subjects"][0]["name"] == job["spec"]["template"]["spec"]["serviceAccountName"] == name
    weight = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    assert weight["ServiceAccount"] == weight["ClusterRole"] < weight["ClusterRoleBinding"] < weight["Job"]


def test_without_guards_nothing_asks() -> None:
    found = rendered({"namespaces": ["shop"], "guards": {"uninstall": False, "namespaces": False}})
    assert of_kind(found, "Job") == of_kind(found, "ValidatingAdmissionPolicy") == []


def test_the_lease_goes_last() -> None:
    (lease,) = of_kind(rendered({}), "Lease")
    assert lease["metadata"]["name"] == LEASE
    assert lease["metadata"]["annotations"]["helm.sh/hook"] == "post-delete"
    assert "hook-succeeded" in lease["metadata"]["annotations"]["helm.sh/hook-delete-policy"]


def test_named_namespaces_may_not_go_before_their_resources() -> None:
    found = rendered({"namespaces": ["shop", "stock"]})
    policies = of_kind(found, "ValidatingAdmissionPolicy")
    assert {each["spec"]["paramKind"]["kind"] for each in policies} == {"Migration", "Validation", "ReverseSync"}
    bindings = of_kind(found, "ValidatingAdmissionPolicyBinding")
    assert {each["spec"]["policyName"] for each in bindings} == {each["metadata"]["name"] for each in policies}
    for each in bindings:
        (rule,) = each["spec"]["matchResources"]["resourceRules"]
        assert [each["spec"]["paramRef"]["namespace"]] == rule["resourceNames"]
    assert len(bindings) == 6
    assert of_kind(rendered({}), "ValidatingAdmissionPolicy") == []


def test_people_get_their_rights_with_kubernetes_own_roles() -> None:
    roles = {each["metadata"]["name"]: each for each in of_kind(rendered({}), "ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    labels = {
        name: {key for key in each["metadata"]["labels"] if key.startswith(prefix)} for name, each in roles.items()
    }
    assert labels["whimbrel-viewer"] == {f"{prefix}{to}" for to in ("view", "edit", "admin")}
    assert labels["whimbrel-editor"] == {f"{prefix}{to}" for to in ("edit", "admin")}
    assert labels["whimbrel"] == set()
    looks, steers = (roles[f"whimbrel-{each}"]["rules"] for each in ("viewer", "editor"))
    assert {verb for rule in looks for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]} in looks
    assert [rule for rule in looks if rule not in steers] == []
    written = {resource for rule in steers if rule not in looks for resource in rule["resources"]}
    assert written == {"migrations", "validations", "reversesyncs"}
    plain = of_kind(rendered({"userRoles": {"aggregate": False}}), "ClusterRole")
    assert not [key for each in plain for key in each["metadata"]["labels"] if key.startswith(prefix)]


def policies(values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    found = of_kind(rendered(values), "NetworkPolicy")
    return {(each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"] for each in found}


def test_workers_reach_names_the_api_server_and_their_databases_alone() -> None:
    on = {"enabled": True, "apiServer": {"cidrs": ["10.0.0.1/32"]}, "workers": {"endpoints": ENDPOINTS}}
    found = policies({"namespaces": ["shop", "stock"], "networkPolicy": on})
    assert set(found) == {("whimbrel-system", "whimbrel"), ("shop", "whimbrel-workers"), ("stock", "whimbrel-workers")}
    worker = found["shop", "whimbrel-workers"]
    labels = names.labels(Owner("Migration", "shop", "flights", "uid"), "task", TaskKind.SNAPSHOT)
    assert worker["podSelector"]["matchLabels"].items() <= labels.items()
    assert worker["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in worker
    ports = [{each["port"] for each in rule["ports"]} for rule in worker["egress"]]
    assert ports == [{53}, {443, 6443}, {3306, 5432}]
    assert all(rule["to"] for rule in worker["egress"])


@pytest.mark.parametrize(("cidrs", "said"), [([], True), (["10.0.0.1/32"], False)])
def test_the_notes_say_where_the_network_policy_leaves_the_world_open(cidrs: list[str], said: bool) -> None:
    on = {"enabled": True, "apiServer": {"cidrs": cidrs}, "workers": {"endpoints": ENDPOINTS}}
    notes = files({"namespaces": ["shop"], "networkPolicy": on})["whimbrel/templates/NOTES.txt"]
    assert ("pods reach every address at 443, 6443" in notes) is said
    assert "networkPolicy" not in files({})["whimbrel/templates/NOTES.txt"]


def test_hooks_of_a_migration_are_not_taken_for_workers() -> None:
    on = {"enabled": True, "workers": {"endpoints": ENDPOINTS}}
    worker = policies({"namespaces": ["shop"], "networkPolicy": on})["shop", "whimbrel-workers"]
    labels = names.hook_labels(Owner("Migration", "shop", "flights", "uid"), "run")
    assert not worker["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_chart_s_own_pods_are_under_the_operator_s_policy() -> None:
    values = {"networkPolicy": {"enabled": True, "workers": {"enabled": False}}}
    chosen = policies(values)["whimbrel-system", "whimbrel"]["podSelector"]["matchLabels"]
    objects = rendered(values)
    pods = [each["spec"]["template"] for kind in ("Deployment", "Job") for each in of_kind(objects, kind)]
    for pod in [*pods, *of_kind(objects, "Pod")]:
        assert chosen.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"networkPolicy": {"enabled": True, "workers": {"endpoints": ENDPOINTS}}}, "workers.namespaces is needed"),
        ({"networkPolicy": {"enabled": True}, "namespaces": ["shop"]}, "workers could reach no database"),
        ({"metrics": {"service": False, "serviceMonitor": {"enabled": True}}}, "needs metrics.service=true"),
    ],
)
def test_what_would_not_work_is_refused_with_the_way_out(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        rendered(values)


def test_nobody_but_the_operator_is_behind_its_service_and_its_budget() -> None:
    objects = rendered({})
    selectors = [of_kind(objects, "Service")[0]["spec"]["selector"]]
    selectors.append(of_kind(objects, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"])
    (job,) = of_kind(objects, "Job")
    (pod,) = of_kind(objects, "Pod")
    for labels in (job["spec"]["template"]["metadata"]["labels"], pod["metadata"]["labels"]):
        assert not any(each.items() <= labels.items() for each in selectors)
    labels = of_kind(objects, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    assert all(each.items() <= labels.items() for each in selectors)


def test_one_replica_has_no_budget_which_would_hold_up_every_drain() -> None:
    assert of_kind(rendered({"replicas": 1}), "PodDisruptionBudget") == []


def test_a_service_monitor_keeps_the_names_of_migrations() -> None:
    labelled = {"enabled": True, "labels": {"release": "prometheus"}}
    (monitor,) = of_kind(rendered({"metrics": {"serviceMonitor": labelled}}), "ServiceMonitor")
    (service,) = of_kind(rendered({}), "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["honorLabels"]) == (service["spec"]["ports"][0]["name"], True)


@pytest.mark.parametrize(
    ("part", "file", "kind"),
    [("prometheusRule", "alerts.yaml", "PrometheusRule"), ("dashboard", "dashboard.json", "ConfigMap")],
)
def test_alerts_and_dashboard_are_those_of_the_files(part: str, file: str, kind: str) -> None:
    values = {"metrics": {part: {"enabled": True, "labels": {"mine": "1"}}}}
    (found,) = of_kind(rendered(values), kind)
    assert found["metadata"]["labels"]["mine"] == "1"
    told = found["spec"] if kind == "PrometheusRule" else yaml.safe_load(found["data"]["whimbrel.json"])
    assert told == yaml.safe_load((CHART / "files" / file).read_text())


@pytest.mark.parametrize(
    ("docs", "base"),
    [
        ("", "docs"),
        ("https://docs.example.com/whimbrel", "https://docs.example.com/whimbrel"),
        ("https://docs.example.com/whimbrel/", "https://docs.example.com/whimbrel"),
    ],
)
def test_run_book_links_lead_where_the_docs_are_served(docs: str, base: str) -> None:
    (found,) = of_kind(rendered({"metrics": {"prometheusRule": {"enabled": True, "docs": docs}}}), "PrometheusRule")
    alerts = [each for group in found["spec"]["groups"] for each in group["rules"]]
    assert alerts
    for each in alerts:
        assert each["annotations"]["runbook_url"] == f"{base}/runbook.md#{each['alert'].lower()}"


def test_image_and_chart_are_one_value_each() -> None:
    values = {"chart": "oci://registry.example/charts/whimbrel", "image": {"repository": "registry.example/whimbrel"}}
    texts = files(values)
    images = [line for text in texts.values() for line in text.splitlines() if "image:" in line and "registry" in line]
    assert len(images) == 3
    assert "registry" not in texts["whimbrel/templates/deployment.yaml"].replace("registry.example/whimbrel:0.1.0", "")
    assert f"helm upgrade whimbrel {values['chart']}" in texts["whimbrel/templates/NOTES.txt"]
