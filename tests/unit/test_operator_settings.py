"""The operator's settings: what they are by default, and what is told where they cannot be."""

from pathlib import Path

import pytest

from whimbrel_api.tasks import TaskKind
from whimbrel_operator.errors import SettingsError
from whimbrel_operator.settings import LeaseTimes, Settings
from whimbrel_operator.specs.settings import LARGE, PodSettings, Resources

IN_A_POD = {"WHIMBREL_WORKER_IMAGE": "whimbrel:1", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "WHIMBREL_NAMESPACE": "ops"}


def settings(**environ: str) -> Settings:
    return Settings.from_environment(IN_A_POD | environ)


def test_a_pod_needs_the_image_only() -> None:
    found = settings()
    assert (found.pods.image, found.pods.pull_policy) == ("whimbrel:1", "IfNotPresent")
    assert (found.namespaces, found.namespace, found.listen) == ((), "ops", ("0.0.0.0", 8080))
    assert (found.kubeconfig, found.lease) == (None, LeaseTimes(15, 10, 2))
    assert found.stalled_after > 60, "the longest backoff must not look like a stall"


def test_two_processes_are_told_apart() -> None:
    assert settings().identity != settings().identity


def test_empty_is_not_set() -> None:
    assert settings(WHIMBREL_NAMESPACES="", WHIMBREL_LOG_FORMAT=" ").log_format == "plain"


def test_lists_and_addresses() -> None:
    found = settings(WHIMBREL_NAMESPACES=" shop, billing,shop", WHIMBREL_LISTEN="fd00::1:9090")
    assert found.namespaces == ("billing", "shop")
    assert found.listen == ("fd00::1", 9090)
    assert settings(WHIMBREL_LISTEN=":9090").listen == ("0.0.0.0", 9090)


def test_what_the_chart_says_about_worker_pods_arrives() -> None:
    pods = settings(
        WHIMBREL_PODS="""{
          "resources": {"snapshot": {"requests": {"cpu": 2}, "limits": {"memory": "4Gi"}}},
          "imagePullSecrets": ["pull"], "nodeSelector": {"disk": "fast"}, "priorityClassName": "high",
          "tolerations": [{"key": "db", "operator": "Exists"}], "labels": {"team": "data"}, "annotations": {"a": "1"},
          "affinity": {"nodeAffinity": {"x": 1}}, "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn"},
          "serviceAccountName": "mine", "extraEnv": [{"name": "A", "value": "1"}],
          "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
          "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": true}],
          "terminationGracePeriodSeconds": 90}"""
    ).pods
    assert pods.resources_of(TaskKind.SNAPSHOT) == Resources({"cpu": "2", "memory": "256Mi"}, {"memory": "4Gi"})
    assert pods.resources_of(TaskKind.STREAM) == LARGE
    assert (pods.image_pull_secrets, pods.node_selector, pods.priority_class) == (("pull",), {"disk": "fast"}, "high")
    assert pods.tolerations == ({"key": "db", "operator": "Exists"},)
    assert pods.affinity == {"nodeAffinity": {"x": 1}}
    assert (pods.labels, pods.annotations, pods.grace) == ({"team": "data"}, {"a": "1"}, 90)
    assert pods.account_annotations == {"eks.amazonaws.com/role-arn": "arn"}
    assert (pods.account, pods.env) == ("mine", ({"name": "A", "value": "1"},))
    assert pods.volumes == ({"name": "ca", "configMap": {"name": "ca"}},)
    assert pods.volume_mounts == ({"name": "ca", "mountPath": "/etc/ca", "readOnly": True},)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('{"extraEnv": [{"name": "HOME", "value": "/"}]}', "HOME is set by Whimbrel itself"),
        ('{"extraVolumes": [{"name": "scratch", "emptyDir": {}}]}', "scratch is that of a volume"),
        ('{"extraVolumes": [{"name": "secret-0", "emptyDir": {}}]}', "secret-0 is that of a volume"),
        ('{"extraVolumes": [{"emptyDir": {}}]}', "no name that a volume can have"),
        ('{"extraVolumeMounts": [{"name": "a", "mountPath": "/etc/whimbrel/secrets/x"}]}', "meets a folder"),
        ('{"extraVolumeMounts": [{"name": "a", "mountPath": "/var/lib"}]}', "meets a folder"),
        ('{"extraVolumeMounts": [{"name": "a", "mountPath": "/tmp/"}]}', "meets a folder"),
    ],
)
def test_what_would_hide_whimbrels_own_in_a_worker_is_refused(said: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        settings(WHIMBREL_PODS=said)


def test_nothing_said_about_worker_pods_is_the_usual() -> None:
    assert settings(WHIMBREL_PODS="{}").pods == settings().pods == PodSettings(image="whimbrel:1")


def test_the_own_namespace_comes_from_the_service_account(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("there\n")
    assert settings(WHIMBREL_NAMESPACE="", WHIMBREL_SERVICE_ACCOUNT=str(tmp_path)).namespace == "there"


def test_a_kubeconfig_wins(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("{}")
    assert settings(KUBECONFIG=str(file), WHIMBREL_NAMESPACE="").namespace == "default"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"WHIMBREL_WORKER_IMAGE": ""}, ["WHIMBREL_WORKER_IMAGE is not set", "for example"]),
        ({"WHIMBREL_IMAGE_PULL_POLICY": "Sometimes"}, ["WHIMBREL_IMAGE_PULL_POLICY='Sometimes'", "IfNotPresent"]),
        ({"WHIMBREL_NAMESPACES": "shop,Über"}, ["WHIMBREL_NAMESPACES", "'Über'", "shop,billing"]),
        ({"WHIMBREL_LISTEN": "8080"}, ["WHIMBREL_LISTEN='8080'", "host:port", "0.0.0.0:8080"]),
        ({"WHIMBREL_LISTEN": ":99999"}, ["WHIMBREL_LISTEN", "host:port"]),
        ({"WHIMBREL_LEASE_DURATION": "soon"}, ["WHIMBREL_LEASE_DURATION='soon'", "15s"]),
        ({"WHIMBREL_LEASE_DURATION": "1500ms"}, ["whole seconds"]),
        ({"WHIMBREL_LEASE_RENEW_DEADLINE": "15s"}, ["WHIMBREL_LEASE_RENEW_DEADLINE", "2s, 10s and 15s"]),
        ({"WHIMBREL_LEASE_RETRY_PERIOD": "0s"}, ["WHIMBREL_LEASE_RETRY_PERIOD", "longer than nothing"]),
        ({"WHIMBREL_CONCURRENT_PASSES": "0"}, ["WHIMBREL_CONCURRENT_PASSES", "1 to 1000"]),
        ({"WHIMBREL_LOG_FORMAT": "xml"}, ["WHIMBREL_LOG_FORMAT='xml'", "plain, json"]),
        ({"WHIMBREL_PODS": "{"}, ["WHIMBREL_PODS cannot be", "JSON", "workers"]),
        ({"WHIMBREL_PODS": '{"resources": {"snap": {}}}'}, ["WHIMBREL_PODS", "resources.snap", "'snapshot'"]),
        (
            {"WHIMBREL_PODS": '{"resources": {"check": {"limits": {"memory": "lots"}}}, "nodes": {}}'},
            ["resources.check.limits.memory", "nodes: Extra"],
        ),
        (
            {"WHIMBREL_PODS": '{"resources": {"stream": {"limits": {"memory": "64Mi"}}}}'},
            ["resources.stream: the request of 256Mi memory is above the limit of 64Mi"],
        ),
        ({"WHIMBREL_PODS": '{"tolerations": [{"effect": "Never"}]}'}, ["tolerations.0.effect", "NoSchedule"]),
        ({"WHIMBREL_PODS": '{"terminationGracePeriodSeconds": 0}'}, ["terminationGracePeriodSeconds"]),
        ({"KUBERNETES_SERVICE_HOST": ""}, ["no cluster", "KUBECONFIG"]),
        ({"KUBECONFIG": "/nowhere/config"}, ["/nowhere/config", "no such file"]),
        ({"WHIMBREL_NAMESPACE": "", "WHIMBREL_SERVICE_ACCOUNT": "/nowhere"}, ["own namespace", "WHIMBREL_NAMESPACE="]),
    ],
)
def test_what_cannot_be_is_told(environ: dict[str, str], told: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**environ)
    for part in told:
        assert part in str(caught.value)
