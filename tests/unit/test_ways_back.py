"""The ReverseSync of a Migration's own as an object, in the local store and in the local loop."""

import asyncio
import sys
from pathlib import Path

from support.both_ways import WITH_WAY_BACK
from support.memory_runtime import migration
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import CutoverState, CutoverStatus
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncSpec
from whimbrel_operator import loop
from whimbrel_operator.domain.decision import WantedWayBack
from whimbrel_operator.runtime.local import LocalRuntime
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.store import LocalStore
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.rights import OPERATOR_RULES
from whimbrel_operator.specs.ways_back import reverse_sync

IDLE = (sys.executable, "-c", "import signal; signal.pause()")
WANTED = WantedWayBack("shop", ReverseSyncSpec(migration_ref=SecretRef(name="shop")), make=True)
BACK = Key("default", "ReverseSync", "shop")


def test_the_object_belongs_to_the_migration_and_says_no_more_than_its_name() -> None:
    body = reverse_sync(Owner("Migration", "default", "shop", "u1"), WANTED)
    found = ReverseSync.model_validate(body)
    assert found.metadata.belongs_to("u1")
    assert not found.metadata.belongs_to("u2")
    assert not found.metadata.belongs_to("")
    assert body["spec"] == {"migrationRef": {"name": "shop"}}


def test_the_operator_may_make_and_delete_it() -> None:
    rules = [rule for rule in OPERATOR_RULES if "reversesyncs" in rule["resources"]]
    assert {"create", "delete", "get", "list", "watch", "patch"} == {verb for rule in rules for verb in rule["verbs"]}


async def _made(store: LocalStore, key: Key) -> None:
    await LocalRuntime(store).make_way_back(key, WANTED)


def completed(store: LocalStore) -> Key:
    key = store.put(migration(**WITH_WAY_BACK))
    switched = CutoverStatus(state=CutoverState.SWITCHED)
    store.write_status(key, MigrationStatus(phase=Phase.COMPLETED, cutover=switched), 0)
    return key


def run(store: LocalStore, key: Key) -> loop.RunResult:
    return loop.run(store, [key], timeout=3, worker=IDLE, grace=0.1, handle_signals=False)


def test_a_run_takes_up_the_way_back_that_its_migration_has_made_and_goes_on_with_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = completed(store)
    asyncio.run(_made(store, key))
    owner = store.get(key).metadata.uid
    assert store.get(BACK).metadata.belongs_to(owner)
    result = run(store, key)
    assert [each.kind for each in result.resources] == ["Migration", "ReverseSync"]
    assert (result.finished, result.timed_out) == (False, True)
    assert store.get(BACK).metadata.belongs_to(owner)


def test_a_way_back_that_was_deleted_is_forgotten_by_the_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = completed(store)
    asyncio.run(_made(store, key))
    store.mark_deleted(BACK)
    result = run(store, key)
    assert [each.kind for each in result.resources] == ["Migration"]
    assert result.timed_out, "the target was not read, which alone says that it is over"
    assert BACK not in store.list()


def test_one_that_a_person_made_is_not_taken_up(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = completed(store)
    store.put(ReverseSync.model_validate({"metadata": {"name": "other"}, "spec": {"migrationRef": {"name": "shop"}}}))
    assert [each.kind for each in run(store, key).resources] == ["Migration"]
