"""A worker's log: what each line says that it works for, in both forms, and what the operator reads from its end."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from support.memory_runtime import SOURCE, TARGET
from whimbrel_api.logs import LogFormat, LogLevel, read_line
from whimbrel_api.tasks import TaskFile, TaskKind
from whimbrel_operator.domain.decision import WantedTask, Work
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.specs import jobs
from whimbrel_operator.specs.settings import PodSettings
from whimbrel_worker import logs

FILE = TaskFile(
    task=TaskKind.STREAM, task_id="stream", migration="flights/shop", index=1, epoch=3, source=SOURCE, target=TARGET,
    report_file="r",
)  # fmt: skip


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
    assert "WHIMBREL_LOG_FORMAT=xml WHIMBREL_LOG_LEVEL=LOUD is not known" in stream.getvalue()
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
