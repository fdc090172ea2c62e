"""`whimbrel cutover --dry-run` and what a person is told of a cutover's time, over the local store."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.live_states import STATES, migration
from whimbrel_api.cutover import Cutover, CutoverMode
from whimbrel_api.migration import Migration, MigrationStatus
from whimbrel_cli.exits import CliError, Exit
from whimbrel_cli.guidance import gates, next_step
from whimbrel_cli.inputs import read_files
from whimbrel_cli.main import invoke
from whimbrel_operator.runtime.store import Key, LocalStore

WAIT = "no cutover begins before 2026-12-06T02:00:00+01:00"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path))
    return LocalStore(tmp_path)


def said(kind: str, status: str = "True", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "Test", "message": message, "lastTransitionTime": NOW}


NOW = datetime.now(UTC)
OPEN = ("LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "IndexesReady", "RetentionSafe", "CutoverDue")


def following(store: LocalStore, *, age: float = 0.0) -> Key:
    """As one that was reported on `age` seconds ago, with every gate open."""
    key = store.put(migration("following"))
    at = datetime.now(UTC) - timedelta(seconds=age)
    status = STATES["following"] | {
        "observedGeneration": 1,
        "conditions": [said(kind) for kind in OPEN],
        "stream": {"lagSeconds": 0.4, "lagObservedAt": at},
        "validation": {"result": "Equal", "rowsCompared": 9, "validatedThrough": "p", "tookSeconds": 4.0,
                       "completedAt": at},
    }  # fmt: skip
    store.write_status(key, MigrationStatus.model_validate(status), store.read_status(key)[1])
    return key


def test_when_only_the_approval_is_missing_it_says_how_to_give_it(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    following(store)
    assert invoke(["cutover", "--dry-run", "shop"]) == Exit.DONE
    lines = capsys.readouterr().out.splitlines()
    plan = next(line for line in lines if line.startswith("Plan")).split()[1]
    assert lines[-1] == f"Ready. To let it begin: whimbrel approve shop --plan {plan}"
    assert "Approval   shut CutoverApproved (NotApproved)" in next(
        line for line in lines if line.startswith("Approval")
    )
    assert next(line for line in lines if line.startswith("Pause")).startswith("Pause      about 9.9 s without writes")
    assert [line for line in lines if line.startswith("Obstacles")] == []


def test_what_is_shut_is_named_and_the_exit_code_says_so(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    following(store, age=120.0)
    assert invoke(["cutover", "--dry-run", "shop"]) == Exit.FAILED
    out = capsys.readouterr().out
    assert "Gates      shut LagWithinThreshold (LagUnknown): read last: " in out
    assert out.splitlines()[-1] == "Not ready. Shut: LagWithinThreshold"


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_scripts_have_all_of_it(
    output: str, read: Callable[[str], Any], store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    key = following(store)
    store.patch_spec(key, {"paused": True})
    assert invoke(["cutover", "shop", "--dry-run", "-o", output]) == Exit.FAILED
    found = read(capsys.readouterr().out)
    assert found["ready"] is False
    assert [gate["type"] for gate in found["gates"] if gate["open"]] == list(OPEN)
    assert "spec.paused is true" in found["obstacles"]
    assert {"name", "state", "does", "takes"} == found["steps"][0].keys()
    assert (found["pause"]["seconds"], found["pause"]["atMost"]) == (9.9, False)


def test_it_changes_nothing(store: LocalStore) -> None:
    key = following(store)
    before = (store.get(key), store.read_status(key))
    invoke(["cutover", "--dry-run", "shop"])
    assert (store.get(key), store.read_status(key)) == before


def test_without_dry_run_it_says_what_begins_a_cutover(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    following(store)
    assert invoke(["cutover", "shop"]) == Exit.USAGE
    assert "to let it begin: whimbrel approve shop" in capsys.readouterr().err


def test_nothing_is_left_of_a_completed_one(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = store.put(migration("completed"))
    store.write_status(key, MigrationStatus.model_validate(STATES["completed"]), store.read_status(key)[1])
    assert invoke(["cutover", "--dry-run", "shop"]) == Exit.FAILED
    assert "shop is Completed already; no cutover is left." in capsys.readouterr().err


def test_an_approved_plan_that_waits_for_its_window_says_until_when() -> None:
    resource = waiting("True")
    assert next_step(resource) == f"Approved; {WAIT}"
    assert {gate.name: gate.open for gate in gates(resource, NOW)}["time"] is False


def test_a_plan_that_nobody_has_approved_does_not_say_so() -> None:
    assert next_step(waiting("False")) == ""


def cutting(cutover: dict[str, object], **policy: object) -> Migration:
    resource = migration("following")
    spec = resource.spec.model_copy(update={"cutover": Cutover.model_validate(policy)})
    told = {"phase": "CuttingOver", "cutover": {"message": "what is done"} | cutover}
    return resource.model_copy(update={"spec": spec, "status": MigrationStatus.model_validate(told)})


HOOKS = {"beforeFreeze": [{"name": "stop", "serviceAccountName": "mover", "image": "tools"}]}
RUN = {"id": "before-freeze-stop-1", "point": "BeforeFreeze", "name": "stop", "state": "Running"}


@pytest.mark.parametrize(
    "resource",
    [
        cutting({"state": "Freezing"}, sourceFreeze="Operator"),
        cutting({"state": "Freezing"}, hooks=HOOKS),
        cutting({"state": "Freezing", "hooks": [RUN]}, hooks=HOOKS),
        cutting({"state": "TimedOut"}, mode="Automatic"),
    ],
)
def test_nobody_is_asked_to_do_what_is_done_for_him(resource: Migration) -> None:
    step = next_step(resource)
    assert step.startswith("what is done")
    assert "Stop the application" not in step
    assert "approve" not in step


def test_a_person_stops_the_writes_where_nobody_else_does() -> None:
    ended = [RUN | {"state": "Succeeded"}]
    assert next_step(cutting({"state": "Freezing", "hooks": ended}, hooks=HOOKS)).startswith(
        "Stop the application's writes"
    )


def waiting(approved: str) -> Migration:
    told = {"phase": "Following", "cutover": {"state": "NotReady"}, "plan": {"hash": "sha256:1"}}
    conditions = [said("CutoverApproved", approved), said("CutoverDue", "False", WAIT)]
    status = MigrationStatus.model_validate(told | {"conditions": conditions})
    return migration("following").model_copy(update={"status": status})


MANIFEST = """
apiVersion: whimbrel.dev/v1alpha1
kind: Migration
metadata: {name: shop}
spec:
  source: {mysql: {host: db, credentialsSecretRef: {name: db}}}
  target: {postgresql: {host: pg, database: d, credentialsSecretRef: {name: pg}}}
  cutover: {mode: %s, window: {schedule: "%s", timeZone: %s}}
"""


@pytest.mark.parametrize(
    ("schedule", "zone", "fields"),
    [
        ("0 25 * * *", "UTC", ["schedule"]),
        ("0 2 * * *", "Mars/Olympus", ["timeZone"]),
        ("0 25 * * *", "Mars/Olympus", ["schedule", "timeZone"]),
        ("0 2 * * SUN", "Europe/Berlin", []),
    ],
)
def test_a_window_is_read_when_its_file_is(tmp_path: Path, schedule: str, zone: str, fields: list[str]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(MANIFEST % (CutoverMode.MANUAL, schedule, zone))
    if not fields:
        assert len(read_files([str(file)])) == 1
        return
    with pytest.raises(CliError) as refused:
        read_files([str(file)])
    assert refused.value.code is Exit.USAGE
    lines = refused.value.what.splitlines()
    assert len(lines) == len(fields)
    for line, field in zip(lines, fields, strict=True):
        assert line.startswith(f"{file}: Migration/shop: spec.cutover.window.{field}: ")
