"""The state directory: generations, patches, conflicts, what may not change, hostile names."""

from pathlib import Path

import pytest

from support.memory_runtime import KEY, migration
from whimbrel_api.cutover import Cutover
from whimbrel_api.migration import Migration, MigrationStatus, Phase, Snapshot, Tables
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.errors import AlreadyRunning, NotAllowed, NotFound, StateUnreadable, StatusConflict
from whimbrel_operator.runtime.events import MOST_EVENTS
from whimbrel_operator.runtime.store import Key, LocalStore, default_root


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "state")


def got(store: LocalStore) -> Migration:
    found = store.get(KEY)
    assert isinstance(found, Migration)
    return found


def test_a_changed_spec_is_a_new_generation(store: LocalStore) -> None:
    store.put(migration())
    uid = got(store).metadata.uid
    store.put(migration())
    assert got(store).metadata.generation == 1
    store.put(migration(snapshot=Snapshot(workers=5)))
    assert (got(store).metadata.generation, got(store).metadata.uid) == (2, uid)
    store.patch_spec(KEY, {"paused": True})
    store.patch_spec(KEY, {"paused": True})
    assert got(store).metadata.generation == 3


def test_the_same_manifest_again_keeps_commands_and_a_changed_field_overrules_them(store: LocalStore) -> None:
    store.put(migration())
    store.patch_spec(KEY, {"paused": True, "cutover": {"approvedPlan": "sha256:1"}})
    store.put(migration())
    assert got(store).spec.paused
    store.put(migration(cutover=Cutover(approved_plan="sha256:2")))
    assert got(store).spec.cutover.approved_plan == "sha256:2"
    assert got(store).spec.paused


def test_what_may_not_change_once_begun(store: LocalStore) -> None:
    store.put(migration())
    store.put(migration(tables=Tables(include=["a.*"])))
    store.write_status(KEY, MigrationStatus(phase=Phase.SNAPSHOT), 0)
    with pytest.raises(NotAllowed, match=r"spec\.tables may not change any more.*Snapshot.*put it back"):
        store.put(migration(tables=Tables(include=["b.*"])))
    assert got(store).spec.tables.include == ["a.*"]
    with pytest.raises(NotAllowed, match=r"cutover\.mode"):
        store.patch_spec(KEY, {"cutover": {"mode": "Sometimes"}})


def test_a_status_is_written_under_its_version_only(store: LocalStore) -> None:
    store.put(migration())
    store.write_status(KEY, MigrationStatus(phase=Phase.SCHEMA), 0)
    with pytest.raises(StatusConflict, match="at version 1, not 0"):
        store.write_status(KEY, MigrationStatus(), 0)
    assert store.read_status(KEY) == (MigrationStatus(phase=Phase.SCHEMA), 1)


def test_a_damaged_file_is_named_with_the_remedy(store: LocalStore) -> None:
    store.put(migration())
    (store.folder(KEY) / "status.json").write_text("{")
    with pytest.raises(StateUnreadable, match=r"status\.json.*delete the file"):
        store.get(KEY)


def test_finding_names_what_is_there(store: LocalStore) -> None:
    store.put(migration())
    assert store.find("shop") == KEY
    with pytest.raises(NotFound, match="no Migration shpo; in namespace default; there is default/Migration/shop"):
        store.find("shpo")
    assert list(store.list("Migration")) == [KEY]
    assert list(store.list("Validation")) == []


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "A", "a\0b", "-a", ".a", "a" * 300])
def test_a_hostile_name_reaches_no_file(store: LocalStore, name: str) -> None:
    with pytest.raises(NotFound, match="is no name of a resource"):
        store.find(name)
    with pytest.raises(NotAllowed):
        store.put_secret("default", name, {"k": "v"})


@pytest.mark.parametrize("key", ["..", ".", "a/b", "", "a\0"])
def test_a_hostile_secret_key_reaches_no_file(store: LocalStore, key: str) -> None:
    with pytest.raises(NotAllowed):
        store.put_secret("default", "s", {key: "v"})


def test_a_rotated_secret_replaces_the_old_keys(store: LocalStore) -> None:
    store.put_secret("default", "s", {"old": "1", "password": b"x"})
    store.put_secret("default", "s", {"password": "y"})
    folder = store.secret_folder("default", "s")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"password": "y"}


def test_the_same_event_counts_and_their_number_is_bounded(store: LocalStore) -> None:
    store.put(migration())
    for _ in range(3):
        store.add_event(KEY, Event("Warning", "Retrying", "again"))
    assert [(each.reason, each.count) for each in store.events(KEY)] == [("Retrying", 3)]
    for number in range(MOST_EVENTS + 5):
        store.add_event(KEY, Event("Normal", "Step", str(number)))
    assert len(store.events(KEY, limit=10_000)) == MOST_EVENTS


def test_delete_forgets_unless_somebody_works_on_it(store: LocalStore) -> None:
    store.put(migration())
    lock = store.lock(KEY)
    with pytest.raises(AlreadyRunning):
        store.delete(KEY)
    lock.release()
    store.delete(KEY)
    with pytest.raises(NotFound):
        store.get(KEY)


def test_the_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path / "own"))
    assert default_root() == tmp_path / "own"
    monkeypatch.delenv("WHIMBREL_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "whimbrel"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_root() == Path.home() / ".local" / "state" / "whimbrel"


def test_a_key_reads_as_a_path() -> None:
    assert str(Key("a", "Migration", "b")) == "a/Migration/b"


def test_nothing_in_the_store_is_readable_by_others(store: LocalStore) -> None:
    store.put(migration())
    store.put_secret("default", "db", {"password": "x"})
    store.add_event(KEY, Event("Normal", "Begun", "yes"))
    lock = store.lock(KEY)
    found = [store.root, *store.root.rglob("*")]
    assert {f"{path.stat().st_mode & 0o777:o}" for path in found if path.is_dir()} == {"700"}
    assert {f"{path.stat().st_mode & 0o777:o}" for path in found if path.is_file()} == {"600"}
    lock.release()
