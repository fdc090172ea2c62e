"""Looking at and steering a migration in the local store, as a second terminal does it."""

import io
import json
from pathlib import Path

import pytest
import yaml

from support.live_states import PLAN, STATES, migration
from whimbrel_api.base import ObjectMeta, OwnerReference, SecretRef
from whimbrel_api.cutover import RollbackStatus
from whimbrel_api.migration import Migration, MigrationStatus
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncSpec
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import invoke
from whimbrel_cli.watcher import Watcher
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.runtime.store import Key, LocalStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path))
    return LocalStore(tmp_path)


def stored(store: LocalStore, state: str) -> Key:
    key = store.put(migration(state))
    store.write_status(key, MigrationStatus.model_validate(STATES[state]), store.read_status(key)[1])
    return key


def spec_of(store: LocalStore, key: Key) -> Migration:
    resource = store.get(key)
    assert isinstance(resource, Migration)
    return resource


def test_an_approval_is_for_the_current_plan(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = stored(store, "following")
    assert invoke(["approve", "shop"]) == Exit.DONE
    assert spec_of(store, key).spec.cutover.approved_plan == PLAN
    assert f"Approved the plan {PLAN} of shop." in capsys.readouterr().out


def test_an_approval_of_an_older_plan_is_refused(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = stored(store, "following")
    assert invoke(["approve", "shop", "--plan", "sha256:old"]) == Exit.FAILED
    assert f"sha256:old is not the plan of shop any more; it is {PLAN}." in capsys.readouterr().err
    assert spec_of(store, key).spec.cutover.approved_plan == ""


def test_without_a_plan_there_is_nothing_to_approve(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    stored(store, "pending")
    assert invoke(["approve", "shop"]) == Exit.FAILED
    assert "shop has no plan yet (phase Pending)." in capsys.readouterr().err


def test_pause_resume_and_cancel_change_the_spec(store: LocalStore) -> None:
    key = stored(store, "snapshot")
    assert invoke(["pause", "shop"]) == Exit.DONE
    assert spec_of(store, key).spec.paused
    assert invoke(["resume", "shop"]) == Exit.DONE
    assert not spec_of(store, key).spec.paused
    assert invoke(["cancel", "shop", "--yes"]) == Exit.DONE
    assert spec_of(store, key).spec.cancel


@pytest.mark.parametrize(("answer", "code"), [("n\n", Exit.FAILED), ("\n", Exit.FAILED), ("", Exit.INTERRUPTED)])
def test_a_cancellation_that_nobody_confirms_does_nothing(
    store: LocalStore, answer: str, code: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = stored(store, "snapshot")
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert invoke(["cancel", "shop"]) == code
    assert not spec_of(store, key).spec.cancel


@pytest.mark.parametrize("command", [["approve"], ["pause"], ["resume"], ["cancel", "--yes"]])
def test_what_is_at_its_end_cannot_be_steered(
    store: LocalStore, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stored(store, "completed")
    assert invoke([*command, "shop"]) == Exit.FAILED
    assert "shop is Completed already; nothing is left to steer." in capsys.readouterr().err


def test_a_status_in_words_shows_the_next_step(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    stored(store, "following")
    assert invoke(["status", "shop"]) == Exit.DONE
    assert f"whimbrel approve shop --plan {PLAN}" in " ".join(capsys.readouterr().out.split())


def test_a_status_names_the_logs_and_says_when_nobody_works_on_it(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    key = stored(store, "following")
    (store.folder(key) / "tasks" / "stream-0").mkdir(parents=True)
    assert invoke(["status", "shop"]) == Exit.DONE
    shown = capsys.readouterr().out
    assert f"Logs     {store.folder(key)}/tasks/*/log" in shown
    assert "Idle     no `whimbrel run` works on it now" in shown
    lock = store.lock(key)
    invoke(["status", "shop"])
    lock.release()
    assert "Idle" not in capsys.readouterr().out


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_status_for_scripts_is_the_whole_resource(
    store: LocalStore, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(store, "following")
    assert invoke(["status", "shop", "-o", output]) == Exit.DONE
    text = capsys.readouterr().out
    value = json.loads(text) if output == "json" else yaml.safe_load(text)
    assert (value["kind"], value["metadata"]["name"]) == ("Migration", "shop")
    assert value["status"]["plan"]["hash"] == PLAN
    assert value["spec"]["source"]["mysql"]["credentialsSecretRef"] == {"name": "source"}


def test_all_resources_stand_in_a_table(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    stored(store, "stalled")
    assert invoke(["status"]) == Exit.DONE
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAMESPACE", "NAME", "KIND", "PHASE", "PROGRESS", "LAG", "STATE"]
    assert row.split() == ["default", "shop", "Migration", "Preflight", "–", "Stalled"]


@pytest.mark.parametrize(("state", "code"), [("completed", Exit.DONE), ("cancelled", Exit.FAILED)])
def test_watching_ends_when_the_migration_is_at_its_end(
    store: LocalStore, state: str, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(store, state)
    assert invoke(["status", "shop", "-w"]) == code
    assert "Next:" in capsys.readouterr().out


WAY_BACK = {"reverseSync": {"enabled": True}}


def test_a_rollback_is_asked_for_and_taken_back(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = stored(store, "completed")
    assert invoke(["rollback", "shop", "--yes"]) == Exit.FAILED
    assert "shop has no way back." in capsys.readouterr().err
    store.patch_spec(key, WAY_BACK)
    assert invoke(["rollback", "shop", "--dry-run"]) == Exit.DONE
    assert not spec_of(store, key).spec.cutover.rollback
    assert invoke(["rollback", "shop", "--yes"]) == Exit.DONE
    assert spec_of(store, key).spec.cutover.rollback
    assert "Stop the application's writes to the target now." in capsys.readouterr().out
    assert invoke(["rollback", "shop", "--withdraw"]) == Exit.DONE
    assert not spec_of(store, key).spec.cutover.rollback


def test_a_rollback_that_was_given_up_is_taken_back_before_the_next(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    key = stored(store, "completed")
    store.patch_spec(key, WAY_BACK)
    found, version = store.read_status(key)
    assert isinstance(found, MigrationStatus)
    late = found.cutover.model_copy(update={"rollback": RollbackStatus(given_up=True), "message": "not done after 10m"})
    store.write_status(key, found.model_copy(update={"cutover": late}), version)
    assert invoke(["rollback", "shop", "--yes"]) == Exit.FAILED
    said = capsys.readouterr().err
    assert "not done after 10m" in said
    assert "whimbrel rollback shop --withdraw" in said


def test_what_is_not_completed_is_not_rolled_back(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = stored(store, "following")
    store.patch_spec(key, WAY_BACK)
    assert invoke(["rollback", "shop", "--yes"]) == Exit.FAILED
    assert "only what is Completed can be rolled back" in capsys.readouterr().err


def test_an_approval_takes_a_former_rollback_out(store: LocalStore) -> None:
    key = stored(store, "following")
    store.patch_spec(key, {"cutover": {"rollback": True}})
    assert invoke(["approve", "shop"]) == Exit.DONE
    assert not spec_of(store, key).spec.cutover.rollback


def with_its_way_back(store: LocalStore) -> tuple[Key, Key]:
    """A migration and the ReverseSync of its own, which has its name."""
    key = stored(store, "completed")
    store.patch_spec(key, WAY_BACK)
    owner = OwnerReference(kind="Migration", name="shop", uid=store.get(key).metadata.uid, controller=True)
    back = ReverseSync(
        metadata=ObjectMeta(name="shop", namespace=key.namespace, owner_references=(owner,)),
        spec=ReverseSyncSpec(migration_ref=SecretRef(name="shop")),
    )
    return key, store.put(back)


def test_a_way_back_is_named_by_its_kind(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    _, back = with_its_way_back(store)
    assert invoke(["pause", "shop"]) == Exit.FAILED
    capsys.readouterr()
    assert invoke(["pause", "reversesync/shop"]) == Exit.DONE
    assert store.get(back).spec.paused  # type: ignore[union-attr]
    assert "To go on: whimbrel resume reversesync/shop" in capsys.readouterr().out
    assert invoke(["resume", "ReverseSyncs/shop"]) == Exit.DONE
    assert not store.get(back).spec.paused  # type: ignore[union-attr]
    assert invoke(["approve", "reversesync/shop"]) == Exit.USAGE
    assert "is no Migration" in capsys.readouterr().err
    assert invoke(["pause", "pod/shop"]) == Exit.USAGE
    assert "There is no kind 'pod'." in capsys.readouterr().err


def test_what_happens_to_its_way_back_is_seen_with_a_migration(store: LocalStore) -> None:
    key, back = with_its_way_back(store)
    store.add_event(back, Event("Normal", "Streaming", "changes flow back"))
    (seen,) = [each for each in Watcher(store, key).look().events if each.reason == "Streaming"]
    assert seen.message == "ReverseSync shop: changes flow back"
    store.delete(back)
    assert "Streaming" not in [each.reason for each in Watcher(store, key).look().events]
