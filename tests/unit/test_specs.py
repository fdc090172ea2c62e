"""The builders: golden files of whole tasks, strict schemas, restricted pods, names for hostile resources."""

import json
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.wanted import OWNER, SETTINGS, instances, usual, work
from whimbrel_api.base import ObjectMeta
from whimbrel_api.migration import Migration, MigrationSpec, Tables
from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.tasks import ExitCode, Orders, TaskFile, TaskKind
from whimbrel_api.worker_reports import Failures, WorkerReportResource
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.errors import TaskTooLarge
from whimbrel_operator.specs import jobs, names, reports, taskfile
from whimbrel_operator.specs.bundle import Bundle, bundle
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import LARGE, SMALL, Resources, usual_resources

GOLDEN = Path(__file__).parent / "golden"
REGENERATE = "if the change is meant: UPDATE_GOLDEN=1 make unit PYTEST='-k golden', then read the diff and commit it"
TASKS = sorted(usual())
VERSIONS = ("1.36", "1.37")


class _Readable(yaml.SafeDumper):
    """Text of several lines stands as it is, so that a diff can be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _bundle(task: str) -> Bundle:
    return bundle(OWNER, usual()[task], SETTINGS)


def _one(built: Bundle, kind: str) -> dict[str, Any]:
    return next(each for each in built.objects if each["kind"] == kind)


def _pod(built: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = built.job["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("task", TASKS)
def test_golden(task: str) -> None:
    told = yaml.dump_all(_bundle(task).objects, Dumper=_Readable, sort_keys=False, width=120)
    file = GOLDEN / f"{task}.yaml"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        file.write_text(told)
    assert file.read_text() == told, f"{file.name} is not what the builders make; {REGENERATE}"


def test_every_golden_file_has_a_task() -> None:
    assert sorted(file.stem for file in GOLDEN.glob("*.yaml")) == TASKS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("task", TASKS)
def test_built_in_kinds_pass_the_strict_schemas(task: str, version: str) -> None:
    built = [each for each in _bundle(task).objects if each["kind"] != "WorkerReport"]
    for each in built:
        assert kubernetes_validate.validate(each, version, strict=True).startswith(version)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**built[0], "surprise": 1}, version, strict=True)


@pytest.mark.parametrize("task", TASKS)
def test_the_job_comes_last_and_what_it_needs_before(task: str) -> None:
    kinds = [each["kind"] for each in _bundle(task).objects]
    many = len(usual()[task])
    assert kinds == ["ConfigMap", "ServiceAccount", *["WorkerReport"] * many, "Role", "RoleBinding", "Job"]


@pytest.mark.parametrize("task", TASKS)
def test_every_child_ends_with_its_owner_and_is_found(task: str) -> None:
    selector = dict(
        part.split("=") for part in names.task_of(OWNER, usual()[task][0].ref.task_id).split(",") if "=" in part
    )
    for each in _bundle(task).objects:
        meta = each["metadata"]
        assert meta["namespace"] == OWNER.namespace
        assert [(ref["uid"], ref["controller"]) for ref in meta["ownerReferences"]] == [(OWNER.uid, True)]
        assert selector.items() <= meta["labels"].items()
        assert meta["annotations"]["whimbrel.dev/resource"] == OWNER.name


# Pod Security Standards, profile "restricted": https://kubernetes.io/docs/concepts/security/pod-security-standards/
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_NEVER = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers", "ephemeralContainers")


def _breaches(pod: Mapping[str, Any]) -> list[str]:
    """What keeps a pod from running where `restricted` is enforced, and what we ask of it beyond that."""
    whole = pod["securityContext"]
    found = [field for field in _NEVER if field in pod]
    found += [each["name"] for each in pod["volumes"] if not (each.keys() - {"name"}) <= _VOLUMES]
    rules = {
        "root": whole.get("runAsNonRoot") is True and whole.get("runAsUser", 0) > 0,
        "seccomp": whole.get("seccompProfile") == {"type": "RuntimeDefault"},
        "own token": pod.get("automountServiceAccountToken") is False,
        "service links": pod.get("enableServiceLinks") is False,
    }
    for container in pod["containers"]:
        own = container["securityContext"]
        rules |= {
            "escalation": own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "writable root": own.get("readOnlyRootFilesystem") is True,
            "ports": "ports" not in container,
            "limits": "memory" in container["resources"]["limits"],
        }
    return found + [rule for rule, kept in rules.items() if not kept]


@pytest.mark.parametrize("task", TASKS)
def test_pods_are_restricted(task: str) -> None:
    pod = _pod(_bundle(task))
    assert _breaches(pod) == []
    assert _breaches({**pod, "hostNetwork": True, "securityContext": {}}) == ["hostNetwork", "root", "seccomp"]


@pytest.mark.parametrize("task", TASKS)
def test_the_task_file_can_be_read_and_its_paths_lie_in_mounts(task: str) -> None:
    built = _bundle(task)
    told = TaskFile.model_validate_json(_one(built, "ConfigMap")["data"]["task.json"])
    mounts = {mount["mountPath"] for mount in _pod(built)["containers"][0]["volumeMounts"]}
    assert told.report_resource is not None
    paths = [*told.secrets.values(), told.report_resource.access, posixpath.dirname(told.check.report_file)]
    assert {posixpath.normpath(posixpath.join(jobs.TASK_FOLDER, path)) for path in paths} == mounts - {jobs.TASK_FOLDER}
    assert (told.index, told.workers, told.epoch) == (0, built.count, 7)
    assert told.report_interval == (2.0 if task in ("stream", "reverse") else 10.0)
    assert [names.report_name(told.report_resource.name, index) for index in range(built.count)] == [
        *built.report_names
    ]


@pytest.mark.parametrize("task", TASKS)
def test_rights_are_named_reports_only(task: str) -> None:
    built = _bundle(task)
    rules = [(rule["resources"], rule["verbs"], rule["resourceNames"]) for rule in _one(built, "Role")["rules"]]
    mine = [each["metadata"]["name"] for each in built.before if each["kind"] == "WorkerReport"]
    assert rules == [(["workerreports"], ["get"], mine), (["workerreports/status"], ["patch"], mine)]
    assert mine == list(built.report_names)


def test_exit_codes_decide_what_a_job_does() -> None:
    rules = _bundle("stream").job["spec"]["podFailurePolicy"]["rules"]
    acts = {code: rule["action"] for rule in rules if "onExitCodes" in rule for code in rule["onExitCodes"]["values"]}
    assert acts == {2: "FailJob", 3: "FailJob", 4: "FailJob", 5: "Ignore"}
    assert set(ExitCode) - set(acts) == {ExitCode.DONE, ExitCode.FAILED}


def test_orders_and_failures_share_nothing_that_one_could_take_from_the_other() -> None:
    wanted = usual()["snapshot"][1]
    error = ReportedError(category=ErrorCategory.TRANSIENT, what="the source went away")
    orders = reports.orders_report(OWNER, wanted)
    failed = reports.failures_report(OWNER, wanted.kind, wanted.ref, Failures(count=2, last_error=error))
    assert orders["metadata"] == failed["metadata"]
    assert (orders["spec"].keys(), failed["spec"].keys()) == ({"orders"}, {"failures"})
    whole = WorkerReportResource.model_validate({**orders, "spec": orders["spec"] | failed["spec"]})
    assert whole.spec.orders == wanted.orders
    assert whole.spec.failures.count == 2


def test_a_fingerprint_covers_what_a_running_job_cannot_take() -> None:
    few, wanted = usual()["snapshot"], usual()["snapshot"][0]
    assert len({bundle(OWNER, instances(wanted, count), SETTINGS).fingerprint for count in (1, 3, 5)}) == 1
    ordered = [replace(each, orders=Orders(rows_per_second=1), generation=9) for each in few]
    assert bundle(OWNER, ordered, replace(SETTINGS, image="new")).fingerprint == _bundle("snapshot").fingerprint
    other = [replace(each, work=replace(each.work, tables=Tables(include=["else.*"]))) for each in few]
    assert bundle(OWNER, other, SETTINGS).fingerprint != _bundle("snapshot").fingerprint
    assert jobs.scale(5) == {"spec": {"completions": 5, "parallelism": 5}}


def test_what_steers_a_running_job_leaves_an_older_worker_its_own_task_file() -> None:
    built, newer = _bundle("snapshot"), bundle(OWNER, usual()["snapshot"], replace(SETTINGS, image="newer"))
    assert built.beside(built.job) == built.before
    assert newer.beside(built.job) == newer.before[1:]
    assert newer.before[0]["kind"] == "ConfigMap"


def test_settings_reach_the_pod_and_leave_our_own_labels_alone() -> None:
    tolerated = {"key": "spot", "operator": "Exists"}
    affinity: dict[str, Any] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    settings = replace(
        SETTINGS,
        pull_policy="Never",
        image_pull_secrets=["registry"],
        resources={TaskKind.STREAM: Resources({"cpu": "2"}, {"memory": "4Gi"})},
        node_selector={"disk": "fast"},
        tolerations=[tolerated],
        affinity=affinity,
        priority_class="data",
        labels={"team": "shop", "whimbrel.dev/uid": "forged"},
        annotations={"note": "x", "whimbrel.dev/fingerprint": "forged"},
        account_annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/dsql"},
        grace=90,
    )
    built = bundle(OWNER, usual()["stream"], settings)
    template, pod = built.job["spec"]["template"], _pod(built)
    assert template["metadata"]["labels"] | {"team": "shop"} == built.job["metadata"]["labels"] | {"team": "shop"}
    assert template["metadata"]["annotations"]["whimbrel.dev/fingerprint"] == built.fingerprint
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}
    assert pod["containers"][0]["imagePullPolicy"] == "Never"
    assert (pod["nodeSelector"], pod["tolerations"], pod["affinity"]) == ({"disk": "fast"}, [tolerated], affinity)
    assert (pod["priorityClassName"], pod["imagePullSecrets"]) == ("data", [{"name": "registry"}])
    assert pod["terminationGracePeriodSeconds"] == 90
    account = _one(built, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == "arn:aws:iam::1:role/dsql"
    assert account["automountServiceAccountToken"] is False
    assert kubernetes_validate.validate(built.job, VERSIONS[-1], strict=True)


def test_an_account_of_ones_own_is_bound_in_the_place_of_one_each() -> None:
    built = bundle(OWNER, usual()["stream"], replace(SETTINGS, account="dynamodb"))
    assert _pod(built)["serviceAccountName"] == "dynamodb"
    assert "ServiceAccount" not in [each["kind"] for each in built.objects]
    (subject,) = _one(built, "RoleBinding")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("dynamodb", OWNER.namespace)


def test_a_running_job_keeps_the_account_that_its_pods_have() -> None:
    own, shared = _bundle("stream"), bundle(OWNER, usual()["stream"], replace(SETTINGS, account="dynamodb"))
    for now, running in ((own, shared), (shared, own)):
        kinds = {each["kind"] for each in now.beside(running.job)}
        assert kinds == {"ConfigMap", "WorkerReport", "Role"}
        assert "RoleBinding" in {each["kind"] for each in now.beside(now.job)}


def test_variables_and_volumes_of_ones_own_come_after_ours() -> None:
    settings = replace(
        SETTINGS,
        env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        volumes=[{"name": "authority", "configMap": {"name": "authority"}}],
        volume_mounts=[{"name": "authority", "mountPath": "/etc/authority", "readOnly": True}],
    )
    built = bundle(OWNER, usual()["stream"], settings)
    (container,) = _pod(built)["containers"]
    assert [each["name"] for each in container["env"]] == ["HOME", "TMPDIR", "HTTPS_PROXY"]
    assert container["volumeMounts"][-1]["mountPath"] == "/etc/authority"
    assert _pod(built)["volumes"][-1]["name"] == "authority"
    assert kubernetes_validate.validate(built.job, VERSIONS[-1], strict=True)
    assert _breaches(_pod(built)) == []


def test_tasks_that_carry_rows_get_more() -> None:
    large = {kind for kind, resources in usual_resources().items() if resources == LARGE}
    assert large == {TaskKind.SNAPSHOT, TaskKind.STREAM, TaskKind.CHECK, TaskKind.REVERSE}
    assert replace(SETTINGS, resources={}).resources_of(TaskKind.FENCE) == SMALL


def test_a_task_file_that_fits_no_config_map_is_refused_with_what_to_do() -> None:
    many = [f"shop.{'鳥' * 190}{number}" for number in range(1000)]
    told = replace(usual()["preflight"][0], work=replace(work(), tables=Tables(include=many, exclude=many)))
    with pytest.raises(TaskTooLarge) as refused:
        taskfile.config_map(OWNER, told)
    assert re.search(
        r"task file has [\d,]{9} bytes; in Migration shop-prod/shop; a ConfigMap holds at most 1,048,576; "
        r"shorten spec\.tables",
        str(refused.value),
    )


def test_instances_that_do_not_go_together_are_refused() -> None:
    first, second, third = usual()["snapshot"]
    for wrong in ([], [second], [first, third], [first, replace(second, epoch=8)], [first, *usual()["stream"]]):
        with pytest.raises(ValueError, match="no instances of one task"):
            bundle(OWNER, wrong, SETTINGS)


def test_an_owner_without_a_uid_is_refused() -> None:
    told = work()
    resource = Migration(
        metadata=ObjectMeta(name="shop", namespace="shop-prod", uid=OWNER.uid),
        spec=MigrationSpec(source=told.source, target=told.target),
    )
    assert Owner.of(resource) == OWNER
    with pytest.raises(ValueError, match="shop-prod/shop has no uid"):
        Owner.of(resource.model_copy(update={"metadata": ObjectMeta(name="shop", namespace="shop-prod")}))


_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_NAMES = st.one_of(
    st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True),
    st.sampled_from(["a", "0", "a" * 253, "a." * 126 + "a", "a" + "-" * 251 + "a", "a" + "." * 251 + "a", "9.9-.-9"]),
)
_OWNERS = st.builds(
    Owner, st.sampled_from(["Migration", "Validation"]), st.sampled_from(["a", "b"]), _NAMES, st.uuids().map(str)
)
_TASK_IDS = st.from_regex(r"[a-z][-a-z0-9]{0,40}[a-z0-9]", fullmatch=True)


@given(owner=_OWNERS, task_id=_TASK_IDS, index=st.integers(0, 63))
def test_names_are_dns_labels_for_any_resource(owner: Owner, task_id: str, index: int) -> None:
    name = names.job_name(owner, task_id)
    assert len(name) <= 52
    assert _DNS_LABEL.fullmatch(name)
    assert "--" not in name
    assert len(f"{names.report_name(name, index)}") <= 63
    for value in names.labels(owner, task_id, TaskKind.CHECK).values():
        assert len(value) <= 63
        assert _LABEL_VALUE.fullmatch(value)


@given(one=st.tuples(_OWNERS, _TASK_IDS), other=st.tuples(_OWNERS, _TASK_IDS))
def test_two_tasks_never_share_a_name(one: tuple[Owner, str], other: tuple[Owner, str]) -> None:
    assert (names.job_name(*one) == names.job_name(*other)) == (one == other)


@given(owner=_OWNERS, task_id=_TASK_IDS)
def test_one_thing_apart_is_another_name(owner: Owner, task_id: str) -> None:
    kind = "Validation" if owner.kind == "Migration" else "Migration"
    others = [replace(owner, kind=kind), replace(owner, uid="other"), replace(owner, name=f"{owner.name[:252]}x")]
    found = {names.job_name(each, task_id) for each in (owner, *others)} | {names.job_name(owner, f"{task_id}x")}
    assert len(found) == (5 if others[2] != owner else 4)


def test_names_are_told_from_each_other_by_a_person() -> None:
    assert re.fullmatch(r"shop-snapshot-[0-9a-f]{8}", names.job_name(OWNER, "snapshot"))
    assert names.job_name(replace(OWNER, name="a.b-.c" * 40), "stream").startswith("a-b-ca-b-ca-b-ca")
    assert json.loads(json.dumps(_bundle("snapshot").objects)) == list(_bundle("snapshot").objects)
    ref = TaskRef("stream", 0)
    assert reports.failures_report(OWNER, TaskKind.STREAM, ref, Failures())["spec"] == {"failures": {"count": 0}}
