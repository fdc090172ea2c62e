"""The state directory of the local runtime: resources, patches, status, events, Secrets. No process is started here."""

import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whimbrel_api.base import API_VERSION
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus, Phase
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncStatus
from whimbrel_api.validation import Validation, ValidationStatus
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.migration.plan import frozen_changes
from whimbrel_operator.domain.reverse.end import is_released
from whimbrel_operator.errors import AlreadyRunning, NotAllowed, NotFound, StateUnreadable, StatusConflict
from whimbrel_operator.runtime.events import RecordedEvent, read_events, record_event
from whimbrel_operator.runtime.files import HeldLock, locked, make_folder, read_json, write_json, write_whole
from whimbrel_operator.runtime.instances import Instance, instances_in
from whimbrel_operator.runtime.patches import drop_overruled, merge_patch
from whimbrel_operator.runtime.port import Key, Status
from whimbrel_operator.runtime.processes import birth_of
from whimbrel_operator.runtime.resources import Resource

__all__ = ["Key", "LocalStore", "RecordedEvent", "Resource", "default_root"]

_KINDS: Mapping[str, type[Migration] | type[Validation] | type[ReverseSync]] = {
    "Migration": Migration,
    "Validation": Validation,
    "ReverseSync": ReverseSync,
}
_STATUSES: Mapping[str, type[MigrationStatus] | type[ValidationStatus] | type[ReverseSyncStatus]] = {
    "Migration": MigrationStatus,
    "Validation": ValidationStatus,
    "ReverseSync": ReverseSyncStatus,
}
_SAFE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SAFE_KEY = re.compile(r"(?!\.{1,2}$)[-._a-zA-Z0-9]{1,253}")
_REBUILT = "delete the file; the status is rebuilt from the target"
_APPLY_AGAIN = "delete its folder and run the manifest again; the data and what is known of them are in the target"


def default_root() -> Path:
    """$WHIMBREL_STATE, else $XDG_STATE_HOME/whimbrel, else ~/.local/state/whimbrel."""
    if own := os.environ.get("WHIMBREL_STATE"):
        return Path(own)
    shared = os.environ.get("XDG_STATE_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "state") / "whimbrel"


class LocalStore:
    """A folder a resource: `<root>/<namespace>/<kind>/<name>/`. Safe for several processes at once.

    resource.json  the manifest, its generation and uid     overlay.json  what commands changed in the spec
    status.json    the status under its resourceVersion     events.jsonl  the last events
    run.lock       held by the process that reconciles      tasks/<taskId>-<index>/  one a worker
    """

    def __init__(self, root: Path) -> None:
        self.root = make_folder(root.absolute())

    def folder(self, key: Key) -> Path:
        """Where a resource lies."""
        self._check_names(key)
        return self.root / key.namespace / key.kind / key.name

    def put(self, resource: Resource) -> Key:
        """Take a manifest in. A changed spec is a new generation; what the manifest changes overrules earlier commands.

        One that was deleted and is at its end begins anew. Raises NotAllowed when a field changed that the work already
        begun forbids.
        """
        key = Key(resource.metadata.namespace, resource.kind, resource.metadata.name)
        with self._locked(key):
            self._forget_ended(key)
            spec = resource.spec.model_dump(mode="json", by_alias=True)
            before = self._manifest(key)
            overlay = drop_overruled(self._overlay(key), before["spec"] if before else {}, spec)
            self._write_spec(key, before, spec, overlay, _belongs_to(resource))
        return key

    def patch_spec(self, key: Key, patch: Mapping[str, Any]) -> None:
        """Change the spec by a merge patch in camelCase, such as {"paused": True}; kept beside the manifest.

        Raises NotFound, NotAllowed (the result would be no valid spec, or a field that may not change).
        """
        with self._locked(key):
            before = self._known_manifest(key)
            self._write_spec(key, before, before["spec"], merge_patch(self._overlay(key), patch))

    def get(self, key: Key) -> Resource:
        """The resource with its effective spec and its status. Raises NotFound."""
        manifest = self._known_manifest(key)
        status, _ = self.read_status(key)
        spec = merge_patch(manifest["spec"], self._overlay(key))
        return self._resource(key, manifest["metadata"], spec, status)

    def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Key]:
        """All resources, sorted."""
        found = self.root.glob("*/*/*/resource.json")
        keys = [Key(path.parts[-4], path.parts[-3], path.parts[-2]) for path in found]
        wanted = [key for key in keys if kind in (None, key.kind) and namespace in (None, key.namespace)]
        return sorted(key for key in wanted if key.kind in _KINDS)

    def find(self, name: str, *, namespace: str = "default", kind: str = "Migration") -> Key:
        """The key of a resource by name. Raises NotFound, naming those that are there."""
        key = Key(namespace, kind, name)
        self._known_manifest(key)
        return key

    def delete(self, key: Key) -> None:
        """Forget a resource; the target is left as it is. Raises AlreadyRunning while a process works on it."""
        lock = self.lock(key)
        try:
            shutil.rmtree(self.folder(key))
        finally:
            lock.release()

    def mark_deleted(self, key: Key) -> None:
        """Ask for a resource's end, as an API server does where a finalizer holds it. Raises NotFound."""
        with self._locked(key):
            manifest = self._known_manifest(key)
            marked = {"deletionTimestamp": datetime.now(UTC).isoformat()} | manifest["metadata"]
            write_json(self.folder(key) / "resource.json", manifest | {"metadata": marked})

    def read_status(self, key: Key) -> tuple[Status, int]:
        """The status and its resourceVersion; an empty one and 0 where there is none."""
        stored = read_json(self.folder(key) / "status.json", _REBUILT)
        kind = _STATUSES[key.kind]
        if stored is None:
            return kind(), 0
        try:
            return kind.model_validate(stored.get("status", {})), int(stored.get("resourceVersion", 0))
        except (ValidationError, TypeError, ValueError) as error:
            raise StateUnreadable("a status is damaged", where=str(key), why=str(error), todo=_REBUILT) from error

    def write_status(self, key: Key, status: Status, resource_version: int) -> None:
        """Replace the status, if it still has that version. Raises StatusConflict."""
        with self._locked(key):
            _, current = self.read_status(key)
            if current != resource_version:
                why = f"it is at version {current}, not {resource_version}"
                raise StatusConflict("the status was written meanwhile", where=str(key), why=why, todo="observe again")
            value = {"resourceVersion": current + 1, "status": status.model_dump(mode="json", by_alias=True)}
            write_json(self.folder(key) / "status.json", value)

    def add_event(self, key: Key, event: Event) -> None:
        """Record an event; the same one again only counts."""
        with self._locked(key):
            record_event(self.folder(key) / "events.jsonl", event, datetime.now(UTC))

    def events(self, key: Key, limit: int = 50) -> Sequence[RecordedEvent]:
        """The last events, oldest first."""
        return read_events(self.folder(key) / "events.jsonl")[-limit:]

    def instances(self, key: Key) -> Sequence[Instance]:
        """The task instances kept, by task and index."""
        return instances_in(self.folder(key) / "tasks")

    def reports(self, key: Key) -> dict[str, WorkerReport]:
        """The newest report of each worker that is still kept, by `<taskId>-<index>`."""
        read = ((each.name, each.report()[0]) for each in self.instances(key))
        return {name: report for name, report in read if report is not None}

    def log_tail(self, key: Key, lines: int = 50) -> Mapping[str, Sequence[str]]:
        """The last lines that each worker wrote, by `<taskId>-<index>`."""
        return {each.name: each.log_tail(lines) for each in self.instances(key)}

    def put_secret(self, namespace: str, name: str, data: Mapping[str, str | bytes]) -> None:
        """Keep a Secret as one file a key, readable by the owner only. Keys that are gone are removed."""
        if not _SAFE_NAME.fullmatch(name) or not all(_SAFE_KEY.fullmatch(key) for key in data):
            raise NotAllowed("a Secret's name or key is no plain name", where=f"{namespace}/Secret/{name}")
        folder = make_folder(self.secret_folder(namespace, name))
        for key, value in data.items():
            write_whole(folder / key, value.encode() if isinstance(value, str) else value)
        for path in folder.iterdir():
            if path.name not in data:
                path.unlink(missing_ok=True)

    def secret_folder(self, namespace: str, name: str) -> Path:
        """Where a Secret's keys lie as files, whether or not it is there."""
        self._check_names(Key(namespace, "Secret", name))
        return self.root / namespace / "Secret" / name

    def spool_folder(self, namespace: str, claim: str) -> Path:
        """What stands for a volume of that name, whether or not it is there."""
        return self.root / namespace / "spool" / claim

    def lock(self, key: Key) -> HeldLock:
        """Reserve a resource for this process. Raises AlreadyRunning, NotFound."""
        self._known_manifest(key)
        lock = HeldLock(self.folder(key) / "run.lock")
        if not lock.taken:
            todo = "stop that one, or watch it with `whimbrel status`"
            raise AlreadyRunning(f"process {lock.owner} works on it already", where=str(key), todo=todo)
        return lock

    def worked_on(self, key: Key) -> bool:
        """Whether the process that last reserved the resource still lives. Takes no lock, so that it disturbs none."""
        try:
            owner = (self.folder(key) / "run.lock").read_text().strip()
        except FileNotFoundError:
            return False
        return owner.isdigit() and bool(birth_of(int(owner)))

    def _forget_ended(self, key: Key) -> None:
        """Drop what is kept of a deleted resource that may go. Its lock stays: this process holds it."""
        status = self.read_status(key)[0]
        if not isinstance(status, ReverseSyncStatus) or is_released(status) is None:
            return
        shutil.rmtree(self.folder(key) / "tasks", ignore_errors=True)
        for name in ("resource.json", "overlay.json", "status.json"):
            (self.folder(key) / name).unlink(missing_ok=True)

    def _write_spec(
        self,
        key: Key,
        before: dict[str, Any] | None,
        spec: dict[str, Any],
        overlay: dict[str, Any],
        belongs_to: Mapping[str, Any] | None = None,
    ) -> None:
        fresh = {"generation": 0, "uid": str(uuid.uuid4()), **(belongs_to or {})}
        metadata: dict[str, Any] = dict(before["metadata"]) if before else fresh
        after = self._resource(key, metadata | {"generation": 1}, merge_patch(spec, overlay), self.read_status(key)[0])
        if before is not None:
            old = self.get(key)
            self._refuse_frozen(key, old, after)
            changed = old.spec != after.spec
        else:
            changed = True
        metadata["generation"] += 1 if changed else 0
        manifest = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}
        write_json(self.folder(key) / "overlay.json", overlay)
        write_json(self.folder(key) / "resource.json", manifest)

    def _refuse_frozen(self, key: Key, old: Resource, new: Resource) -> None:
        if not isinstance(old, Migration) or not isinstance(new.spec, MigrationSpec):
            return
        changed = frozen_changes(old.spec, new.spec)
        if changed and old.status.phase is not Phase.PENDING:
            why = f"the migration is in {old.status.phase}"
            todo = "put it back, or give the new migration another name"
            raise NotAllowed(f"{', '.join(changed)} may not change any more", where=str(key), why=why, todo=todo)

    def _resource(self, key: Key, metadata: dict[str, Any], spec: dict[str, Any], status: Status) -> Resource:
        named = {"name": key.name, "namespace": key.namespace, **metadata}
        try:
            resource = _KINDS[key.kind].model_validate({"metadata": named, "spec": spec})
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise NotAllowed("the spec would not be valid", where=str(key), why=faults) from None
        return resource.model_copy(update={"status": status})

    def _manifest(self, key: Key) -> dict[str, Any] | None:
        return read_json(self.folder(key) / "resource.json", _APPLY_AGAIN)

    def _known_manifest(self, key: Key) -> dict[str, Any]:
        manifest = self._manifest(key) if key.kind in _KINDS else None
        if manifest is None:
            there = ", ".join(str(each) for each in self.list()) or "none"
            raise NotFound(f"no {key.kind} {key.name}", where=f"namespace {key.namespace}", why=f"there is {there}")
        return manifest

    def _overlay(self, key: Key) -> dict[str, Any]:
        return read_json(self.folder(key) / "overlay.json", _APPLY_AGAIN) or {}

    def _locked(self, key: Key) -> Any:
        return locked(make_folder(self.folder(key)) / "store.lock")

    def _check_names(self, key: Key) -> None:
        for part in (key.namespace, key.name):
            if not _SAFE_NAME.fullmatch(part):
                todo = "use lower-case letters, digits, - and ."
                raise NotFound(f"{part!r} is no name of a resource", todo=todo)


def _belongs_to(resource: Resource) -> dict[str, Any]:
    """The part of the metadata that says to whom it belongs."""
    owners = resource.metadata.owner_references or ()
    return {"ownerReferences": [each.model_dump(mode="json", by_alias=True) for each in owners]} if owners else {}
