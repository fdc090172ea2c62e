"""Comparisons by merge, lookups and changed keys over made-up rows, and what is reported of them."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_api.migration import CheckResult
from whimbrel_worker.engine.compare.changed_keys import ChangedKeys
from whimbrel_worker.engine.compare.comparison import deal
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.merge import Key, Step, matched, merge, unmatched
from whimbrel_worker.engine.compare.reading import Ahead
from whimbrel_worker.engine.ports import Changes
from whimbrel_worker.values.canonical import identity
from whimbrel_worker.values.columns import Column, Kind, Row, Table

Rows = dict[tuple[int, str], str | None]
rows_strategy = st.dictionaries(
    st.tuples(st.integers(-3, 12), st.sampled_from(["", "a", "A", "b"])), st.none() | st.sampled_from(["", "x", "y"])
)


def table(name: str = "t", collated: bool = False) -> Table:
    columns = (
        Column("n", Kind.INTEGER, "int", "integer", nullable=False),
        Column("value", Kind.TEXT, "text", "text"),
        Column("s", Kind.TEXT, "varchar(5)", "varchar(5)", nullable=False, collated=collated),
    )
    return Table("shop", name, "shop", name, columns, (0, 2))


def cells(rows: Rows) -> list[Row]:
    """In key order: numbers by value, text by bytes."""
    return [
        (b"%d" % n, None if value is None else value.encode(), s.encode()) for (n, s), value in sorted(rows.items())
    ]


def batches(rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[Sequence[Row]]:
    remaining, turn = iter(rows), 0
    while batch := list(islice(remaining, sizes[turn % len(sizes)])):
        turn += 1
        yield batch


def suspects(steps: Iterator[Step]) -> tuple[set[tuple[int, str]], int]:
    keys, rows = set(), 0
    for step in steps:
        rows += step.rows
        keys |= {plain(key) for key in step.suspects.values()}
    return keys, rows


def plain(key: Key) -> tuple[int, str]:
    number, text = key
    assert isinstance(number, bytes)
    assert isinstance(text, bytes)
    return int(number), text.decode()


def naive(source: Rows, target: Rows) -> set[tuple[int, str]]:
    missing = object()
    return {key for key in source.keys() | target.keys() if source.get(key, missing) != target.get(key, missing)}


sizes_strategy = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(rows_strategy, rows_strategy, sizes_strategy, sizes_strategy)
def test_merge_finds_what_a_dictionary_finds(source: Rows, target: Rows, left: list[int], right: list[int]) -> None:
    found, rows = suspects(merge(table(), batches(cells(source), left), batches(cells(target), right)))
    assert found == naive(source, target)
    assert rows == len(source)


@settings(max_examples=200, deadline=None)
@given(rows_strategy, rows_strategy, st.randoms())
def test_an_unexpected_order_hides_nothing(source: Rows, target: Rows, random: object) -> None:
    shuffled = cells(target)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found, _ = suspects(merge(table(), batches(cells(source), [3]), batches(shuffled, [2])))
    assert found >= naive(source, target)


@settings(max_examples=200, deadline=None)
@given(rows_strategy, rows_strategy)
def test_lookups_find_what_a_dictionary_finds(source: Rows, target: Rows) -> None:
    shop, left, right = table(collated=True), cells(source), cells(target)
    keys = [shop.key_of(row) for row in right]
    folded = [row for row in left if any(str(shop.key_of(row)).lower() == str(key).lower() for key in keys)]
    found, rows = suspects(iter([matched(shop, left, right), unmatched(shop, keys, folded)]))
    assert found == naive(source, target)
    assert rows == len(source)


def test_equal_values_in_other_bytes_are_no_suspects() -> None:
    source: list[Row] = [(b"007", b"x", b"a")]
    assert suspects(merge(table(), [source], [[(b"7", b"x", b"a")]])) == (set(), 1)


def test_a_key_twice_in_the_target_is_suspicious() -> None:
    source: list[Row] = [(b"1", b"x", b"a"), (b"2", b"x", b"a")]
    assert suspects(merge(table(), [source], [[source[0], source[0], source[1]]])) == ({(1, "a")}, 2)
    assert suspects(iter([matched(table(), source, [source[0], source[0], source[1]])])) == ({(1, "a")}, 2)


def test_reading_ahead_passes_items_and_errors_on() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    seen: list[int] = []
    with Ahead(items(), "test") as ahead, pytest.raises(ValueError, match="broken"):
        seen.extend(ahead)
    assert seen == [0, 1, 2, 3, 4]


def test_reading_ahead_ends_when_nobody_reads_on() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield (number := number + 1)
        finally:
            closed.append(True)

    with Ahead(items(), "test") as ahead:
        assert next(iter(ahead)) == 1
    assert closed == [True]


def findings_with(path: Path, redact: bool = False, limit: int = 10) -> Findings:
    return Findings(str(path), limit, redact)


KEY: Key = (b"7", b"eve@example.org")
SOURCE: Row = (b"7", b"secret-one", b"eve@example.org")
TARGET: Row = (b"7", None, b"eve@example.org")


def test_differences_are_listed_with_both_values(tmp_path: Path) -> None:
    with findings_with(tmp_path / "report") as findings:
        findings.row(table(), "changed", KEY, source=SOURCE, target=TARGET)
        findings.row(table(), "missing", KEY, source=SOURCE, target=None)
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert lines[0] == {
        "table": "shop.t",
        "kind": "changed",
        "key": {"n": "7", "s": "eve@example.org"},
        "columns": {"value": {"source": "secret-one", "target": None}},
    }
    assert (lines[1]["kind"], lines[1]["columns"]) == ("missing", {})
    assert findings.examples[0] == 'shop.t {"n": "7", "s": "eve@example.org"}: changed in value'
    assert os.stat(tmp_path / "report").st_mode & 0o777 == 0o600  # noqa: PTH116
    assert (findings.result, findings.differences.total, findings.by_table) == (CheckResult.DIFFERENT, 2, {"shop.t": 2})


def test_redacted_findings_show_no_value(tmp_path: Path) -> None:
    with findings_with(tmp_path / "report", redact=True) as findings:
        findings.row(table(), "changed", KEY, source=SOURCE, target=TARGET)
    text = (tmp_path / "report").read_text() + str(findings.examples)
    assert "secret-one" not in text
    assert "eve@" not in text
    entry = json.loads((tmp_path / "report").read_text())
    assert entry["key"]["n"] == "7"
    assert entry["columns"]["value"]["source"].startswith("sha256:")
    assert entry["columns"]["value"]["target"] is None


def test_the_list_is_bounded_and_the_count_is_not(tmp_path: Path) -> None:
    with findings_with(tmp_path / "report", limit=3) as findings:
        for _ in range(50):
            findings.row(table(), "extra", KEY, source=None, target=TARGET)
    assert len((tmp_path / "report").read_text().splitlines()) == 3
    assert (findings.differences.extra, len(findings.examples), findings.plenty) == (50, 20, True)


def test_what_cannot_be_known_is_not_equal() -> None:
    assert Findings().result == CheckResult.EQUAL
    findings = Findings()
    findings.whole_table("shop.t", "stopped")
    assert findings.result == CheckResult.INCONCLUSIVE


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000)), st.integers(1, 5))
def test_every_table_is_dealt_to_one_worker(sizes: dict[str, int], workers: int) -> None:
    tables = [table(name) for name in "abcdefgh"]
    known = {f"shop.{name}": size for name, size in sizes.items()}
    dealt = [one.name for index in range(workers) for one in deal(tables, index, workers, known)]
    assert sorted(dealt) == sorted(one.name for one in tables)


@pytest.mark.parametrize("known", [{}, {f"shop.{name}": ord(name) for name in "abcdef"}])
def test_a_table_that_comes_or_goes_between_two_looks_leaves_the_others_where_they_are(known: dict[str, int]) -> None:
    before, after = [table(name) for name in "abcdef"], [table(name) for name in "bcdefg"]
    dealt = [one.name for index in range(3) for one in deal(after if index else before, index, 3, known)]
    assert {f"shop.{name}" for name in "bcdef"} <= set(dealt)


def test_old_and_new_keys_are_collected_until_there_are_too_many() -> None:
    found, shop = ChangedKeys(), table()
    before, after = (b"1", b"x", b"a"), (b"2", b"x", b"a")
    found.add(Changes(shop, [(before, after), (None, after), (before, None)]), 2)
    assert found.keys["shop.t"].keys() == {identity(shop.key_columns, key) for key in ((1, b"a"), (2, b"a"))}
    found.add(Changes(shop, [(None, (b"3", None, b""))]), 2)
    assert (found.crowded, found.keys) == ({"shop.t"}, {})
    found.add(Changes(shop, [(None, (b"4", None, b""))]), 2)
    assert found.keys == {}
