"""What is said once although it goes on, and what a line of a log is about by the code around it."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from whimbrel_api.logs import About, about, lines_about, places
from whimbrel_api.repeats import Repeats
from whimbrel_worker.errors import Transient
from whimbrel_worker.tasks.notices import Retries

LOG = logging.getLogger("whimbrel.test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_what_goes_on_is_said_once_and_again_with_how_often(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    repeats = Repeats(60.0, clock)
    for number in range(100):
        said = repeats.log(LOG, logging.WARNING, "away", "away for %d s", number)
        assert said is (number in (0, 60))
        clock.now += 1
    assert lines(caplog, logging.WARNING) == [
        "away for 0 s",
        "away for 60 s (and 59 times before, since this was last said)",
    ]
    assert len(lines(caplog, logging.DEBUG)) == 98, "each single one is there for whoever looks for it"


def test_another_thing_is_news(caplog: pytest.LogCaptureFixture) -> None:
    repeats = Repeats(60.0, Clock())
    for key in ("a", "b", "a", "b"):
        repeats.log(LOG, logging.WARNING, key, "%s", key)
    assert lines(caplog, logging.WARNING) == ["a", "b"]


def test_what_it_remembers_is_bounded() -> None:
    repeats = Repeats(60.0, Clock())
    for number in range(10_000):
        repeats.log(LOG, logging.DEBUG, number, "x")
    assert len(repeats._said) <= 4096


@contextmanager
def heard() -> Iterator[list[dict[str, object]]]:
    """What each line is about, as a handler sees it."""
    found: list[dict[str, object]] = []
    handler = logging.Handler()
    handler.addFilter(About())
    handler.emit = lambda record: found.append(about(record))  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        yield found
    finally:
        LOG.removeHandler(handler)


def test_a_line_is_about_what_the_code_around_it_is_about() -> None:
    with heard() as found:
        with lines_about(resource="default/Migration/shop", epoch=3):
            with lines_about(task="stream"):
                LOG.warning("one")
                LOG.warning("two", extra={"task": "check"})
            LOG.warning("three")
        LOG.warning("four")
    resource: dict[str, object] = {"resource": "default/Migration/shop", "epoch": 3}
    assert found == [resource | {"task": "stream"}, resource | {"task": "check"}, resource, {}]


def test_what_two_tasks_of_one_loop_are_about_is_kept_apart() -> None:
    async def work(name: str) -> None:
        with lines_about(resource=name):
            for _ in range(3):
                await asyncio.sleep(0)
                LOG.warning(name)

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    with heard() as found:
        asyncio.run(both())
    assert sorted(str(each["resource"]) for each in found) == ["a"] * 3 + ["b"] * 3


def test_a_thread_has_a_table_of_its_own() -> None:
    def work() -> None:
        with lines_about(table="shop.other"):
            LOG.warning("there")

    with heard() as found, lines_about(table="shop.orders"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        LOG.warning("here")
    assert [each["table"] for each in found] == ["shop.other", "shop.orders"]


def test_places_name_what_it_came_of_and_quote_nothing() -> None:
    try:
        try:
            raise ValueError("row 4711")
        except ValueError as error:
            raise KeyError("password") from error
    except KeyError as error:
        text = places(error)
    assert text.endswith("ValueError")
    assert "KeyError\nwhich came while handling this:" in text
    assert f"in {test_places_name_what_it_came_of_and_quote_nothing.__name__}" in text
    assert "4711" not in text.replace('raise ValueError("row 4711")', "")


def test_an_error_that_names_itself_as_its_cause_has_an_end() -> None:
    error = KeyError("x")
    error.__cause__ = error
    assert places(error) == "KeyError"


def test_retries_of_a_worker_are_warned_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    retries = Retries()
    for number in range(50):
        retries.say(LOG, "tried again: %s", Transient("DynamoDB is away", where="eu-west-1", why=f"try {number}"))
        retries.say(LOG, "tried again: %s", Transient("PolarDB is away", where="pc-1"))
    assert lines(caplog, logging.WARNING) == [
        "tried again: DynamoDB is away; in eu-west-1; try 0",
        "tried again: PolarDB is away; in pc-1",
    ]
