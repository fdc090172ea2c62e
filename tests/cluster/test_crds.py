"""The definitions on a real API server: what it takes, fills in, refuses and shows. No status is written."""

import contextlib
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from support.crd_api import MANIFESTS, Json, Refused, Resources, good, patched
from support.patience import eventually
from whimbrel_api.errors import ManifestError
from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.rules import breaches
from whimbrel_api.validation import Validation
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
KINDS: dict[str, type[Migration] | type[Validation] | type[ReverseSync]] = {
    "Migration": Migration, "Validation": Validation, "ReverseSync": ReverseSync,
}  # fmt: skip
BAD: list[Json] = yaml.safe_load((MANIFESTS / "bad.yaml").read_text())
LARGEST_ANNOTATION = 262144


def published() -> list[tuple[str, Json]]:
    """Every resource of ours in the examples, the docs and among the good manifests."""
    files = [*ROOT.glob("examples/**/*.yaml"), *MANIFESTS.glob("good/*.yaml")]
    texts = [(path.name, path.read_text()) for path in files]
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        texts += [(f"{page.name}-{number}", block) for number, block in enumerate(blocks)]
    found = ((name, value) for name, text in texts for value in yaml.safe_load_all(text))
    return sorted(
        (f"{name}-{value['metadata']['name']}", value)
        for name, value in found
        if isinstance(value, dict) and value.get("kind") in KINDS
    )


PUBLISHED = published()


@pytest.fixture
def resources(cluster: KubernetesCluster, namespace: str) -> Resources:
    return Resources(cluster.kubeconfig, namespace)


@pytest.fixture
def trial(cluster: KubernetesCluster) -> Resources:
    """For dry runs, which need no namespace of their own."""
    return Resources(cluster.kubeconfig, "default")


def bad(case: Json) -> Json:
    """The whole manifest of an entry of bad.yaml."""
    patch = case["patch"]
    if "many" in case:
        tables = patch["spec"]["tables"]
        patch = {"spec": {"tables": {name: items * case["many"] for name, items in tables.items()}}}
    whole: Json = patched(good(case["over"]), patch)
    return whole


def named(case: Json) -> str:
    return f"{case['over']}-{case['names']}"


def test_enough_is_published_and_refused() -> None:
    assert {value["kind"] for _, value in PUBLISHED} == set(KINDS)
    assert len(PUBLISHED) >= 9
    assert len(BAD) >= 60


@pytest.mark.parametrize("manifest", [value for _, value in PUBLISHED], ids=[name for name, _ in PUBLISHED])
def test_what_is_published_is_taken_and_filled_in_as_the_types_say(resources: Resources, manifest: Json) -> None:
    made = resources.create(manifest)
    model = KINDS[manifest["kind"]]
    typed = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert made["spec"] == filled(typed["spec"], manifest["spec"])
    assert model.model_validate(made).spec == model.model_validate(manifest).spec


def filled(typed: Any, given: Any) -> Any:
    """What the API server makes of `given`: the types' defaults, but none in a list, so that it compares as applied."""
    if isinstance(typed, dict):
        return {name: filled(part, given.get(name) if given else None) for name, part in typed.items()}
    return given if isinstance(typed, list) and given is not None else typed


@pytest.mark.parametrize("case", BAD, ids=[f"{number}-{named(case)}" for number, case in enumerate(BAD)])
def test_what_is_wrong_is_refused_by_name_on_both_ways_in(trial: Resources, case: Json) -> None:
    with pytest.raises(Refused) as refused:
        trial.create(bad(case), dry_run="All")
    assert case["names"] in str(refused.value)
    assert refused.value.code in (400, 422)
    assert case["names"] in said_by_the_types(bad(case))


def said_by_the_types(manifest: Json) -> str:
    """What the command line says; a ReverseSync is for clusters alone, so there the types themselves are asked."""
    if manifest["kind"] != "ReverseSync":
        with pytest.raises(ManifestError) as refused:
            load_manifests(yaml.safe_dump(manifest, allow_unicode=True), "bad.yaml")
        return str(refused.value)
    try:
        found = [place for place, _ in breaches(ReverseSync.model_validate(manifest))]
    except ValidationError as error:
        found = [detail["loc"] for detail in error.errors()]
    assert found
    return " ".join(re.sub(r"\.(\d+)\b", r"[\1]", ".".join(map(str, place))) for place in found)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"source": {"mysql": {"prot": 1}}}, 'strict decoding error: unknown field "spec.source.mysql.prot"'),
        ({"target": {"postgresql": {"host": "p", "database": "d", "credentialsSecretRef": {"name": "s"}}}},
         "spec.target: Invalid value: .*name exactly one: auroraDSQL, postgresql"),
        ({"stream": {"flushInterval": "2h"}}, "spec.stream.flushInterval: Invalid value: .*a duration from 1ms to 1m"),
        ({"thresholds": {"lag": "1ms"}}, "spec.thresholds.lag: Invalid value: .*a lag shorter than stream.fl"),
        ({"target": {"auroraDSQL": {"region": "eu-west-1"}}}, "auroraDSQL.region: .*not the region in the endpoint's"),
        ({"reverseSync": {"enabled": True}}, "spec.reverseSync.enabled: .*there is no way back from this kind of tar"),
        ({"cutover": {"mode": "manual"}}, 'spec.cutover.mode: Unsupported value: "manual": supported values: "Manual"'),
    ],
)  # fmt: skip
def test_kubectl_tells_a_person_what_is_wrong(
    cluster: KubernetesCluster, namespace: str, patch: Any, words: str
) -> None:
    manifest = yaml.safe_dump(patched(good("migration-least"), {"spec": patch}))
    with pytest.raises(Exception, match=words):
        cluster.kubectl("-n", namespace, "apply", "-f", "-", input=manifest)


ENDS = [
    {"endpoint": endpoint, "region": region}
    for endpoint in ("abc.dsql.us-east-1.on.aws", "vpce.dsql-x1.eu-west-1.on.aws", "localhost", "on.aws")
    for region in ("us-east-1", "eu-west-1")
]
INTERVALS = ["1ms", "200ms", "0.2s", "1.5s", "1m", "0h1m", "59s"]


def test_rules_between_fields_say_the_same_in_both_languages(trial: Resources) -> None:
    specs = [
        {"mode": mode, "target": {"auroraDSQL": end}, "stream": {"flushInterval": flush}, "thresholds": {"lag": lag}}
        for mode, end, (flush, lag) in zip(
            itertools.cycle(["SnapshotOnly", "SnapshotAndStream", "SnapshotAndStream"]),
            itertools.cycle(ENDS),
            itertools.product(INTERVALS, INTERVALS),
            strict=False,
        )
    ]
    verdicts = {agreed(trial, patched(good("migration-least"), {"spec": spec})) for spec in specs}
    assert verdicts == {True, False}


def agreed(trial: Resources, manifest: Json) -> bool:
    """Whether the manifest is taken, by both ways in."""
    try:
        trial.create(manifest, dry_run="All")
        wrong: set[str] = set()
    except Refused as refused:
        wrong = refused.causes
    assert wrong == wrong_by_types(manifest), manifest
    return not wrong


def wrong_by_types(manifest: Json) -> set[str]:
    try:
        load_manifests(yaml.safe_dump(manifest), "some.yaml")
    except ManifestError as error:
        return {problem.path for problem in error.problems}
    return set()


def test_kubectl_shows_the_columns(cluster: KubernetesCluster, namespace: str, resources: Resources) -> None:
    made = resources.create(good("migration-least"))
    status = {
        "phase": "Following", "progress": "100%", "lag": "0.4s", "remaining": "21m5s", "epoch": 7,
        "snapshot": {"rowsCopied": 1234}, "cutover": {"state": "AwaitingApproval"},
    }  # fmt: skip
    resources.write_status(made, status)
    resources.create(good("migration-most"))

    def shown(*options: str) -> list[list[str]]:
        return [line.split() for line in cluster.kubectl("-n", namespace, "get", *options).splitlines()]

    head, first, second = shown("mig")
    assert head == ["NAME", "PHASE", "PROGRESS", "LAG", "AGE"]
    assert first[:4] == ["least", "Following", "100%", "0.4s"]
    assert second[0] == "most"
    head, first, second = shown("mig", "-o", "wide")
    assert head[5:] == ["SOURCE", "TARGET", "ROWS", "ETA", "CUTOVER", "EPOCH"]
    assert first[5:] == ["db.shop.svc", "abc.dsql.us-east-1.on.aws", "1234", "21m5s", "AwaitingApproval", "7"]
    assert second[-2:] == ["2001:db8::5", "pg.shop.svc"]


def test_short_names_and_the_category_without_the_internal_kind(
    cluster: KubernetesCluster, namespace: str, resources: Resources
) -> None:
    for name in ("migration-least", "validation-alone", "reversesync-alone"):
        resources.create(good(name))
    resources.create({"kind": "WorkerReport", "metadata": {"name": "w"}, "spec": {}})
    listed = cluster.kubectl("-n", namespace, "get", "whimbrel", "-o", "name").split()
    assert listed == [
        "migration.whimbrel.dev/least", "reversesync.whimbrel.dev/alone", "validation.whimbrel.dev/alone",
    ]  # fmt: skip
    for short, name in (("mig", "least"), ("val", "alone"), ("rsync", "alone"), ("workerreports", "w")):
        assert cluster.kubectl("-n", namespace, "get", short, "-o", "name").strip().endswith(f"/{name}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mig", ["A live database on its way from a source to a target", "spec", "status"]),
        ("mig.spec", ["What a user asks for", "Hold the work; the position is kept", "The way back after a cutover"]),
        ("mig.spec.snapshot.workers", ["How many processes share the copy"]),
        ("val.spec.recheck", ["How often a row that differs is looked at again"]),
        ("rsync.spec.cleanup", ["Drop the replication slot, if it was made here"]),
    ],
)
def test_kubectl_explains(cluster: KubernetesCluster, path: str, words: list[str]) -> None:
    def explained() -> str:
        """Empty while a young API server does not tell of its short names yet."""
        with contextlib.suppress(TestbedError):
            return " ".join(cluster.kubectl("explain", path, "--api-version=whimbrel.dev/v1alpha1").split())
        return ""

    told = eventually(explained)
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize("name", sorted(path.stem for path in MANIFESTS.glob("good/*.yaml")))
def test_applying_again_changes_nothing(cluster: KubernetesCluster, namespace: str, name: str) -> None:
    file = ("-n", namespace, "-f", str(MANIFESTS / "good" / f"{name}.yaml"))
    assert "created" in cluster.kubectl("apply", "--dry-run=server", *file)
    assert cluster.kubectl("apply", *file).strip().endswith("created")
    assert cluster.kubectl("apply", *file).strip().endswith("unchanged")
    assert cluster.kubectl("diff", *file) == ""
    version = ("get", "-n", namespace, "-f", file[-1], "-o", "jsonpath={.metadata.resourceVersion}")
    server = ("apply", "--server-side", "--force-conflicts", "--field-manager=gitops", *file)
    cluster.kubectl(*server)
    before = cluster.kubectl(*version)
    cluster.kubectl(*server)
    assert cluster.kubectl(*version) == before
    assert cluster.kubectl("diff", "--server-side", "--force-conflicts", "--field-manager=gitops", *file) == ""


def test_the_definitions_apply_from_the_client_side_again_and_again(cluster: KubernetesCluster) -> None:
    sizes = {path.name: len(path.read_text()) for path in CRDS.iterdir()}
    assert max(sizes.values()) < LARGEST_ANNOTATION / 2, sizes
    cluster.kubectl("apply", "-f", str(CRDS))
    again = cluster.kubectl("apply", "-f", str(CRDS)).splitlines()
    assert [line for line in again if not line.endswith("unchanged")] == []
    assert cluster.kubectl("diff", "-f", str(CRDS)) == ""
    for plural in ("migrations", "validations", "reversesyncs", "workerreports"):
        found = cluster.kubectl("get", "crd", f"{plural}.whimbrel.dev", "-o", "json")
        conditions = {each["type"]: each["status"] for each in yaml.safe_load(found)["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_every_field_of_every_spec_has_words() -> None:
    def silent(node: Json, path: str) -> list[str]:
        inner = [(f"{path}.{name}", child) for name, child in node.get("properties", {}).items()]
        inner += [(f"{path}[]", node["items"])] if "items" in node else []
        mute = [] if node.get("description") else [path]
        return mute + [each for place, child in inner for each in silent(child, place)]

    for file in sorted(CRDS.glob("*.yaml")):
        schema = yaml.safe_load(file.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        if "workerreports" not in file.name:
            assert silent(schema["properties"]["spec"], "spec") == [], file.name
