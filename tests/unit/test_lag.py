"""Lag: known from what is pending, zero only by proof, unknown without a fresh word from the source."""

from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.engine.lag import LagMeter, Reading

SOURCE = "0c11b9d3-e5a7-11f1-a761-02fc00000001"


def at(number: int) -> str:
    return f"{SOURCE}:1-{number}"


def covers(position: str, other: str) -> bool:
    return GtidSet.parse(other).issubset(GtidSet.parse(position))


def meter() -> LagMeter:
    return LagMeter(covers, interval=1.0)


def test_without_any_word_from_the_source_the_lag_is_unknown() -> None:
    sample = meter().sample(100.0, at(5), None, None)
    assert (sample.seconds, sample.end_of_log_at) == (None, None)


def test_nothing_pending_is_no_proof() -> None:
    lag = meter()
    sample = lag.sample(100.0, at(5), None, newest_routed=99.5)
    assert sample.seconds is None


def test_zero_when_the_target_holds_what_the_source_says_it_has() -> None:
    lag = meter()
    lag.read(Reading(at(5), 100.0))
    sample = lag.sample(100.01, at(5), None, 42.0)
    assert (sample.seconds, sample.observed_at, sample.end_of_log_at) == (0.0, 100.0, 100.0)
    later = lag.sample(100.9, at(5), None, 42.0)
    assert (later.seconds, later.observed_at) == (0.0, 100.0), "no new observation has been made"


def test_the_age_of_the_oldest_pending_commit_even_without_the_source() -> None:
    assert meter().sample(100.0, at(5), oldest_pending=97.5, newest_routed=99.0).seconds == 2.5


def test_what_was_not_read_yet_bounds_the_lag_by_the_last_proof() -> None:
    lag = meter()
    lag.read(Reading(at(5), 100.0))
    lag.sample(100.0, at(5), None, None)
    lag.read(Reading(at(9), 101.0))
    sample = lag.sample(101.5, at(5), None, 90.0)
    assert (sample.seconds, sample.observed_at, sample.end_of_log_at) == (1.5, 101.5, 100.0)


def test_a_proof_that_comes_late_is_a_bound_not_zero() -> None:
    lag = meter()
    lag.read(Reading(at(9), 100.0))
    assert lag.sample(100.0, at(5), None, 99.9).seconds == 100.0 - 99.9
    sample = lag.sample(100.4, at(9), None, 99.95)
    assert sample.seconds is not None
    assert 0 < sample.seconds <= 0.4001
    assert sample.end_of_log_at == 100.0


def test_a_reading_is_not_proven_while_something_older_is_pending() -> None:
    lag = meter()
    lag.read(Reading(at(5), 100.0))
    assert lag.sample(100.2, at(5), oldest_pending=99.0, newest_routed=99.0).end_of_log_at is None
    newer = lag.sample(100.3, at(7), oldest_pending=100.1, newest_routed=100.2)
    assert newer.end_of_log_at == 100.0, "all that the source had at 100 is in; what is pending came later"


def test_stale_means_unknown() -> None:
    lag = meter()
    lag.read(Reading(at(5), 100.0))
    assert lag.sample(100.0, at(5), None, 90.0).seconds == 0.0
    assert lag.sample(103.0, at(5), None, 90.0).seconds == 0.0
    assert lag.sample(103.1, at(5), None, 90.0).seconds is None


def test_the_fetch_lag_is_zero_while_all_is_read_and_then_the_age_of_the_newest_reading_that_was() -> None:
    lag = meter()
    assert lag.fetch_lag(100.0, at(5), None) is None
    lag.read(Reading(at(5), 100.0))
    assert lag.fetch_lag(100.5, at(5), None) == 0.0, "though nothing of it is in the target yet"
    lag.read(Reading(at(9), 101.0))
    assert lag.fetch_lag(101.5, at(7), None) == 1.5
    assert lag.fetch_lag(101.6, at(9), None) == 0.0
    assert lag.fetch_lag(105.0, at(9), None) is None, "the source has not said anything lately"


def test_the_fetch_lag_of_a_reader_that_stays_behind_for_long_does_not_grow() -> None:
    lag = meter()
    assert lag.fetch_lag(99.0, at(0), 50.0) is None, "the source has said nothing yet"
    for second in range(200):
        lag.read(Reading(at(100 + second), 100.0 + second))
        assert lag.fetch_lag(100.5 + second, at(second), second + 0.5) == 100.0
