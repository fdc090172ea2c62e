"""Lines of logs: their times, their order, what has come since the last look."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_cli.logbook import Following, Line, Since, Speaker, after, printable, together, written_at
from whimbrel_operator.errors import Refused

STREAM, CHECK = Speaker("shop-stream-1-0-x", "stream", "stream"), Speaker("shop-check-0-y", "check-1f", "check")
AT = datetime(2026, 11, 21, 12, 0, 30, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-21 12:00:30,250 INFO MainThread x: began", AT),
        ("2026-11-21T12:00:30.250Z INFO    x: began", AT),
        ("2026-11-21T13:00:30.250+01:00 x", AT),
        ("2026-11-21T12:00:30.250000000Z x", AT),
        ('{"time": "2026-11-21T12:00:30.250Z", "message": "began"}', AT),
        ('{"time": 7}', None),
        ("{no json", None),
        ("Traceback (most recent call last):", None),
        ("", None),
    ],
)
def test_a_line_says_when_it_was_written(text: str, at: datetime | None) -> None:
    assert written_at(text, UTC) == at


def test_a_time_without_a_zone_is_this_machines_where_no_zone_is_given() -> None:
    here = datetime(2026, 11, 21, 12, 0, 30).astimezone()
    assert written_at("2026-11-21 12:00:30,000 x", None) == here


def test_lines_are_merged_by_time_and_what_has_none_stays_behind_its_line() -> None:
    logs = {
        STREAM: ["2026-11-21 12:00:00,000 a", "Traceback", "  where", "2026-11-21 12:00:09,000 d"],
        CHECK: ["2026-11-21 12:00:05,000 c"],
    }
    assert [line.text[-1] for line in together(logs, UTC)] == ["a", "k", "e", "c", "d"]


def test_a_clock_that_is_set_back_does_not_part_a_workers_lines() -> None:
    logs = {STREAM: ["2026-11-21 12:00:09,000 a", "2026-11-21 12:00:01,000 b"]}
    assert [line.text[-1] for line in together(logs, UTC)] == ["a", "b"]


def test_what_is_older_is_left_out_with_the_lines_that_follow_it() -> None:
    since = Since(AT, UTC)
    texts = [
        "no time yet",
        "2026-11-21 12:00:00,000 old",
        "  of the old",
        "2026-11-21 12:00:31,000 new",
        "  of the new",
    ]
    assert [text for text in texts if since.wants(Line(STREAM, text))] == texts[3:]
    assert Since(None, UTC).wants(Line(STREAM, "no time yet"))


@pytest.mark.parametrize(
    ("shown", "again", "fresh", "joins"),
    [
        ([], ["a"], ["a"], True),
        (["a", "b"], ["a", "b"], [], True),
        (["a", "b"], ["a", "b", "c"], ["c"], True),
        (["x", "b"], ["b", "c", "b", "d"], ["d"], True),
        (["x", "c", "b"], ["c", "b", "c", "x", "b", "d"], ["c", "x", "b", "d"], True),
        (["a"], ["b", "c"], ["b", "c"], False),
        (["a"], [], [], False),
    ],
)
def test_what_comes_after_the_lines_shown(
    shown: Sequence[str], again: Sequence[str], fresh: Sequence[str], joins: bool
) -> None:
    assert after(shown, again) == (fresh, joins)


@given(st.lists(st.integers(0, 10**6).map(str), unique=True, max_size=40), st.integers(0, 40), st.integers(1, 40))
def test_lines_that_are_all_different_are_never_lost_nor_shown_twice(log: list[str], first: int, kept: int) -> None:
    shown, tail = log[:first], log[max(0, len(log) - kept) :]
    fresh, joins = after(shown, tail)
    if joins:
        assert [*shown, *fresh] == (log if shown else tail)


class Logs:
    """Logs in memory, by speaker; None cannot be read."""

    zone: tzinfo | None = UTC

    def __init__(self, logs: Mapping[Speaker, Sequence[str] | None]) -> None:
        self.logs = dict(logs)

    def speakers(self) -> Sequence[Speaker]:
        return sorted(self.logs)

    def last(self, speaker: Speaker, lines: int | None) -> Sequence[str]:
        found = self.logs[speaker]
        if found is None:
            raise Refused("container is waiting to start")
        return found if lines is None else found[max(0, len(found) - lines) :]


def texts(following: Following) -> list[str]:
    return [line.text for line in following.look()[0]]


def test_each_look_brings_what_has_come_also_of_a_worker_that_is_new() -> None:
    logs = Logs({STREAM: ["a", "b", "c"]})
    following = Following(logs, "", 2)
    assert texts(following) == ["b", "c"]
    assert texts(following) == []
    logs.logs[STREAM] = ["a", "b", "c", "d"]
    logs.logs[CHECK] = ["x"]
    assert sorted(texts(following)) == ["d", "x"]


def test_more_lines_than_are_asked_for_at_a_time_are_found_in_the_whole_log() -> None:
    logs = Logs({STREAM: ["begin"]})
    following = Following(logs, "", None)
    following.look()
    logs.logs[STREAM] = ["begin", *map(str, range(1000))]
    assert texts(following) == [*map(str, range(1000))]


def test_no_line_wanted_at_first_means_all_that_come_later() -> None:
    logs = Logs({STREAM: ["a"], CHECK: []})
    following = Following(logs, "", 0)
    assert texts(following) == []
    logs.logs = {STREAM: ["a", "b"], CHECK: [*map(str, range(500))]}
    assert sorted(texts(following)) == sorted(["b", *map(str, range(500))])


def test_a_log_that_was_begun_anew_is_shown_whole_and_it_is_said() -> None:
    logs = Logs({STREAM: ["a"]})
    following = Following(logs, "", None)
    following.look()
    logs.logs[STREAM] = ["b"]
    assert texts(following) == [
        "(the lines above and below may not join: the log was put aside, or a new one begun)",
        "b",
    ]
    assert texts(following) == []


def test_a_worker_that_has_no_log_yet_is_named_and_asked_again() -> None:
    logs = Logs({STREAM: None, CHECK: ["x"]})
    following = Following(logs, "", None)
    lines, silent = following.look()
    assert [line.text for line in lines] == ["x"]
    assert silent == [f"{STREAM.name}: its log cannot be read: container is waiting to start"]
    logs.logs[STREAM] = ["a"]
    assert texts(following) == ["a"]


@pytest.mark.parametrize(("wanted", "names"), [("", 2), ("check", 1), ("check-1f", 1), (CHECK.name, 1), ("fence", 0)])
def test_a_task_is_meant_by_its_kind_its_id_or_its_worker(wanted: str, names: int) -> None:
    assert len(texts(Following(Logs({STREAM: ["a"], CHECK: ["b"]}), wanted, None))) == names


def test_a_line_cannot_steer_the_terminal() -> None:
    assert printable("a\tb  c\x1b[2J\x07") == "a\tb  c [2J "
