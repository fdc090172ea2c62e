"""Workers as processes that report to a WorkerReport on a real API server and take their orders from it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.moves import Move
from support.relay import relay
from support.report_desk import JOB, ReportDesk, until
from support.streams import Lab, postgres_lab
from whimbrel_api.reports import ErrorCategory, WorkerReport, WorkerState
from whimbrel_api.tasks import ReportResource, TaskFile, TaskKind
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer
from whimbrel_worker.reporting import ending as endings
from whimbrel_worker.reporting.apiserver import ApiServerReport
from whimbrel_worker.reporting.courier import Courier
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.runner import run_task

LOST, BACK = "do not get through", "get through again"


@pytest.fixture
def desk(cluster: KubernetesCluster, namespace: str, tmp_path: Path) -> Iterator[ReportDesk]:
    """Two reports, and a way to the API server that can be closed."""
    (tmp_path / "desk").mkdir()
    made = ReportDesk(cluster, namespace, tmp_path / "desk")
    made.prepare()
    with relay(made.address()) as way:
        made.way = way
        yield made
        made.end()


@pytest.fixture
def lab(
    mysql: MySQLServer, mysql_database: str, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    with postgres_lab(tmp_path / "lab", mysql, mysql_database, postgres, postgres_database) as made:
        made.execute("CREATE TABLE t (id INT PRIMARY KEY)")
        made.prepare()
        yield made


@pytest.fixture
def shop(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> Move:
    """A migration of one table."""
    with closing(mysql.connect(mysql_database)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    return postgres_move


def rows(lab: Lab) -> int:
    return int(lab.look(f'SELECT count(*) FROM "{lab.database}".t')[0][0])


def last_line(desk: ReportDesk) -> str:
    return desk.log().splitlines()[-1]


def without_secrets(move: Move) -> TaskFile:
    return move.task("preflight").model_copy(update={"secrets": {}})


def said(desk: ReportDesk) -> WorkerReport:
    report = desk.report()
    assert report is not None
    return report


def test_a_result_arrives_with_the_least_rights_and_under_the_pods_index(desk: ReportDesk, shop: Move) -> None:
    assert desk.run(shop.task("preflight"), JOB_COMPLETION_INDEX="1") == 0, desk.log()
    report = desk.report(1)
    assert report is not None
    assert (report.state, report.index) == (WorkerState.DONE, 1)
    assert report.preflight is not None
    assert desk.report(0) is None
    assert LOST not in desk.log()


def test_orders_reach_a_worker_whose_token_is_rotated(desk: ReportDesk, lab: Lab) -> None:
    worker = desk.start(lab.file(TaskKind.STREAM))
    until(lambda: bool(desk.status().get("stream")), "the first result")
    first, second = desk.fresh_token(), desk.fresh_token()
    desk.write_token("expired")
    until(lambda: LOST in desk.log(), "a token that is worth nothing is noticed")
    desk.write_token(second)
    until(lambda: BACK in desk.log(), "the new token is used")
    lab.execute("INSERT INTO t VALUES (1)")
    position = lab.position()
    ordered = time.monotonic()
    desk.order(drainTo=position)
    until(lambda: (stream := said(desk).stream) is not None and stream.drained_to == position, "drained")
    assert time.monotonic() - ordered < 10
    assert rows(lab) == 1
    desk.order(drainTo=None, retire=True)
    assert worker.wait(30) == 0, desk.log()
    assert said(desk).state is WorkerState.DONE
    assert said(desk).counters.transactions > 0
    assert first not in desk.log()
    assert second not in desk.log()
    assert "Traceback" not in desk.log()


def test_the_work_goes_on_while_the_api_server_is_away(desk: ReportDesk, lab: Lab) -> None:
    assert desk.way is not None
    worker = desk.start(lab.file(TaskKind.STREAM))
    until(lambda: bool(desk.status().get("stream")), "the first result")
    desk.way.close()
    until(lambda: LOST in desk.log(), "the loss is said")
    lab.execute("INSERT INTO t VALUES (1), (2)")
    until(lambda: rows(lab) == 2, "the rows arrive without an API server")
    until(lambda: said(desk).stream is not None, "the administrator still reads it")
    seen = said(desk).observed_at
    desk.way.open()
    until(lambda: said(desk).observed_at > seen, "a newer report")
    until(lambda: BACK in desk.log(), "its return is said")
    assert desk.log().count(LOST) <= 2, "once for each cause"
    assert desk.log().count(BACK) == 1
    worker.terminate()
    assert worker.wait(30) == 5, desk.log()
    assert said(desk).state is WorkerState.STOPPED


def test_the_last_word_waits_for_the_api_server(desk: ReportDesk, shop: Move) -> None:
    assert desk.way is not None
    desk.way.close()
    worker = desk.start(shop.task("preflight"))
    until(lambda: LOST in desk.log(), "the loss is said")
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(3)
    desk.way.open()
    assert worker.wait(30) == 0, desk.log()
    assert said(desk).state is WorkerState.DONE


def test_a_result_that_cannot_be_delivered_is_none(
    desk: ReportDesk, shop: Move, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert desk.way is not None
    monkeypatch.setattr(endings, "_LAST_WORD_SECONDS", 1.0)
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)
    resource = ReportResource(namespace=desk.namespace, name=JOB, access=str(desk.directory / "access"))
    task = desk.file(shop.task("preflight")).model_copy(update={"report_resource": resource})
    desk.way.close()
    assert run_task(task) == 1
    assert "its result could not be delivered" in caplog.records[-1].getMessage()
    assert run_task(task.model_copy(update={"secrets": {}})) == 2, "a failure is told by its exit code all the same"
    assert "Secret postgres has no key" in caplog.records[-1].getMessage()
    assert desk.report() is None


def test_a_failed_start_is_reported_and_not_inherited(desk: ReportDesk, shop: Move) -> None:
    left = {
        "task": "preflight",
        "taskId": "preflight",
        "observedAt": "2026-01-01T00:00:00Z",
        "rowsTotal": 4711,
        "stream": {"drainedTo": "there"},
        "check": {"result": "Equal"},
    }
    patch = json.dumps({"status": left})
    desk.kubectl("patch", "workerreport", f"{JOB}-0", "--subresource=status", "--type=merge", "-p", patch)
    assert said(desk).stream is not None
    assert desk.run(without_secrets(shop)) == 2
    report = said(desk)
    assert report.state is WorkerState.FAILED
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.CONFIGURATION
    assert (report.stream, report.check, report.rows_total) == (None, None, 0)
    assert last_line(desk).endswith(f"ConfigurationError: {report.last_error.sentence()}")
    assert desk.run(shop.task("preflight")) == 0, desk.log()
    assert "lastError" not in desk.status()


def test_a_task_file_of_another_version_is_reported(desk: ReportDesk, shop: Move) -> None:
    document = desk.file(shop.task("preflight")).model_dump(mode="json", by_alias=True)
    worker = desk.start_text(json.dumps(document | {"novelty": True}))
    assert worker.wait(30) == 2
    report = said(desk)
    assert report.last_error is not None
    assert "novelty: Extra inputs are not permitted" in report.last_error.why


def test_rights_that_come_late_are_waited_for(desk: ReportDesk, shop: Move) -> None:
    binding = desk.kubectl("get", "rolebinding", "worker", "-o", "json")
    desk.kubectl("delete", "rolebinding", "worker")
    worker = desk.start(shop.task("preflight"))
    until(lambda: LOST in desk.log(), "the refusal is said")
    assert "the API server says 403" in desk.log()
    document = json.loads(binding)
    document["metadata"] = {"name": document["metadata"]["name"]}
    desk.kubectl("apply", "-f", "-", input=json.dumps(document))
    assert worker.wait(30) == 0, desk.log()
    assert said(desk).state is WorkerState.DONE


def test_a_deleted_report_dismisses_its_worker(desk: ReportDesk) -> None:
    resource = ReportResource(namespace=desk.namespace, name=JOB, access=str(desk.directory / "access"))
    post = ApiServerReport(resource, 0, desk.environment)
    assert post.look() is not None
    desk.kubectl("delete", "workerreport", f"{JOB}-0")
    ending = Ending()
    with closing(Courier(post, ending, gone_seconds=1.0)) as courier:
        courier.start()
        until(lambda: courier.orders() is not None and ending.stop.is_set(), "told to stop", 20)
    assert f"{desk.namespace}/{JOB}-0" in ending.dismissed
