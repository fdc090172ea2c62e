"""Comparisons of a sample of a table of items: random, bounded, and shared among workers without overlap."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.item_pairs import Pair, listed, many
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.items import Segment
from whimbrel_worker.engine.compare.sample import Draw, drawn


def test_a_sample_is_bounded_and_random(tmp_path: Path) -> None:
    keys: set[str] = set()
    for seed in range(3):
        pair = Pair(findings=Findings(str(tmp_path / "found.jsonl")))
        for item in many(2000):
            pair.source.put(item)
        with pair.findings:
            pair.findings.begin(pair.table)
            pair.comparison().sample(pair.table, 100, 2000, seed)
        assert (pair.seen["rows"], pair.findings.differences.missing) == (100, 100)
        keys |= {entry["key"]["id"]["S"] for entry in listed(tmp_path / "found-src1.jsonl")}
    assert len(keys) > 200


def test_a_sample_finds_extra_items_too() -> None:
    pair = Pair()
    for item in many(1000):
        pair.target.put(item)
    pair.comparison().sample(pair.table, 50, 1000, 1)
    assert pair.findings.differences.extra == 50


def test_a_sample_of_a_small_table_is_all_of_it() -> None:
    pair = Pair()
    pair.both(*many(40))
    pair.target.delete("k00005")
    pair.target.put({"id": {"S": "extra"}})
    for index in range(4):
        pair.comparison(index, 4).sample(pair.table, 1000, 40, 1)
    assert (pair.seen["rows"], pair.findings.differences.total) == (40, 2)


@pytest.mark.parametrize("known", [0, 10, 10**12])
def test_a_sample_takes_its_share_though_the_estimate_is_wrong(known: int) -> None:
    pair = Pair()
    pair.both(*many(500))
    pair.comparison().sample(pair.table, 100, known, 3)
    assert pair.seen["rows"] == 100


@given(st.integers(1, 5000), st.integers(1, 20), st.integers(0, 10**10), st.integers(0, 9))
def test_the_workers_of_a_sample_draw_segments_of_their_own(rows: int, workers: int, known: int, seed: int) -> None:
    drawn_by = [Draw(rows, index, workers).segments(known, random.Random(seed)) for index in range(workers)]
    parts = [part for each in drawn_by for part in each]
    assert len(parts) == len(set(parts))
    assert all(0 <= part.index < part.total <= 1_000_000 for part in parts)
    assert sum(Draw(rows, index, workers).share for index in range(workers)) >= rows


def test_a_sample_reads_of_a_segment_no_more_than_its_piece() -> None:
    def read(segment: Segment) -> Iterator[Sequence[int]]:
        while True:
            yield [segment.index] * 3

    draw = Draw(100, 0, 1)
    taken = Counter(number for batch in drawn(draw, 10_000, random.Random(5), read) for number in batch)
    assert (sum(taken.values()), set(taken.values())) == (100, {10})
