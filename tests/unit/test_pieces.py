"""The tree of what belongs to a resource of a cluster: Jobs, pods and reports, in every state of theirs."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from support.live_states import NOW, migration
from whimbrel_cli import tree
from whimbrel_cli.pieces import Piece, of_jobs, of_process, of_resource
from whimbrel_operator.runtime.instances import Known

JOB = "shop-stream-0a1b2c3d"


def thing(name: str, labels: dict[str, str] | None = None, **parts: Any) -> dict[str, Any]:
    meta = {"name": name, "creationTimestamp": "2026-11-21T11:58:30Z", "labels": labels or {}}
    return {"metadata": meta | parts.pop("metadata", {}), **parts}


def pod(name: str = f"{JOB}-0-x7", **parts: Any) -> dict[str, Any]:
    return thing(name, {"batch.kubernetes.io/job-name": JOB}, **parts)


def report(name: str = f"{JOB}-0", **said: Any) -> dict[str, Any]:
    word = {"task": "stream", "taskId": "stream", "state": "Running", "observedAt": "2026-11-21T12:00:29Z", **said}
    return thing(name, status=word)


def job(**status: Any) -> dict[str, Any]:
    return thing(JOB, status=status)


def ended(kind: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "message": message}]}


@pytest.mark.parametrize(
    ("status", "state", "well", "says"),
    [
        ({"active": 2}, "2 active", None, ""),
        ({}, "0 active", None, ""),
        (ended("Complete"), "Complete", True, ""),
        (ended("Suspended"), "Suspended", None, ""),
        (ended("Failed", "Pod failed\nwith exit code 2"), "Failed", False, "Pod failed with exit code 2"),
    ],
)
def test_a_jobs_state(status: dict[str, Any], state: str, well: bool | None, says: str) -> None:
    (found,) = of_jobs([job(**status)], [], [])
    assert (found.kind, found.state, found.well, found.says) == ("Job", state, well, says)


@pytest.mark.parametrize(
    ("status", "state", "well"),
    [
        ({"phase": "Running"}, "Running", None),
        ({"phase": "Succeeded"}, "Succeeded", True),
        ({"phase": "Failed", "reason": "Evicted"}, "Failed", False),
        ({}, "Pending", None),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "ImagePullBackOff", False,
        ),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "ContainerCreating", None,
        ),
    ],
)  # fmt: skip
def test_a_pods_state(status: dict[str, Any], state: str, well: bool | None) -> None:
    (found,) = of_jobs([job()], [pod(status=status, spec={"nodeName": "n1"})], [])
    assert (found.children[0].kind, found.children[0].state, found.children[0].well) == ("Pod", state, well)
    assert found.children[0].says.endswith("n1")


def test_a_pod_that_goes_says_so_and_its_exit_code() -> None:
    status = {"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}
    (found,) = of_jobs([job()], [pod(status=status, metadata={"deletionTimestamp": "2026-11-21T12:00:00Z"})], [])
    assert (found.children[0].state, found.children[0].says) == ("Terminating", "exit code 137, no node yet")


def test_reports_stand_with_their_job_and_alone_where_it_is_gone() -> None:
    found = of_jobs([job()], [pod()], [report(), report("shop-check-9f-0"), thing("shop-other-1-0")])
    assert [(each.kind, each.name) for each in found] == [
        ("Job", JOB), ("WorkerReport", "shop-check-9f-0"), ("WorkerReport", "shop-other-1-0"),
    ]  # fmt: skip
    assert [each.kind for each in found[0].children] == ["Pod", "WorkerReport"]
    assert found[2].state == "not written yet"


def test_a_report_of_another_version_is_named_and_the_rest_is_shown() -> None:
    found = of_jobs([job()], [pod()], [report(invented="later")])
    assert [each.state for each in found[0].children] == ["Pending", "unreadable"]


def test_a_failed_worker_says_what_it_said() -> None:
    error = {"category": "Incompatible", "what": "no key", "where": "shop.a", "todo": "add one"}
    (found,) = of_jobs([], [], [report(state="Failed", lastError=error)])
    assert (found.well, found.says) == (False, "no key; in shop.a; add one")


def test_a_hooks_job_is_named() -> None:
    labels = {"whimbrel.dev/hook": "h1"}
    notes = {"whimbrel.dev/hook-name": "stop-app", "whimbrel.dev/hook-point": "beforeFreeze"}
    (found,) = of_jobs([thing("shop-h1", labels, metadata={"annotations": notes})], [], [])
    assert found.says == "hook stop-app (beforeFreeze)"


@pytest.mark.parametrize(
    ("known", "state", "well"),
    [
        (None, "not started", None),
        (Known("stream", "stream", 0, NOW.isoformat(), pid=7), "running", None),
        (Known("stream", "stream", 0, NOW.isoformat(), stopping_since=NOW.isoformat()), "stopping", None),
        (Known("stream", "stream", 0, NOW.isoformat(), exit_code=0), "ended with 0", True),
        (Known("stream", "stream", 0, NOW.isoformat(), exit_code=5), "ended with 5", True),
        (Known("stream", "stream", 0, NOW.isoformat(), exit_code=1, failures=3), "ended with 1", False),
    ],
)
def test_a_process(known: Known | None, state: str, well: bool | None) -> None:
    found = of_process("stream-0", known, None)
    assert (found.state, found.well) == (state, well)


@pytest.mark.parametrize(
    ("state", "well", "word"), [("completed", True, "Completed"), ("stalled", False, "Preflight Stalled")]
)
def test_a_migration_is_well_at_its_good_end_and_not_where_it_is_stalled(state: str, well: bool, word: str) -> None:
    found = of_resource(migration(state))
    assert (found.well, found.state) == (well, word)


def lines(root: Piece, width: int, *, ascii_only: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(tree.drawn(root, datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC), width=width, ascii_only=ascii_only))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


WORK = of_jobs([job(active=1)], [pod(status={"phase": "Running"})], [report()])
ROOT = of_resource(migration("snapshot"), [*WORK, of_resource(migration("stalled"))])


def test_a_wide_tree_has_all_columns_and_a_narrow_one_what_fits() -> None:
    assert lines(ROOT, 120) == [
        "NAME                                       STATE                  AGE  SAYS",
        "Migration/shop                             Snapshot                    NotReady",
        "├─ Job/shop-stream-0a1b2c3d                1 active           2 m 0 s",
        "│  ├─ Pod/shop-stream-0a1b2c3d-0-x7        Running            2 m 0 s  no node yet",
        "│  └─ WorkerReport/shop-stream-0a1b2c3d-0  Running              1.0 s",
        "└─ Migration/shop                          Preflight Stalled           NotReady",
    ]
    assert lines(ROOT, 75)[0].split() == ["NAME", "STATE", "AGE"]
    assert all(len(line) <= 40 for line in lines(ROOT, 40))


def test_an_ascii_terminal_gets_an_ascii_tree() -> None:
    assert all(line.isascii() for line in lines(ROOT, 120, ascii_only=True))
