"""Where a worker's files and its API server are: what the task file says, and what the environment adds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import ExitCode, Orders, ReportResource
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.reporting.apiserver import ApiServerReport, address, orders_of
from whimbrel_worker.taskfile import Unreadable, read

TASK: dict[str, Any] = {
    "task": "check",
    "taskId": "check",
    "migration": "default/shop",
    "index": 7,
    "source": {"mysql": {"host": "a", "credentialsSecretRef": {"name": "near"}}},
    "target": {"postgresql": {"host": "b", "database": "d", "credentialsSecretRef": {"name": "far"}}},
    "secrets": {"near": "../secrets/near", "far": "/run/far"},
    "check": {"reportFile": "../../../tmp/differences.jsonl"},
    "reportFile": "report.json",
    "ordersFile": "",
    "reportResource": {"namespace": "default", "name": "job", "access": "../access"},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "etc" / "whimbrel" / "task" / "task.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(TASK | changes))
    return path


def test_relative_paths_start_at_the_task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = read(Path("etc/whimbrel/task/task.json"), {})
    base = tmp_path / "etc" / "whimbrel"
    assert file.secrets == {"near": str(base / "secrets" / "near"), "far": "/run/far"}
    assert file.check.report_file == str(tmp_path / "tmp" / "differences.jsonl")
    assert file.report_file == str(base / "task" / "report.json")
    assert file.orders_file == ""
    assert file.report_resource is not None
    assert file.report_resource.access == str(base / "access")


def test_links_to_the_task_file_are_not_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    path = written(tmp_path)
    path.rename(path.parent / "..data.json")
    path.symlink_to(path.parent / "..data.json")
    moved = tmp_path / "mount"
    moved.symlink_to(path.parent)
    assert read(moved / "task.json", {}).secrets["near"] == str(tmp_path / "secrets" / "near")


@pytest.mark.parametrize(("told", "index"), [("", 7), ("0", 0), ("12", 12)])
def test_the_pod_tells_the_index(tmp_path: Path, told: str, index: int) -> None:
    assert read(written(tmp_path), {"JOB_COMPLETION_INDEX": told}).index == index


@pytest.mark.parametrize("told", ["-1", "one", "²"])
def test_an_index_that_is_none_is_refused(tmp_path: Path, told: str) -> None:
    with pytest.raises(Unreadable, match="JOB_COMPLETION_INDEX"):
        read(written(tmp_path), {"JOB_COMPLETION_INDEX": told})


def test_a_file_of_another_version_still_says_where_its_report_belongs(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="novelty: Extra inputs are not permitted") as raised:
        read(written(tmp_path, novelty=1), {"JOB_COMPLETION_INDEX": "3"})
    partly = raised.value.partly
    assert partly is not None
    assert partly.report_resource is not None
    assert (partly.task_id, partly.index, partly.report_resource.name) == ("check", 3, "job")


def test_a_worker_reports_a_file_of_another_version_and_logs_for_whom(tmp_path: Path) -> None:
    """As after an upgrade: a process of its own, as the pod runs it."""
    path = written(tmp_path, novelty=1, reportResource=None)
    argv = [sys.executable, "-m", "whimbrel_worker", str(path)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.CONFIGURATION, ended.stderr
    report = WorkerReport.model_validate_json((path.parent / "report.json").read_bytes())
    assert report.last_error is not None
    assert "novelty" in report.last_error.why
    assert " ERROR [default/shop check-7] " in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"task": "check"', '{"task": "dance", "taskId": "x"}', "\udcff"])
def test_a_file_that_says_nothing_is_unreadable(tmp_path: Path, content: str) -> None:
    path = tmp_path / "task.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(Unreadable) as raised:
        read(path, {})
    assert raised.value.partly is None


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        read(tmp_path / "task.json", {})


@pytest.mark.parametrize(
    ("host", "url"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443"), ("api.svc", "https://api.svc:443")],
)
def test_the_api_servers_address(host: str, url: str) -> None:
    assert address({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}) == url


@pytest.mark.parametrize("environment", [{}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": ""}])
def test_no_address_is_a_configuration_error(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="KUBERNETES_SERVICE_HOST"):
        address(environment)


def test_no_token_is_a_configuration_error(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with pytest.raises(ConfigurationError, match="no file token"):
        ApiServerReport(ReportResource(namespace="a", name="b", access=str(tmp_path)), 0, environment)


def test_orders_are_read_or_refused_with_the_reason() -> None:
    assert orders_of({}) == (Orders(), "")
    assert orders_of({"spec": {"orders": {"drainTo": "x"}}}) == (Orders(drain_to="x"), "")
    orders, trouble = orders_of({"spec": {"orders": {"dance": True}}})
    assert orders is None
    assert trouble == "dance: Extra inputs are not permitted"
