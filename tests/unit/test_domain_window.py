"""When a cutover may begin: notBefore, windows over changes of the clocks, and what is refused."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from whimbrel_api.cutover import Cutover, Window
from whimbrel_operator.domain.cutover.window import due_gate, earliest, faults, opening

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(schedule: str, duration: str = "1h", zone: str = BERLIN) -> Window:
    return Window(schedule=schedule, duration=duration, time_zone=zone)


def span_of(found: Window, now: str) -> tuple[str, str]:
    opened = opening(found, at(now))
    assert opened is not None
    return tuple(each.astimezone(UTC).strftime("%d %H:%M") for each in (opened.start, opened.end))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-06-06T23:59:59", ("07 00:00", "07 02:00")),
        ("2026-06-07T00:00:00", ("07 00:00", "07 02:00")),
        ("2026-06-07T01:59:59.9", ("07 00:00", "07 02:00")),
        ("2026-06-07T02:00:00", ("14 00:00", "14 02:00")),
    ],
)
def test_a_window_has_a_beginning_and_its_end_is_outside(now: str, opens: tuple[str, str]) -> None:
    """Sundays at two in Berlin, which is midnight in UTC in summer."""
    assert span_of(window("0 2 * * SUN", "2h"), now) == opens


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-29T00:59:00", ("29 01:00", "29 02:00")),
        ("2026-03-29T01:30:00", ("29 01:00", "29 02:00")),
        ("2026-03-29T02:00:00", ("30 00:30", "30 01:30")),
    ],
)
def test_a_window_of_the_hour_that_is_left_out_opens_at_its_end(now: str, opens: tuple[str, str]) -> None:
    """On 29 March 2026 Berlin goes from 02:00 to 03:00, which is 01:00 in UTC."""
    assert span_of(window("30 2 * * *"), now) == opens


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-10-25T00:20:00", ("25 00:30", "25 01:30")),
        ("2026-10-25T00:59:00", ("25 00:30", "25 01:30")),
        ("2026-10-25T01:10:00", ("25 00:30", "25 01:30")),
        ("2026-10-25T01:30:00", ("26 01:30", "26 02:30")),
    ],
)
def test_a_window_of_the_hour_that_comes_twice_opens_once_for_its_length(now: str, opens: tuple[str, str]) -> None:
    """On 25 October 2026 Berlin's 02:00 to 03:00 comes twice: from 00:00 and from 01:00 in UTC."""
    assert span_of(window("30 2 * * *"), now) == opens


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_length_is_time_that_passes_whatever_the_clocks_show(day: str) -> None:
    opened = opening(window("0 1 * * *", "4h"), at(f"{day}T00:30:00"))
    assert opened is not None
    assert opened.end.astimezone(UTC) - opened.start.astimezone(UTC) == timedelta(hours=4)


SUNDAYS = window("0 2 * * SUN")
MOMENTS = st.integers(0, 4 * 366 * 24 * 60).map(lambda minutes: at("2025-01-01T00:00:00") + timedelta(minutes=minutes))
WINDOWS = st.builds(
    window,
    st.sampled_from(["0 2 * * SUN", "30 2 * * *", "*/20 1-3 * * *", "0 3 1 * *", "15 0 * * 1-5"]),
    st.sampled_from(["1m", "1h", "5h", "24h"]),
    st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)


@given(found=WINDOWS, now=MOMENTS)
@example(found=window("0 2 * * SUN", "1m", "America/New_York"), now=at("2025-03-02T07:01:00"))
def test_the_opening_told_is_the_present_one_or_the_next_and_begins_by_the_schedule(
    found: Window, now: datetime
) -> None:
    opened = opening(found, now)
    assert opened is not None
    assert now < opened.end
    again = opening(found, opened.start)
    assert again is not None
    assert again.start <= opened.start < again.end
    if opened.start > now:
        assert opening(found, opened.start.astimezone(UTC) - timedelta(microseconds=1)) == opened
        shut = due_gate(Cutover(window=found), now)
        assert (shut.open, shut.reason) == (False, "OutsideWindow")
    else:
        assert due_gate(Cutover(window=found), now).open


@pytest.mark.parametrize(
    ("schedule", "zone", "path", "says"),
    [
        ("61 2 * * *", "UTC", "schedule", "Bad minute"),
        ("0 2 * * FOO", "UTC", "schedule", "Bad day-of-week"),
        ("0 0 31 2 *", "UTC", "schedule", "Bad day-of-month"),
        ("0 0 */30 2 1#5", "UTC", "schedule", "never opens"),
        ("0 2 * * *", "Europe/Berlln", "timeZone", "no time zone"),
        ("0 2 * * *", "../../etc/passwd", "timeZone", "no time zone"),
        ("0 2 * * *", "Europe", "timeZone", "no time zone"),
    ],
)
def test_what_no_schema_can_tell_is_refused_with_the_fields_name(
    schedule: str, zone: str, path: str, says: str
) -> None:
    wrong = window(schedule, zone=zone)
    (fault,) = faults(wrong)
    assert fault.path == f"spec.cutover.window.{path}"
    assert says in fault.what
    gate = due_gate(Cutover(window=wrong), at("2026-06-07T00:00:00"))
    assert (gate.open, gate.reason) == (False, "InvalidSpec")
    assert fault.path in gate.message
    assert earliest(Cutover(window=wrong), at("2026-06-07T00:00:00")) is None


@pytest.mark.parametrize("schedule", ["@annually", "0 2 * *      ", "0 0 2 * * SUN", "0 2 * * SUN\n"])
def test_a_schedule_has_five_fields(schedule: str) -> None:
    with pytest.raises(ValidationError):
        window(schedule)


@pytest.mark.parametrize(
    ("policy", "now", "reason"),
    [
        (Cutover(), "2026-06-07T00:00:00", "Due"),
        (Cutover(not_before=at("2026-06-07T00:00:00")), "2026-06-06T23:59:59", "NotBefore"),
        (Cutover(not_before=at("2026-06-07T00:00:00")), "2026-06-07T00:00:00", "Due"),
        (Cutover(not_before=at("2026-06-10T00:00:00"), window=SUNDAYS), "2026-06-07T00:00:00", "NotBefore"),
        (Cutover(not_before=at("2026-06-01T00:00:00"), window=SUNDAYS), "2026-06-07T00:00:00", "Due"),
        (Cutover(not_before=at("2026-06-01T00:00:00"), window=SUNDAYS), "2026-06-06T00:00:00", "OutsideWindow"),
    ],
)  # fmt: skip
def test_the_gate_asks_for_both(policy: Cutover, now: str, reason: str) -> None:
    gate = due_gate(policy, at(now))
    assert (gate.type, gate.reason, gate.open) == ("CutoverDue", reason, reason == "Due")


def test_the_gate_names_the_moment_in_the_windows_own_zone() -> None:
    gate = due_gate(Cutover(window=window("0 2 * * SUN", "90m")), at("2026-06-05T00:00:00"))
    assert gate.message == (
        "no cutover begins before 2026-06-07T02:00:00+02:00: the window is 0 2 * * SUN in Europe/Berlin, for 90m"
    )


def test_the_earliest_begin_joins_notbefore_and_the_window() -> None:
    policy = Cutover(not_before=at("2026-06-10T00:00:00"), window=SUNDAYS)
    assert earliest(policy, at("2026-06-07T00:00:00")) == at("2026-06-14T00:00:00")
    inside = Cutover(not_before=at("2026-06-14T00:20:00"), window=SUNDAYS)
    assert earliest(inside, at("2026-06-07T00:00:00")) == at("2026-06-14T00:20:00")
