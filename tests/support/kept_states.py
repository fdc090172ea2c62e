"""A folder of this machine with a migration as a run has left it: workers, logs, events, differences. No test here."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.live_states import migration
from whimbrel_api.migration import MigrationStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_api.validation import Validation, ValidationStatus
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.runtime.instances import Instance, Known
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.processes import birth_of
from whimbrel_operator.runtime.store import LocalStore

KEY = Key("default", "Migration", "shop")
LISTED = [
    {
        "table": "flights.flights", "kind": "changed", "key": {"id": "7"},
        "columns": {"tailnum": {"source": "N14228", "target": None}},
    },
    {"table": "flights.weather", "kind": "missing", "key": {"origin": "EWR", "hour": "5"}, "columns": {}},
]  # fmt: skip


def keep(root: Path, state: str, **status: Any) -> LocalStore:
    """A migration named shop in that state, kept with an event for each phase that a person cares about."""
    store = LocalStore(root)
    resource = migration(state)
    store.put(resource)
    told = resource.status.model_dump(mode="json", by_alias=True) | status
    _, version = store.read_status(KEY)
    store.write_status(KEY, MigrationStatus.model_validate(told), version)
    store.add_event(KEY, Event("Normal", "Started", "Pending → Preflight"))
    store.add_event(KEY, Event("Warning", "Retrying", "snapshot-0 ended with exit code 1"))
    return store


def keep_worker(
    store: LocalStore,
    task: str,
    kind: str,
    *,
    log: str = "",
    ago: float = 3630,
    exit_code: int | None = None,
    **said: Any,
) -> Instance:
    """A worker of that task with its log and its report. It is this process.

    `ago`: when it was started, in seconds; by default so that a slow machine shows an hour too.
    """
    now = datetime.now(UTC)
    instance = Instance(store.folder(KEY) / "tasks" / f"{task}-0")
    started = (now - timedelta(seconds=ago)).isoformat()
    instance.keep(Known(kind, task, 0, started, os.getpid(), birth_of(os.getpid()), exit_code=exit_code))
    instance.log_file.write_text(log, encoding="utf-8")
    word = {"task": kind, "taskId": task, "state": "Running", "observedAt": now} | said
    report = WorkerReport.model_validate(word)
    instance.report_file.write_text(report.model_dump_json(by_alias=True), encoding="utf-8")
    return instance


def keep_differences(store: LocalStore, task: str, key: Key = KEY) -> Path:
    """The file in which the first worker of a comparison has listed two rows."""
    path = store.folder(key) / f"differences-{task}-0.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LISTED), encoding="utf-8")
    return path


def keep_validation(store: LocalStore, name: str, **status: Any) -> Key:
    """A Validation of the migration shop."""
    made = Validation.model_validate({"metadata": {"name": name}, "spec": {"migrationRef": {"name": "shop"}}})
    key = store.put(made)
    store.write_status(key, ValidationStatus.model_validate(status), 0)
    return key
