"""What the builders make, on a real API server: taken without a warning, restricted, with the rights named only."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import pytest

from support.wanted import OWNER, SETTINGS, instances, usual, work
from whimbrel_api.tasks import Orders
from whimbrel_api.worker_reports import Failures
from whimbrel_operator.specs import jobs, names, reports
from whimbrel_operator.specs.bundle import Bundle, bundle
from whimbrel_operator.specs.names import Owner

APPLY = ("apply", "--server-side", "--warnings-as-errors", "--filename", "-")
LEVELS = ("enforce", "warn", "audit")


class Cluster(Protocol):
    def kubectl(self, *args: str, input: str | None = None) -> str: ...


@dataclass(frozen=True)
class Place:
    """A namespace where the restricted profile is enforced, with a Migration that nobody reconciles."""

    cluster: Cluster
    owner: Owner

    def kubectl(self, *args: str, told: object = None) -> str:
        text = None if told is None else json.dumps(told)
        return self.cluster.kubectl("--namespace", self.owner.namespace, *args, input=text)

    def read(self, *args: str, told: object = None) -> Any:
        return json.loads(self.kubectl(*args, "--output", "json", told=told))

    def apply(
        self, *objects: dict[str, Any], manager: str = names.FIELD_MANAGER, options: tuple[str, ...] = ()
    ) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl(*APPLY, "--field-manager", manager, *options, told=whole)

    def bundle(self, task: str) -> Bundle:
        return bundle(self.owner, usual(self.owner)[task], SETTINGS)

    def rules(self, account: str) -> list[dict[str, Any]]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": self.owner.namespace},
        }
        who = f"system:serviceaccount:{self.owner.namespace}:{account}"
        status = self.read("create", "--validate=false", "--filename", "-", "--as", who, told=review)["status"]
        assert not status["incomplete"]
        found: list[dict[str, Any]] = status["resourceRules"]
        return found

    def may(self, account: str, verb: str, resource: str, name: str, *, group: str = "whimbrel.dev") -> bool:
        kind, _, sub = resource.partition("/")
        asked = {"namespace": self.owner.namespace, "verb": verb, "group": group, "resource": kind}
        who = f"system:serviceaccount:{self.owner.namespace}:{account}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": who, "resourceAttributes": {**asked, "subresource": sub, "name": name}},
        }
        return bool(self.read("create", "--filename", "-", told=review)["status"]["allowed"])


@pytest.fixture
def place(cluster: Cluster, namespace: str) -> Place:
    levels = [f"pod-security.kubernetes.io/{level}=restricted" for level in LEVELS]
    cluster.kubectl("label", "namespace", namespace, "--overwrite", *levels)
    bare = Place(cluster, replace(OWNER, namespace=namespace))
    ends = work(bare.owner)
    spec = {"source": ends.source, "target": ends.target}
    manifest = {
        "apiVersion": OWNER.api_version,
        "kind": OWNER.kind,
        "metadata": {"name": OWNER.name},
        "spec": {end: model.model_dump(mode="json", by_alias=True, exclude_none=True) for end, model in spec.items()},
    }
    made = bare.read("create", "--filename", "-", told=manifest)
    return replace(bare, owner=replace(bare.owner, uid=made["metadata"]["uid"]))


@pytest.mark.parametrize("task", sorted(usual()))
def test_a_bundle_is_taken_whole_and_again_without_a_change(place: Place, task: str) -> None:
    built = place.bundle(task)
    template = built.job["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "as-told", **template["metadata"]}}
    place.apply(*built.objects, options=("--dry-run=server",))
    place.apply(*built.before)
    place.apply({**pod, "spec": template["spec"]}, options=("--dry-run=server",))
    kinds = "configmap,serviceaccount,role,rolebinding,workerreport"
    selector = ("get", kinds, "--selector", names.task_of(place.owner, usual()[task][0].ref.task_id))
    versions = [_version(each) for each in place.read(*selector)["items"]]
    assert len(versions) == len(built.before)
    place.apply(*built.before)
    assert [_version(each) for each in place.read(*selector)["items"]] == versions
    # Last, as its pod writes into its report.
    place.apply(built.job)


def _version(found: dict[str, Any]) -> tuple[str, str, str]:
    meta = found["metadata"]
    return found["kind"], meta["name"], meta["resourceVersion"]


def _soon(holds: Callable[[], bool]) -> None:
    """The API server learns of a new right by a watch of its own."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "not within ten seconds"
        time.sleep(0.05)


def test_a_pod_less_restricted_would_be_refused(place: Place) -> None:
    built = place.bundle("preflight")
    spec = built.job["spec"]["template"]["spec"]
    loose = {key: value for key, value in spec.items() if key != "securityContext"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": loose}
    place.apply(*built.before)
    with pytest.raises(Exception, match="violates PodSecurity"):
        place.apply(pod, options=("--dry-run=server",))


def test_an_account_may_what_is_named_and_nothing_else(place: Place) -> None:
    mine, other = place.bundle("snapshot"), place.bundle("stream")
    place.apply(*mine.before, *other.before)
    place.kubectl("create", "serviceaccount", "nobody")
    own, foreign = mine.report_names[2], other.report_names[0]
    _soon(lambda: place.may(mine.name, "patch", "workerreports/status", own))
    _soon(lambda: place.may(other.name, "patch", "workerreports/status", foreign))
    common = place.rules("nobody")
    more = [rule for rule in place.rules(mine.name) if rule not in common]
    told = [(rule["verbs"], rule["apiGroups"], rule["resources"], rule["resourceNames"]) for rule in more]
    assert sorted(told) == [
        (["get"], ["whimbrel.dev"], ["workerreports"], list(mine.report_names)),
        (["patch"], ["whimbrel.dev"], ["workerreports/status"], list(mine.report_names)),
    ]
    assert place.may(mine.name, "get", "workerreports", own)
    refused = [
        ("get", "workerreports", foreign, "whimbrel.dev"),
        ("patch", "workerreports/status", foreign, "whimbrel.dev"),
        ("list", "workerreports", "", "whimbrel.dev"),
        ("watch", "workerreports", "", "whimbrel.dev"),
        ("create", "workerreports", "", "whimbrel.dev"),
        ("patch", "workerreports", own, "whimbrel.dev"),
        ("update", "workerreports/status", own, "whimbrel.dev"),
        ("delete", "workerreports", own, "whimbrel.dev"),
        ("get", "migrations", OWNER.name, "whimbrel.dev"),
        ("get", "secrets", "dsql-target", ""),
        ("get", "configmaps", mine.name, ""),
        ("get", "pods", "", ""),
        ("create", "pods", "", ""),
        ("create", "serviceaccounts/token", mine.name, ""),
        ("get", "jobs", mine.name, "batch"),
    ]
    assert [each for each in refused if place.may(mine.name, *each[:3], group=each[3])] == []


def test_orders_failures_and_words_leave_each_other_alone(place: Place) -> None:
    built, wanted = place.bundle("stream"), usual(place.owner)["stream"][0]
    name = built.report_names[0]
    failures = Failures(count=2, last_at=datetime(2026, 11, 21, tzinfo=UTC))
    place.apply(
        reports.failures_report(place.owner, wanted.kind, wanted.ref, failures), manager=reports.FAILURES_MANAGER
    )
    place.apply(*built.before)
    word = {"task": "stream", "taskId": "stream", "observedAt": "2026-11-21T12:00:00Z"}
    who = ("--as", f"system:serviceaccount:{place.owner.namespace}:{built.name}")
    patch = ("patch", "workerreport", name, "--type", "merge", "--patch")
    _soon(lambda: place.may(built.name, "patch", "workerreports/status", name))
    head = {"apiVersion": OWNER.api_version, "kind": "WorkerReport", "metadata": {"name": name}}
    place.kubectl(*APPLY, "--validate=false", "--subresource", "status", *who, told={**head, "status": word})
    with pytest.raises(Exception, match=r"[Ff]orbidden"):
        place.kubectl(*patch, json.dumps({"spec": {"orders": {"retire": True}}}), *who)
    place.apply(reports.orders_report(place.owner, replace(wanted, orders=Orders(rows_per_second=5))))
    found = place.read("get", "workerreport", name)
    usual_orders = Orders().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert usual_orders.items() >= {"drainTo": "", "retire": False, "hold": False, "disarm": False}.items()
    assert found["spec"]["orders"] == usual_orders | {"rowsPerSecond": 5}
    assert found["spec"]["failures"] == {"count": 2, "lastAt": "2026-11-21T00:00:00Z"}
    assert found["status"]["observedAt"] == word["observedAt"]
    place.apply(
        reports.failures_report(place.owner, wanted.kind, wanted.ref, Failures()), manager=reports.FAILURES_MANAGER
    )
    place.apply(reports.orders_report(place.owner, replace(wanted, orders=Orders())))
    found = place.read("get", "workerreport", name)
    assert found["spec"] == {"orders": usual_orders, "failures": {"count": 0}}
    assert found["status"]["observedAt"] == word["observedAt"]


def test_a_job_is_scaled_as_it_runs(place: Place) -> None:
    wanted = usual(place.owner)["snapshot"]
    built = bundle(place.owner, wanted, SETTINGS)
    place.apply(*built.before, {**built.job, "spec": {**built.job["spec"], "suspend": True}})
    for count in (5, 2):
        scaled = bundle(place.owner, instances(wanted[0], count), SETTINGS)
        place.apply(*scaled.beside(place.read("get", "job", built.name)))
        place.kubectl("patch", "job", built.name, "--type", "merge", "--patch", json.dumps(jobs.scale(count)))
        spec = place.read("get", "job", built.name)["spec"]
        assert (spec["completions"], spec["parallelism"]) == (count, count)
        _soon(partial(place.may, built.name, "get", "workerreports", scaled.report_names[-1]))
    _soon(lambda: not place.may(built.name, "get", "workerreports", built.report_names[-1]))
