"""Ends of commits that wait to be acknowledged: one of them alone is told, and no more are kept than asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_worker.endpoints.polardb.log.commit_ends import CommitEnds


def test_what_came_is_told_once_and_nothing_else() -> None:
    ends = CommitEnds()
    ends.extend([10, 20, 30])
    for wrong in (5, 15, 40):
        with pytest.raises(ValueError, match="not the end of a commit"):
            ends.take(wrong)
    assert ends.take(20) == 20
    with pytest.raises(ValueError, match="not the end of a commit"):
        ends.take(10)
    assert ends.take(30) == 30
    assert len(ends) == 0


def test_a_day_behind_a_stopped_table_fits_into_memory() -> None:
    ends = CommitEnds(most=100)
    for end in range(10, 100_000, 10):
        ends.extend([end])
        assert len(ends) <= 100
    assert ends.take(99_990) == 99_990
    with pytest.raises(ValueError, match="not the end of a commit"):
        ends.take(100_000)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.lists(st.floats(0, 1), max_size=20))
def test_never_more_is_told_than_was_asked_for(steps: list[int], places: list[float]) -> None:
    ends, came, told = CommitEnds(most=8), [sum(steps[: place + 1]) for place in range(len(steps))], 0
    ends.extend(came)
    for wanted in sorted(came[int(place * (len(came) - 1))] for place in places):
        taken = ends.take(wanted) if wanted > told else None
        if taken is not None:
            assert told < taken <= wanted
            assert taken in came
            told = taken
