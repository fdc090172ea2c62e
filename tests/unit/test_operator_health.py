"""Probes, figures, words and logs of the operator process: what they say, and what they never say."""

import asyncio
import io
import json
import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from prometheus_client.parser import text_string_to_metric_families

from support.memory_runtime import KEY, START
from whimbrel_api.base import Condition
from whimbrel_api.logs import LogFormat
from whimbrel_api.migration import Differences, MigrationStatus, Phase, SnapshotStatus, StreamStatus
from whimbrel_api.reverse_sync import ReverseSyncPhase, ReverseSyncStatus, SlotStatus
from whimbrel_api.validation import ValidationPhase, ValidationStatus
from whimbrel_operator.errors import ClusterAway, SettingsError
from whimbrel_operator.health import Health, HealthServer
from whimbrel_operator.logs import configure
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.troubles import told, unanswered
from whimbrel_operator.unreadable import stalled
from whimbrel_operator.wakeups import Board

CHECK = Key("default", "Validation", "check")
LABELS = {"namespace": "default", "name": "shop"}


async def got(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


def test_the_probes() -> None:
    async def story() -> None:
        board, metrics = Board(time.monotonic), Metrics()
        health = Health(board, 60.0, time.monotonic)
        async with HealthServer(("127.0.0.1", 0), health, metrics) as server:
            assert await got(server.port, "/healthz") == (200, "ok\n")
            assert await got(server.port, "/readyz") == (503, "not ready: it is starting\n")
            health.waits_for = ""
            assert await got(server.port, "/readyz") == (200, "ok: it waits for the Lease\n")
            health.leads = True
            assert await got(server.port, "/readyz") == (200, "ok: it leads\n")
            board.join(KEY, "1").due -= 61
            status, text = await got(server.port, "/healthz")
            assert status == 503
            assert "default/Migration/shop for 61 s" in text
            assert (await got(server.port, "/metrics"))[0] == 200

    asyncio.run(story())


def test_many_stalls_are_told_short() -> None:
    board = Board(time.monotonic)
    for number in range(1000):
        board.join(Key("default", "Migration", f"m{number}"), str(number)).due -= 61
    problem = Health(board, 60.0, time.monotonic).problem()
    assert "and 995 more" in problem
    assert len(problem) < 300


def test_a_blocked_loop_is_a_problem_for_a_while() -> None:
    async def story() -> None:
        now = [0.0]
        health = Health(Board(lambda: now[0]), 60.0, lambda: now[0])
        watch = asyncio.create_task(health.watch())
        await asyncio.sleep(0)
        now[0] += 12.0
        deadline = time.monotonic() + 5
        while not health.problem():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert "blocked for 11.5 s" in health.problem()
        now[0] += 15.0
        assert health.problem() == ""
        watch.cancel()

    asyncio.run(story())


def test_a_taken_port_is_told() -> None:
    async def story() -> None:
        health = Health(Board(time.monotonic), 60.0, time.monotonic)
        async with HealthServer(("127.0.0.1", 0), health, Metrics()) as first:
            with pytest.raises(SettingsError, match="WHIMBREL_LISTEN"):
                async with HealthServer(("127.0.0.1", first.port), health, Metrics()):
                    pass

    asyncio.run(story())


_TOLD_BY = ("phase", "condition", "difference", "kind")


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, next((sample.labels[name] for name in _TOLD_BY if name in sample.labels), "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_figures_of_a_migration() -> None:
    metrics = Metrics()
    status = MigrationStatus(
        phase=Phase.FOLLOWING,
        epoch=3,
        snapshot=SnapshotStatus(rows_copied=7, rows_per_second=2.5),
        stream=StreamStatus(lag_seconds=1.5, changes_applied=9),
    )
    metrics.seen(KEY, status)
    found = samples(metrics)
    assert found["whimbrel_migration_phase", "Following"] == 1
    assert found["whimbrel_migration_lag_seconds", ""] == 1.5
    assert found["whimbrel_migration_rows_copied", ""] == 7
    assert found["whimbrel_migration_rows_per_second", ""] == 2.5
    assert found["whimbrel_migration_changes_applied", ""] == 9
    assert found["whimbrel_migration_epoch", ""] == 3


def test_the_figures_of_a_way_back() -> None:
    metrics, key = Metrics(), Key("shop", "ReverseSync", "back")
    slot = SlotStatus(name="s", active=True, wal_status="reserved", retained_bytes=4096)
    status = ReverseSyncStatus(phase=ReverseSyncPhase.STREAMING, slot=slot, lag_seconds=0.5, changes_applied=9)
    metrics.seen(key, status)
    found = samples(metrics)
    assert found["whimbrel_reversesync_phase", "Streaming"] == 1
    assert found["whimbrel_reversesync_lag_seconds", ""] == 0.5
    assert found["whimbrel_reversesync_slot_retained_bytes", ""] == 4096
    assert found["whimbrel_reversesync_slot_active", ""] == 1
    assert found["whimbrel_reversesync_changes_applied", ""] == 9
    metrics.seen(key, status.model_copy(update={"slot": SlotStatus(name="s"), "lag_seconds": None}))
    known = {name for name, _ in samples(metrics) if name.startswith("whimbrel_reversesync")}
    assert known == {"whimbrel_reversesync_phase", "whimbrel_reversesync_changes_applied"}


def test_an_unknown_lag_has_no_sample_and_a_former_phase_neither() -> None:
    metrics = Metrics()
    metrics.seen(KEY, MigrationStatus(stream=StreamStatus(lag_seconds=1.5)))
    metrics.seen(KEY, MigrationStatus(phase=Phase.CATCH_UP))
    found = samples(metrics)
    assert ("whimbrel_migration_lag_seconds", "") not in found
    assert {phase for name, phase in found if name == "whimbrel_migration_phase"} == {"CatchUp"}


def test_series_end_with_their_resource_and_with_the_lease() -> None:
    metrics = Metrics()
    metrics.seen(KEY, MigrationStatus())
    metrics.seen(CHECK, ValidationStatus(phase=ValidationPhase.RUNNING, differences=Differences(missing=2, extra=1)))
    assert samples(metrics)["whimbrel_validation_differences", "missing"] == 2
    assert samples(metrics)["whimbrel_validation_differences", "changed"] == 0
    metrics.forget(CHECK)
    assert ("whimbrel_validation_differences", "missing") not in samples(metrics)
    metrics.leads(True)
    assert samples(metrics)["whimbrel_leader", ""] == 1
    metrics.leads(False)
    found = samples(metrics)
    assert found["whimbrel_leader", ""] == 0
    assert not [name for name, _ in found if name.startswith("whimbrel_migration")]


def test_conditions_are_figures() -> None:
    metrics = Metrics()
    said = Condition(type="Stalled", status="True", reason="InvalidSpec", last_transition_time=START)
    metrics.seen(KEY, MigrationStatus(conditions=[said]))
    assert samples(metrics)["whimbrel_resource_condition", "Stalled"] == 1


def test_names_with_hostile_characters_stay_one_label() -> None:
    metrics = Metrics()
    metrics.failed("Migration", 'x"\n')
    assert samples(metrics)["whimbrel_reconcile_errors_total", "Migration"] == 1


@contextmanager
def logging_to(form: LogFormat) -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    configure(form, "INFO", stream)
    try:
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_a_message_is_one_line_with_its_resource() -> None:
    with logging_to("plain") as stream:
        logging.getLogger("whimbrel.x").warning("one\ntwo %s", 3, extra={"resource": str(KEY)})
    assert stream.getvalue().endswith("Z WARNING default/Migration/shop: one two 3\n")


def test_json_is_one_object_a_line_with_the_traceback_in_it() -> None:
    with logging_to("json") as stream:
        try:
            raise KeyError("oops")
        except KeyError:
            logging.getLogger("whimbrel.x").exception("it\nfailed", extra={"resource": str(KEY)})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["level"], found["resource"], found["message"]) == ("error", str(KEY), "it\nfailed")
    assert found["migration"] == f"{KEY.namespace}/{KEY.name}"
    assert "KeyError" in found["exception"]


def test_kopf_speaks_only_when_something_is_wrong() -> None:
    with logging_to("plain") as stream:
        kopf = logging.getLogger("kopf._cogs.clients.api")
        kopf.info("Request attempt #2/9 succeeded")
        kopf.error("Request attempt #1/9 failed; will retry: GET https://x -> %r", OSError())
        kopf.error("Request attempt #9/9 failed; escalating: GET https://x -> %r", OSError())
    (line,) = stream.getvalue().splitlines()
    assert "escalating" in line


def test_errors_in_words() -> None:
    body = '{"kind":"Status","message":"jobs.batch is forbidden","details":{"secret":"s3cret"}}'
    forbidden = told(ApiException(status=403, reason="Forbidden", body=body))
    assert forbidden.kind == "Api403"
    assert "jobs.batch is forbidden" in forbidden.line
    assert "helm upgrade" in forbidden.line
    assert "s3cret" not in forbidden.line
    assert told(TimeoutError()).kind == "Timeout"
    assert told(ssl.SSLCertVerificationError("self-signed")).kind == "Tls"
    assert told(ConnectionRefusedError("nobody")).expected
    assert told(ClusterAway("away")).expected
    assert not told(KeyError("x")).expected
    assert len(told(ValueError("x" * 5000)).line) <= 420
    assert "\n" not in told(ValueError("a\nb")).line


def test_silence_is_told_from_an_answer() -> None:
    silent = ClusterAway("away")
    silent.__cause__ = TimeoutError()
    assert unanswered(silent)
    assert unanswered(TimeoutError())
    assert not unanswered(ClusterAway("500"))


def test_a_resource_that_cannot_be_read_says_so_in_its_status() -> None:
    other = {"type": "Paused", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    resource = {"metadata": {"generation": 4}, "status": {"phase": "Snapshot", "conditions": [other, "no condition"]}}
    status = stalled(resource, "InvalidSpec", "spec.source: unknown", START)
    assert status["phase"] == "Snapshot"
    assert status["observedGeneration"] == 4
    by_type = {each["type"]: each for each in status["conditions"]}
    assert by_type["Paused"] == other
    assert (by_type["Stalled"]["status"], by_type["Stalled"]["reason"]) == ("True", "InvalidSpec")
    assert by_type["Reconciling"]["status"] == "False"
    again = stalled(resource | {"status": status}, "InvalidSpec", "spec.source: unknown", START.replace(year=2027))
    assert again == status, "said once, it is not written again"
