"""A migration with a spool: changes are collected beside the copy onto a volume of the stream's pods."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from support.life import Life
from support.wanted import OWNER, SETTINGS, instances, work
from support.world import World
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, Source, Target
from whimbrel_api.migration import Migration, Mode, Phase, Spool, Stream
from whimbrel_api.rules import breaches
from whimbrel_api.tasks import TaskFile, TaskKind
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.runtime.local import LocalRuntime
from whimbrel_operator.runtime.store import Key, LocalStore
from whimbrel_operator.specs.bundle import bundle
from whimbrel_operator.specs.taskfile import cluster_task_file
from whimbrel_worker.taskfile import located

SHARDED: dict[str, Any] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
    "cutover": Cutover(mode=CutoverMode.AUTOMATIC),
}
SPOOL = Spool(claim_name="changes")
FOLDER = "/var/lib/whimbrel/spool"


def stream_task(life: Life, index: int = 0) -> WantedTask | None:
    found = life.runtime.instances.get(TaskRef("stream", index))
    return found[1] if found is not None else None


def collected(life: Life) -> bool:
    wanted = stream_task(life)
    return wanted is not None and wanted.collect


def test_changes_are_collected_beside_the_copy_and_applied_after_it() -> None:
    life = Life(World(snapshot_steps=6), stream=Stream(workers=2, spool=SPOOL), **SHARDED)
    life.until_phase(Phase.SCHEMA)
    assert stream_task(life) is None
    life.until_phase(Phase.SNAPSHOT)
    life.go(1)
    assert collected(life)
    assert stream_task(life, 1) is not None
    assert life.runtime.orders("stream").workers == 2
    first = life.runtime.acts.index("start stream-0")
    life.until_phase(Phase.CATCH_UP)
    life.go(3)
    assert not collected(life)
    assert stream_task(life) is not None
    assert life.runtime.acts[first + 1 :].index("remove stream-0") < life.runtime.acts[first + 1 :].index(
        "start stream-0"
    )
    life.until_phase(Phase.COMPLETED)


def test_a_collector_that_fails_is_told_and_the_copy_goes_on() -> None:
    life = Life(World(snapshot_steps=8), stream=Stream(spool=SPOOL), **SHARDED)
    life.until_phase(Phase.SNAPSHOT)
    life.go(1)
    life.runtime.silent.add("stream")
    life.until_phase(Phase.CATCH_UP)
    assert life.status.snapshot.rows_copied > 0


@pytest.mark.parametrize("spec", [{"stream": Stream()}, {"stream": Stream(spool=SPOOL), "mode": Mode.SNAPSHOT_ONLY}])
def test_without_a_spool_or_a_stream_nothing_is_collected(spec: dict[str, Any]) -> None:
    life = Life(World(snapshot_steps=6), **SHARDED | spec)
    life.until_phase(Phase.SNAPSHOT)
    life.go(3)
    assert stream_task(life) is None


def wanted(kind: TaskKind, *, collect: bool = False, spool: Spool | None = SPOOL) -> WantedTask:
    told = replace(work(), stream=Stream(spool=spool))
    return WantedTask(kind, TaskRef(kind.value), told, epoch=7, generation=3, again=True, collect=collect)


def pod(task: WantedTask) -> dict[str, Any]:
    built = bundle(OWNER, instances(task, 2), SETTINGS)
    for version in ("1.36", "1.37"):
        kubernetes_validate.validate(built.job, version, strict=True)
    spec: dict[str, Any] = built.job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("collect", [True, False])
def test_the_streams_pods_mount_the_claim(collect: bool) -> None:
    spec = pod(wanted(TaskKind.STREAM, collect=collect))
    assert {"name": "spool", "persistentVolumeClaim": {"claimName": "changes"}} in spec["volumes"]
    assert {"name": "spool", "mountPath": FOLDER} in spec["containers"][0]["volumeMounts"]


@pytest.mark.parametrize("kind", [kind for kind in TaskKind if kind is not TaskKind.STREAM])
def test_no_other_pods_mount_it(kind: TaskKind) -> None:
    spec = pod(wanted(kind))
    assert not re.search("spool", str(spec["volumes"]) + str(spec["containers"]))
    assert cluster_task_file(OWNER, wanted(kind)).spool == ""


def test_the_task_file_says_where_it_is_and_what_to_do() -> None:
    told = cluster_task_file(OWNER, wanted(TaskKind.STREAM, collect=True))
    assert (told.spool, told.collect) == (FOLDER, True)
    assert cluster_task_file(OWNER, wanted(TaskKind.STREAM)).collect is False
    assert cluster_task_file(OWNER, wanted(TaskKind.STREAM, spool=None)).spool == ""


def test_collecting_is_another_task_than_applying_and_neither_restarts_what_has_no_spool() -> None:
    assert wanted(TaskKind.STREAM, collect=True).fingerprint != wanted(TaskKind.STREAM).fingerprint
    assert wanted(TaskKind.STREAM, spool=None).fingerprint == replace(wanted(TaskKind.STREAM), work=work()).fingerprint


def test_paths_are_relative_to_the_task_files_folder() -> None:
    told = cluster_task_file(OWNER, wanted(TaskKind.STREAM)).model_copy(update={"spool": "../spool"})
    assert located(told, Path("/a/b"), {}).spool == "/a/spool"
    absolute: TaskFile = told.model_copy(update={"spool": FOLDER})
    assert located(absolute, Path("/a/b"), {}).spool == FOLDER


def test_on_one_machine_a_folder_stands_for_the_claim(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    runtime = LocalRuntime(store)
    folder = runtime._spool(Key("shop", "Migration", "items"), wanted(TaskKind.STREAM))
    assert Path(folder) == tmp_path / "shop" / "spool" / "changes"
    assert Path(folder).is_dir()
    assert runtime._spool(Key("shop", "Migration", "items"), wanted(TaskKind.CHECK)) == ""


def spec_of(source: dict[str, Any], target: dict[str, Any], claim: str = "changes") -> Migration:
    spec = {"source": source, "target": target, "stream": {"spool": {"claimName": claim}}}
    return Migration.model_validate({"metadata": {"name": "m"}, "spec": spec})


DYNAMODB = {"dynamodb": {"region": "us-east-1"}}
POLARDB = {"dynamodb": {"endpoint": "http://pc:5432", "credentialsSecretRef": {"name": "dst"}}}
MYSQL = {"mysql": {"host": "a", "credentialsSecretRef": {"name": "src"}}}
POSTGRES = {"postgresql": {"host": "b", "database": "d", "credentialsSecretRef": {"name": "dst"}}}


def test_a_spool_is_for_a_dynamodb_source_only() -> None:
    assert not list(breaches(spec_of(DYNAMODB, POLARDB)))
    ((where, message),) = breaches(spec_of(MYSQL, POSTGRES))
    assert where == ("spec", "stream", "spool")
    assert "leave it out" in message


def test_a_claims_name_cannot_be_a_path() -> None:
    with pytest.raises(ValidationError):
        spec_of(DYNAMODB, POLARDB, claim="../other")
