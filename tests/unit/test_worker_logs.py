"""A worker's log: what each line says that it works for, in both forms, and what the operator reads from its end."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.memory_runtime import SOURCE, TARGET
from whimbrel_api.hooks import HookPoint, SwitchOrder, SwitchStep
from whimbrel_api.logs import LogFormat, LogLevel, read_line
from whimbrel_api.tasks import TaskFile, TaskKind
from whimbrel_operator.domain.decision import WantedTask, Work
from whimbrel_operator.domain.hook_jobs import HookRun
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.specs import hooks, jobs
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings
from whimbrel_worker import logs
from whimbrel_worker.reporting.files import FileMailbox

FILE = TaskFile(
    task=TaskKind.STREAM, task_id="stream", migration="flights/shop", index=1, epoch=3, source=SOURCE, target=TARGET,
    report_file="r",
)  # fmt: skip

SWITCH = SwitchStep.model_validate(
    {"name": "app", "serviceAccountName": "app", "configMap": {"name": "app", "key": "host", "value": "there"}}
)


@contextmanager
def logging_to(**environment: str) -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    logs.configure(environment, stream)
    logs.works_for(FILE)
    try:
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_each_line_says_what_the_worker_works_for() -> None:
    with logging_to() as stream:
        logging.getLogger("whimbrel_worker.x").warning("late")
        logs.in_epoch(4)
        logging.getLogger("whimbrel_worker.x").error("stopped", extra={"table": "shop.orders"})
    first, second = stream.getvalue().splitlines()
    assert first.endswith(" WARNING [flights/shop stream-1 epoch 3] MainThread whimbrel_worker.x: late")
    assert second.endswith(" ERROR [flights/shop stream-1 epoch 4 shop.orders] MainThread whimbrel_worker.x: stopped")


def test_json_has_the_same_as_fields() -> None:
    with logging_to(WHIMBREL_LOG_FORMAT="json") as stream:
        logging.getLogger("whimbrel_worker.x").error("it\nstopped", extra={"table": "shop.orders"})
    found = json.loads(stream.getvalue())
    told = {name: found[name] for name in ("migration", "task", "index", "epoch", "table", "level", "message")}
    assert told == {
        "migration": "flights/shop", "task": "stream", "index": 1, "epoch": 3, "table": "shop.orders",
        "level": "error", "message": "it\nstopped",
    }  # fmt: skip
    assert list(found)[-1] == "message"


def test_the_level_is_as_it_is_set_and_what_is_wrong_is_said() -> None:
    with logging_to(WHIMBREL_LOG_LEVEL="ERROR") as stream:
        logging.getLogger("whimbrel_worker.x").warning("late")
    assert stream.getvalue() == ""
    with logging_to(WHIMBREL_LOG_LEVEL="LOUD", WHIMBREL_LOG_FORMAT="xml") as stream:
        logging.getLogger("whimbrel_worker.x").info("on")
    assert "WHIMBREL_LOG_FORMAT=xml is not known: plain is taken" in stream.getvalue()
    assert "WHIMBREL_LOG_LEVEL=LOUD is not known: INFO is taken" in stream.getvalue()
    assert stream.getvalue().endswith(": on\n")
    with logging_to(WHIMBREL_LOG_LEVEL="DEBUG", WHIMBREL_LOG_FORMAT="xml") as stream:
        logging.getLogger("whimbrel_worker.x").debug("on")
    assert "WHIMBREL_LOG_LEVEL" not in stream.getvalue()
    assert stream.getvalue().endswith(": on\n")


def test_no_client_tells_of_its_requests_at_any_level() -> None:
    with logging_to(WHIMBREL_LOG_LEVEL="DEBUG") as stream:
        logging.getLogger("botocore.auth").debug("Authorization: s3cret")
        logging.getLogger("urllib3.connectionpool").debug("GET /?token=s3cret")
    assert stream.getvalue() == ""


def test_a_line_is_read_again_also_with_its_beginning_cut_off() -> None:
    message = 'Transient: the server said "no", häufig\\often\n  and again'
    with logging_to(WHIMBREL_LOG_FORMAT="json") as stream:
        logging.getLogger("whimbrel_worker.x").error(message)
    line = stream.getvalue().strip()
    assert read_line(line) == ("ERROR", message)
    assert read_line(line[40:]) == ("", message)
    assert read_line("Traceback (most recent call last):") is None
    assert read_line('{"a": 1}') is None


@pytest.mark.parametrize(("form", "level"), [("json", "INFO"), ("plain", "DEBUG"), ("plain", "INFO")])
def test_workers_log_as_the_operator_does(form: LogFormat, level: LogLevel) -> None:
    settings = replace(PodSettings("whimbrel:1"), log_format=form, log_level=level)
    wanted = WantedTask(TaskKind.STREAM, TaskRef("stream"), Work("flights/shop", SOURCE, TARGET))
    told = {each["name"]: each["value"] for each in jobs._container(wanted, (), settings)["env"]}
    usual = {"WHIMBREL_LOG_FORMAT": "plain", "WHIMBREL_LOG_LEVEL": "INFO"}
    assert {name: told.get(name, usual[name]) for name in usual} == dict(zip(usual, (form, level), strict=True))
    assert (form, level) != ("plain", "INFO") or not usual.keys() & told.keys()


def test_a_switch_logs_as_workers_do() -> None:
    run = HookRun(HookPoint.SWITCH, SWITCH, "switch-app-1", 1)
    settings = replace(PodSettings("whimbrel:1"), log_format="json", log_level="DEBUG")
    (container,) = hooks.job(Owner("Migration", "flights", "shop", "u1"), run, settings)["spec"]["template"]["spec"][
        "containers"
    ]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert (told["WHIMBREL_LOG_FORMAT"], told["WHIMBREL_LOG_LEVEL"]) == ("json", "DEBUG")
    order = SwitchOrder.model_validate_json(told[hooks.ORDER])
    with logging_to() as stream:
        logs.switches(order)
        logging.getLogger("whimbrel_worker.x").info("put back")
    assert " INFO [flights/shop switch-app] " in stream.getvalue()


@pytest.mark.parametrize("where", ["process", "thread"])
def test_what_nobody_catches_is_a_line_that_quotes_nothing(where: str) -> None:
    """As in a real process: an error's own text may quote a row."""
    code = (
        "import threading\nfrom whimbrel_api.logs import catch_what_nobody_catches\n"
        "from whimbrel_worker import logs\nlogs.configure()\ncatch_what_nobody_catches()\n"
        "def fail():\n    raise KeyError('row' + '4711')\n"
    )
    code += "fail()" if where == "process" else "each = threading.Thread(target=fail)\neach.start()\neach.join()"
    environment = {**os.environ, "WHIMBREL_LOG_FORMAT": "json"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    found = json.loads(line)
    assert (found["level"], "row4711" in line) == ("error", False)
    assert found["message"].startswith(f"{'the' if where == 'process' else 'a'} {where} ended by an error")
    assert found["message"].endswith("KeyError")
    assert ended.returncode == (1 if where == "process" else 0)


def test_orders_that_cannot_be_read_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, now = tmp_path / "orders", [0.0]
    box = FileMailbox(path, clock=lambda: now[0])
    for content in ("{", "{", "{", "{}", "{"):
        path.write_text(content)
        now[0] += 1.0
        box.orders()
    assert len(caplog.records) == 2
