"""A real Prometheus scrapes what the operator serves: it answers every panel, and every alert's words can be filled in.

What is served here is said by hand, so that every figure has a value at once; for a migration that really runs see
tests/cluster/test_dashboard_on_cluster.py.
"""

import asyncio
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.memory_runtime import migration
from support.panels import as_grafana
from support.patience import beside, eventually
from whimbrel_api.base import Condition
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_api.migration import (
    CheckResult,
    Differences,
    MigrationStatus,
    MigrationValidationStatus,
    Phase,
    SnapshotStatus,
    StreamStatus,
    TableStatus,
)
from whimbrel_api.reports import Counters, StreamResult, WorkerReport, WorkerState
from whimbrel_api.reverse_sync import (
    Resolved,
    ReverseDynamoDB,
    ReverseSource,
    ReverseSyncPhase,
    ReverseSyncStatus,
    ReverseTarget,
    SlotStatus,
)
from whimbrel_api.tasks import TaskKind
from whimbrel_api.validation import ValidationPhase, ValidationStatus
from whimbrel_operator.domain.observed import Observed, TaskRef, Tasks, TaskState
from whimbrel_operator.figures import dashboard
from whimbrel_operator.health import Health, HealthServer
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.wakeups import Board
from whimbrel_testbed.prometheus import PrometheusServer, programs, prometheus_server

ALERTS = Path(__file__).parents[2] / "charts" / "whimbrel" / "files" / "alerts.yaml"


@contextmanager
def serving(metrics: Metrics) -> Iterator[str]:
    """The operator's own web server over these figures; its address."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop, port = asyncio.Event(), list[int]()

    async def serve() -> None:
        async with HealthServer(("127.0.0.1", 0), Health(Board(time.monotonic), 60.0, time.monotonic), metrics) as web:
            port.append(web.port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def said(kind: str, status: Any) -> Condition:
    return Condition(type=kind, status=status, reason="Because", last_transition_time=ago(60))


def troubled() -> MigrationStatus:
    """A migration in which all is wrong that can be, and all is known."""
    return MigrationStatus(
        phase=Phase.FOLLOWING,
        conditions=[said("Stalled", "True"), said("LagWithinThreshold", "False"), said("RollbackReady", "False")],
        snapshot=SnapshotStatus(rows_total=100, rows_copied=50, rows_per_second=5, eta=10, tables_total=2),
        stream=StreamStatus(
            lag_seconds=100, lag_observed_at=ago(0), changes_applied=7,
            retention_deadline=ago(-60), retention_seconds=86400,
        ),
        validation=MigrationValidationStatus(
            result=CheckResult.DIFFERENT, differences=Differences(missing=3), completed_at=ago(86400)
        ),
        tables=[TableStatus(name="shop.orders", state="Stopped")],
    )  # fmt: skip


def worker(rows: int, heard: float = 0) -> TaskState:
    word = WorkerReport(
        task=TaskKind.STREAM, task_id="stream", state=WorkerState.RUNNING, started_at=ago(4000), observed_at=ago(heard),
        counters=Counters(rows=rows, bytes=rows * 100, transactions=rows, retries=rows),
        stream=StreamResult(fetch_lag_seconds=1.0),
    )  # fmt: skip
    return TaskState(TaskKind.STREAM, TaskRef("stream"), ago(4000), failures=6, report=word)


def way_back() -> ReverseSyncStatus:
    resolved = Resolved(
        source=ReverseSource(polardb=PolarDBSource.model_validate({
            "host": "pg", "database": "app", "credentialsSecretRef": {"name": "pg"}})),
        target=ReverseTarget(dynamodb=ReverseDynamoDB(region="eu-central-1")),
    )  # fmt: skip
    slot = SlotStatus(name="s", active=True, wal_status="extended", retained_bytes=2 << 30)
    return ReverseSyncStatus(phase=ReverseSyncPhase.STREAMING, slot=slot, lag_seconds=1, resolved=resolved)


def look(metrics: Metrics, rows: int) -> None:
    """One pass over everything; the next one finds more rows written."""
    metrics.seen(Key("flights", "Migration", "shop"), troubled(), Observed(migration(), Tasks((worker(rows, 3600),))))
    metrics.seen(Key("flights", "Migration", "mute"), MigrationStatus(phase=Phase.FOLLOWING))
    metrics.seen(
        Key("flights", "Migration", "gone"),
        MigrationStatus(phase=Phase.COMPLETED, conditions=[said("RollbackReady", "False")]),
    )
    metrics.seen(Key("flights", "ReverseSync", "gone"), way_back())
    found = ValidationStatus(
        phase=ValidationPhase.COMPLETED, differences=Differences(extra=1), completed_at=ago(10), eta=3.0
    )
    metrics.seen(Key("flights", "Validation", "all"), found)
    metrics.took("Migration", 0.1)
    for _ in range(20):
        metrics.failed("Migration", "Api403")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus with the alerts, without their patience, that has scraped all of it some times."""
    told = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    for rule in told["groups"][0]["rules"]:
        del rule["for"]
    rules = tmp_path_factory.mktemp("rules") / "alerts.yaml"
    rules.write_text(yaml.safe_dump(told))
    behind = [3600.0]
    metrics = Metrics(lambda: time.time() - behind[0])
    metrics.begins(Key("flights", "Migration", "hangs"))
    behind[0] = 0.0
    look(metrics, 0)
    rows = itertools.count(10, 10)
    with (
        serving(metrics) as address,
        prometheus_server([address], [rules]) as server,
        beside(lambda _: look(metrics, next(rows)), 0.5),
    ):
        yield server


@pytest.mark.parametrize(("title", "expr"), sorted(set(dashboard.queries())))
def test_it_answers_the_query_of_a_panel(prometheus: PrometheusServer, title: str, expr: str) -> None:
    found = eventually(lambda: prometheus.query(as_grafana(expr)), lambda: f"{title}: no answer to {expr}", seconds=30)
    assert all(each["value"][1] != "NaN" for each in found)
    assert {each["metric"].get("namespace", "flights") for each in found} == {"flights"}


def test_names_types_and_help_texts_pass_promtools_own_look() -> None:
    metrics = Metrics()
    look(metrics, 1)
    command = [str(programs() / "promtool"), "check", "metrics"]
    done = subprocess.run(command, input=metrics.text(), capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_every_alert_can_say_what_it_has_to_say(prometheus: PrometheusServer) -> None:
    wanted = {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]}

    def firing() -> list[dict[str, Any]]:
        return [each for each in prometheus.ask("alerts")["alerts"] if each["state"] == "firing"]

    def silent() -> set[str]:
        return wanted - {each["labels"]["alertname"] for each in firing()}

    eventually(lambda: not silent(), lambda: f"these do not fire: {silent()}")
    for alert in firing():
        words = " ".join(alert["annotations"].values())
        assert "error expanding" not in words, words
        assert "no value" not in words, words
        assert "{{" not in words, words
