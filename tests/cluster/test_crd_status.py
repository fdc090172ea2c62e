"""Statuses and changes on a real API server: nothing written is lost, and what is held in place stays."""

import copy
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from support.crd_api import Filler, Json, Refused, Resources, good, patched
from whimbrel_api.crds import DEFINITIONS, Definition, definition_of
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus, Phase, TableStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSyncStatus
from whimbrel_api.rules import FROZEN
from whimbrel_api.validation import ValidationStatus
from whimbrel_api.worker_reports import WorkerReportSpec
from whimbrel_operator.domain.migration.plan import frozen_changes
from whimbrel_operator.errors import NotAllowed
from whimbrel_operator.runtime.store import LocalStore
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

SEEDS = [11, 12, 13]
STATUSES: dict[str, tuple[type[BaseModel], Json]] = {
    "Migration": (MigrationStatus, good("migration-least")),
    "Validation": (ValidationStatus, good("validation-alone")),
    "ReverseSync": (ReverseSyncStatus, good("reversesync-alone")),
    "WorkerReport": (WorkerReport, {"kind": "WorkerReport", "metadata": {"name": "w"}, "spec": {}}),
}


@pytest.fixture
def resources(cluster: KubernetesCluster, namespace: str) -> Resources:
    return Resources(cluster.kubeconfig, namespace)


def dumped(model: BaseModel) -> Any:
    return model.model_dump(mode="json", by_alias=True)


def bare(value: Any) -> Any:
    """The value without what is null."""
    if isinstance(value, dict):
        return {name: bare(part) for name, part in value.items() if part is not None}
    return [bare(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("nulls", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", sorted(STATUSES))
def test_nothing_of_a_status_is_lost(resources: Resources, kind: str, seed: int, nulls: float) -> None:
    model, manifest = STATUSES[kind]
    made = resources.create(manifest)
    written = Filler(seed, nulls).model(model)
    resources.write_status(made, dumped(written))
    read = resources.get(kind, made["metadata"]["name"])
    assert bare(read["status"]) == bare(dumped(written))
    assert model.model_validate(read["status"]) == written
    assert read["spec"] == made["spec"]


def test_what_is_unknown_is_null_or_absent_and_never_a_zero(resources: Resources) -> None:
    made = resources.create(good("migration-least"))
    read = resources.write_status(made, dumped(MigrationStatus()))["status"]
    assert (read["stream"]["lagSeconds"], read["snapshot"]["eta"]) == (None, None)
    assert "result" not in read["validation"], "a choice cannot be null in a schema, so it is absent"
    assert MigrationStatus.model_validate(read) == MigrationStatus()
    read = resources.write_status(made | {"metadata": resources.get("Migration", "least")["metadata"]}, None)
    assert "status" not in read
    assert Migration.model_validate(read).status == MigrationStatus()


def test_the_operators_orders_to_a_worker_come_through(resources: Resources) -> None:
    for seed in SEEDS:
        spec = Filler(seed).model(WorkerReportSpec)
        body = {"kind": "WorkerReport", "metadata": {"name": f"w{seed}"}, "spec": bare(dumped(spec))}
        assert WorkerReportSpec.model_validate(resources.create(body)["spec"]) == spec
    bare_one = resources.create({"kind": "WorkerReport", "metadata": {"name": "w"}, "spec": dumped(WorkerReportSpec())})
    assert WorkerReportSpec.model_validate(bare_one["spec"]) == WorkerReportSpec()


def test_a_hundred_tables_and_the_longest_positions(resources: Resources) -> None:
    made = resources.create(good("migration-least"))
    status = Filler(1).model(MigrationStatus)
    long = TableStatus(name="d." + "t" * 64, state="Stopped", rows_total=10**12, differences=3, message="é" * 4096)
    whole = status.model_copy(update={"tables": [long] * 100})
    assert len(whole.stream.position) == len(whole.checkpoint.position) == 16384
    read = resources.write_status(made, dumped(whole))
    assert MigrationStatus.model_validate(read["status"]) == whole
    report = Filler(1, items=100).model(WorkerReport)
    made = resources.create(STATUSES["WorkerReport"][1])
    assert WorkerReport.model_validate(resources.write_status(made, dumped(report))["status"]) == report


def test_an_old_version_of_the_resource_writes_no_status(resources: Resources) -> None:
    made = resources.create(good("migration-least"))
    resources.write_status(made, dumped(MigrationStatus(phase=Phase.SCHEMA)))
    with pytest.raises(Refused) as refused:
        resources.write_status(made, dumped(MigrationStatus()))
    assert refused.value.code == 409


PG = {"host": "p", "database": "d", "credentialsSecretRef": {"name": "s"}}
CHANGES: tuple[Json, ...] = (
    {"mode": "SnapshotOnly"},
    {"source": {"mysql": {"host": "other"}}},
    {"source": {"mysql": {"port": 3307}}},
    {"source": {"mysql": {"credentialsSecretRef": {"name": "rotated"}}}},
    {"source": {"mysql": {"tls": {"mode": "Disabled"}}}},
    {"target": {"auroraDSQL": {"endpoint": "localhost"}}},
    {"target": {"auroraDSQL": {"port": 5433}}},
    {"target": {"auroraDSQL": {"endpoint": "abc.dsql.eu-west-1.on.aws", "region": "eu-west-1"}}},
    {"target": {"auroraDSQL": {"database": "other"}}},
    {"target": {"auroraDSQL": {"user": "other"}}},
    {"target": {"auroraDSQL": {"credentialsSecretRef": {"name": "rotated"}}}},
    {"target": {"auroraDSQL": {"tls": {"caSecretRef": {"name": "ca"}}}}},
    {"target": {"auroraDSQL": None, "postgresql": PG}},
    {"tables": {"include": ["shop.*"]}},
    {"tables": {"include": ["b.*", "a.*"]}},
    {"tables": {"include": []}},
    {"tables": {"exclude": ["shop.log"]}},
    {"tables": {"overrides": [{"name": "shop.a", "renameTo": "public.a"}]}},
    {"tables": {"overrides": [{"name": "shop.a", "columns": [{"name": "c", "type": "text"}]}]}},
    {"schema": {"mode": "Existing"}},
    {"schema": {"mode": "CreateIfMissing"}},
    {"snapshot": {"workers": 7, "rateLimit": {"rowsPerSecond": 1}}},
    {"stream": {"applyConnections": 1}},
    {"thresholds": {"lag": "9s", "differences": 1}},
    {"validation": {"maxAge": "2h"}},
    {"cutover": {"approvedPlan": "sha256:1", "mode": "Automatic"}},
    {"paused": True},
    {"cancel": True},
)  # fmt: skip


def changed(chance: random.Random, spec: Json, most: int) -> Json:
    """The spec with some of the changes, or with none; those of a target's kind that is not given are left out."""
    for change in chance.sample(CHANGES, chance.randrange(most + 1)):
        kinds: Json = change.get("target", {})
        if "postgresql" in kinds or kinds.keys() <= spec["target"].keys():
            spec = patched(spec, change)
    return spec


def by_the_server(resources: Resources, body: Json, spec: Json) -> set[str]:
    try:
        resources.replace(body | {"spec": spec}, dry_run="All")
    except Refused as refused:
        return refused.causes
    return set()


def by_the_store(store: LocalStore, spec: Json) -> set[str]:
    resource = Migration.model_validate(good("migration-least") | {"spec": spec})
    before = store.get(store.find("least"))
    try:
        store.put(resource)
    except NotAllowed as error:
        return {word.strip() for word in str(error).split(" may not")[0].split(",")}
    store.put(before)
    return set()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_held_in_place_is_the_same_everywhere(resources: Resources, tmp_path: Path, seed: int) -> None:
    chance, frozen = random.Random(seed), set[str]()
    kept = good("migration-least")["spec"]["target"] | {"postgresql": None}
    base = patched(changed(chance, good("migration-least")["spec"], 8), {"target": kept})
    store = LocalStore(tmp_path)
    key = store.put(Migration.model_validate(good("migration-least") | {"spec": base}))
    store.write_status(key, MigrationStatus(phase=Phase.SNAPSHOT), 0)
    made = resources.create(good("migration-least") | {"spec": base})
    made = resources.write_status(made, dumped(MigrationStatus(phase=Phase.SNAPSHOT)))
    alone = [patched(base, change) for change in CHANGES]
    for spec in [*alone, *(changed(chance, base, 4) for _ in range(60))]:
        expected = set(frozen_changes(MigrationSpec.model_validate(base), MigrationSpec.model_validate(spec)))
        assert by_the_server(resources, made, spec) == expected, (seed, spec)
        assert by_the_store(store, spec) == expected, (seed, spec)
        frozen |= expected
    assert frozen == {f"spec.{name}" for name in FROZEN}


FROZEN_CHANGE = {"source": {"mysql": {"host": "other"}}}


@pytest.mark.parametrize("phase", list(Phase))
def test_only_pending_lets_the_source_change(resources: Resources, phase: Phase) -> None:
    made = resources.create(good("migration-least"))
    made = resources.write_status(made, dumped(MigrationStatus(phase=phase)))
    refused = by_the_server(resources, made, patched(made["spec"], FROZEN_CHANGE))
    assert refused == (set() if phase is Phase.PENDING else {"spec.source"})


@pytest.mark.parametrize("status", [None, {}, {"epoch": 3}])
def test_a_status_that_is_missing_opens_nothing(resources: Resources, status: Json | None) -> None:
    made = resources.create(good("migration-least"))
    made = resources.write_status(made, dumped(MigrationStatus(phase=Phase.SNAPSHOT)))
    made = resources.write_status(made, status)
    assert by_the_server(resources, made, patched(made["spec"], FROZEN_CHANGE)) == {"spec.source"}
    assert by_the_server(resources, made, patched(made["spec"], {"paused": True})) == set()
    made.pop("status", None)
    assert by_the_server(resources, made, made["spec"]) == set()


def test_kubectl_tells_what_may_not_change_and_what_to_do(
    cluster: KubernetesCluster, namespace: str, resources: Resources
) -> None:
    made = resources.create(good("migration-least"))
    resources.write_status(made, dumped(MigrationStatus(phase=Phase.FOLLOWING)))
    words = r"spec\.tables: .*cannot change unless status\.phase is Pending: put it back, or make another Migration"
    with pytest.raises(Exception, match=words):
        cluster.kubectl(
            "-n", namespace, "patch", "mig", "least", "--type=merge", "-p", '{"spec":{"tables":{"include":["x"]}}}'
        )
    cluster.kubectl("-n", namespace, "patch", "mig", "least", "--type=merge", "-p", '{"spec":{"paused":true}}')
    assert resources.get("Migration", "least")["status"]["phase"] == "Following"


def older(definition: Definition, group: str, strip: Callable[[Json], None]) -> Json:
    """A definition as an earlier version may have had it, in a group of its own."""
    found = copy.deepcopy(definition_of(definition))
    names = found["spec"]["names"]
    names.pop("shortNames", None)
    names.pop("categories", None)
    found["spec"]["group"] = group
    found["metadata"]["name"] = f"{definition.plural}.{group}"
    strip(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return found


def without_rules(node: Json) -> None:
    """Take all rules and bounds away."""
    for word in ("x-kubernetes-validations", "minimum", "maximum", "pattern", "maxLength", "maxItems"):
        node.pop(word, None)
    for child in (*node.get("properties", {}).values(), *([node["items"]] if "items" in node else ())):
        without_rules(child)


def test_a_status_is_written_even_where_the_spec_breaks_newer_rules(cluster: KubernetesCluster, namespace: str) -> None:
    group = f"{namespace}.example.org"
    resources = Resources(cluster.kubeconfig, namespace, group)
    crd = f"customresourcedefinition/migrations.{group}"
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(older(DEFINITIONS[0], group, without_rules)))
    try:
        cluster.wait("Established", crd)
        broken = {"spec.reverseSync.enabled", "spec.reverseSync.polardb", "spec.thresholds.lag"}
        wrong = {"reverseSync": {"enabled": True}, "thresholds": {"lag": "1ms"}, "snapshot": {"workers": 1000}}
        made = resources.create(patched(good("migration-least"), {"spec": wrong}))
        cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(older(DEFINITIONS[0], group, lambda _: None)))
        await_rules(resources)
        status = dumped(Filler(5).model(MigrationStatus).model_copy(update={"phase": Phase.SNAPSHOT}))
        written = resources.write_status(made, status)
        assert bare(written["status"]) == bare(status)
        held = resources.replace(patched(written, {"metadata": {"finalizers": ["whimbrel.dev/finalizer"]}}))
        freed = resources.replace(patched(held, {"metadata": {"finalizers": []}}))
        assert by_the_server(resources, freed, patched(freed["spec"], {"paused": True})) == broken
        mended = {"paused": True, "reverseSync": {"enabled": False}, "thresholds": {"lag": "5s"}}
        assert by_the_server(resources, freed, patched(freed["spec"], mended)) == set()
    finally:
        cluster.kubectl("delete", crd, "--wait=false")


def await_rules(resources: Resources) -> None:
    """Until the API server judges by the newer definition, for 30 s at most."""
    fresh = patched(good("migration-least"), {"metadata": {"name": "fresh"}, "spec": {"snapshot": {"workers": 1000}}})
    deadline = time.monotonic() + 30
    while True:
        try:
            resources.create(fresh, dry_run="All")
        except Refused:
            return
        assert time.monotonic() < deadline, "the API server still takes what the newer definition refuses"
        time.sleep(0.05)
