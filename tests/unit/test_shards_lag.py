"""What a page proves, when a shard is quiet, and that the lag is a bound or unknown, never a guess."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from whimbrel_worker.engine.shard_ports import ItemChange, Page, ShardRef, ShardRow, ShardState
from whimbrel_worker.engine.shards.flow import all_passed
from whimbrel_worker.engine.shards.lag import (
    CURRENT_SECONDS,
    FRESH_SECONDS,
    QUIET_PAGES,
    QUIET_SECONDS,
    EmptyRun,
    advanced,
    is_quiet,
    least_proven,
    sample,
)

BASE = 1000.0


def row(shard: str = "a", parent: str = "", **fields: Any) -> ShardRow:
    return replace(ShardRow(ShardRef("t", "arn/1", shard), parent), **fields)


def quiet(shard: str, now: float, **fields: Any) -> ShardRow:
    return row(shard, quiet_since=now - 60.0, asked_at=now - 1.0, state=ShardState.READING, **fields)


def page(asked_at: float, *times: float, ended: bool = False) -> Page:
    return Page([ItemChange(str(int(at * 10)), (b"k",), None, at) for at in times], asked_at, ended)


def after(start: ShardRow, pages: Sequence[Page]) -> tuple[ShardRow, EmptyRun]:
    run = EmptyRun()
    for each in pages:
        start, run = advanced(start, each, run, len(each.changes))
    return start, run


def test_a_record_proves_all_before_its_own_second() -> None:
    found, _ = after(row(), [page(2001.0, 1999.2, 2000.9)])
    assert (found.read_to, found.position, found.changes, found.last_change_at) == (2000.0, "20009", 2, 2000.9)
    assert sample([found], 2001.0, BASE).lag_seconds == pytest.approx(1.0)


def test_an_empty_page_never_lowers_the_bound() -> None:
    busy, _ = after(row(), [page(2001.0, 2000.0)])
    before = sample([busy], 2002.0, BASE).lag_seconds
    empty, _ = after(busy, [page(2002.0)])
    found = sample([empty], 2002.0, BASE)
    assert (found.lag_seconds, found.quiet) == (before, False)
    assert sample([empty], 2004.0, BASE).lag_seconds == pytest.approx(4.0)


def test_quiet_needs_enough_empty_pages_over_enough_time() -> None:
    quick, _ = after(row(), [page(2000.0 + 0.01 * each) for each in range(QUIET_PAGES + 5)])
    assert quick.quiet_since == 2000.0
    assert not is_quiet(quick, 2000.2)
    few, _ = after(row(), [page(2000.0), page(2000.0 + 2 * QUIET_SECONDS)])
    assert not is_quiet(few, 2007.0)
    enough, _ = after(row(), [page(2000.0 + each) for each in range(QUIET_PAGES)])
    assert is_quiet(enough, 2005.0)


def test_a_record_ends_the_quiet() -> None:
    found, run = after(row(), [*(page(2000.0 + each) for each in range(10)), page(2011.0, 2010.5)])
    assert (found.quiet_since, run) == (0.0, EmptyRun())


def test_a_shard_that_nobody_asks_any_more_is_not_quiet() -> None:
    assert is_quiet(quiet("a", 2000.0), 2000.0)
    assert not is_quiet(quiet("a", 2000.0), 2000.0 + FRESH_SECONDS)


def test_where_all_is_quiet_no_lag_is_claimed() -> None:
    found = sample([quiet("a", 2000.0), quiet("b", 1999.0)], 2000.0, BASE)
    assert (found.lag_seconds, found.quiet, found.observed_at) == (None, True, 1998.0)


def test_quiet_and_current_shards_together_claim_no_lag_and_say_until_when() -> None:
    rows = [quiet("a", 2000.0), row("b", read_to=1997.0, asked_at=1999.9, state=ShardState.READING)]
    found = sample(rows, 2000.0, BASE)
    assert (found.lag_seconds, found.quiet, found.observed_at) == (None, True, 1997.0)


def test_one_shard_that_is_behind_makes_the_bound_that_of_the_oldest_proof() -> None:
    rows = [quiet("a", 2000.0, read_to=1500.0), row("b", read_to=2000.0 - CURRENT_SECONDS - 1)]
    found = sample(rows, 2000.0, BASE)
    assert (found.lag_seconds, found.quiet) == (500.0, False)


def test_a_shard_nobody_has_read_counts_from_the_start_of_the_copy() -> None:
    assert sample([row("a")], 1060.0, BASE).lag_seconds == 60.0


def test_a_child_begins_where_its_parent_has_proved_to_be() -> None:
    rows = [row("a", state=ShardState.DONE, read_to=1990.0), row("b", "a")]
    assert sample(rows, 2000.0, BASE).lag_seconds == 10.0
    assert least_proven(rows, 2000.0, BASE) == 1990.0


def test_between_a_shards_end_and_its_child_nothing_is_quiet() -> None:
    ended = row("a", state=ShardState.DONE, read_to=1900.0, asked_at=1999.0)
    assert not sample([ended, quiet("other", 2000.0)], 2000.0, BASE).quiet
    assert sample([ended, quiet("other", 2100.0)], 2100.0, BASE).quiet


def test_without_open_shards_the_lag_is_unknown() -> None:
    assert sample([], 2000.0, BASE).lag_seconds is None
    assert not sample([row(state=ShardState.DONE)], 2000.0, BASE).quiet


def test_a_flow_has_passed_by_proof_or_by_a_later_question() -> None:
    assert all_passed([row("a", read_to=2000.0)], 2000.0, 2001.0)
    assert all_passed([row("a", quiet_since=1990.0, asked_at=2000.5)], 2000.0, 2001.0)
    assert not all_passed([row("a", quiet_since=1990.0, asked_at=1999.5)], 2000.0, 2001.0)
    assert not all_passed([row("a", asked_at=2000.5)], 2000.0, 2001.0)


@pytest.mark.parametrize("seed", range(50))
def test_the_bound_is_never_below_the_age_of_what_is_missing(seed: int) -> None:
    """Records written at known times come through pages of any size, with empty ones between them."""
    rng, now, start, run = random.Random(seed), 2000.0, row(), EmptyRun()
    unread: list[float] = []
    for _ in range(200):
        now += rng.random()
        unread += [now] * (rng.random() < 0.5)
        if rng.random() < 0.6:
            taken = 0 if rng.random() < 0.4 else rng.randint(0, len(unread))
            start, run = advanced(start, page(now, *unread[:taken]), run, taken)
            unread = unread[taken:]
        found = sample([start], now, BASE)
        if found.lag_seconds is not None and unread:
            assert found.lag_seconds >= now - unread[0]
