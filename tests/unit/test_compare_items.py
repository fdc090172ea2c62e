"""Comparisons of tables of items that lie in another order on each side: every damage is found, and nothing else."""

import copy
import json
import random
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.item_pairs import Pair, Still, listed, many
from support.items_in_memory import Item, Side, item_table
from whimbrel_api.migration import CheckResult
from whimbrel_worker.engine.compare import steady
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.item_findings import every_item_file, item_file
from whimbrel_worker.engine.compare.items import Segment, matched_items, segments_of
from whimbrel_worker.engine.compare.lanes import Lane, in_lanes
from whimbrel_worker.engine.compare.merge import Step
from whimbrel_worker.engine.compare.reading import back, portion_after
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.values.columns import Table
from whimbrel_worker.values.items import key_cells, open_batch

WHOLE: Item = {
    "id": {"S": "k1"},
    "n": {"N": "1"},
    "m": {"M": {"deep": {"M": {"l": {"L": [{"S": "a"}, {"B": "AAEC"}, {"NULL": True}, {"M": {"x": {"S": "y"}}}]}}}}},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": ["AA==", "AQ=="]},
    "empty": {"S": ""},
    "null": {"NULL": True},
    "flag": {"BOOL": True},
    "bin": {"B": "AAECAw=="},
    "name": {"S": "ünïcödé 🐦"},
}


EQUAL: dict[str, Callable[[Item], object]] = {
    "nothing changed": lambda item: None,
    "a number in another form": lambda item: item.update(n={"N": "1.0"}),
    "a number with an exponent": lambda item: item.update(n={"N": "10E-1"}),
    "a set in another order": lambda item: item.update(ss={"SS": ["b", "a"]}, bs={"BS": ["AQ==", "AA=="]}),
    "numbers of a set in another form": lambda item: item.update(ns={"NS": ["2.50", "1.0"]}),
    "a map in another order": lambda item: item.update(
        m={"M": {"deep": {"M": dict(reversed(item["m"]["M"]["deep"]["M"].items()))}}}
    ),
}


@pytest.mark.parametrize("what", EQUAL)
def test_items_that_are_equal_by_value_are_equal(what: str) -> None:
    pair = Pair()
    pair.both(WHOLE, *many(3))
    EQUAL[what](next(item for item in pair.target.items.values() if item["id"]["S"] == "k1"))
    assert pair.compare().result is CheckResult.EQUAL


def deep(item: Item) -> list[Item]:
    members: list[Item] = item["m"]["M"]["deep"]["M"]["l"]["L"]
    return members


DAMAGE: dict[str, tuple[Callable[[Item], object], str]] = {
    "one byte deep in a map": (lambda item: deep(item)[3]["M"].update(x={"S": "z"}), "m"),
    "one byte of a binary deep in a list": (lambda item: deep(item)[1].update(B="AAED"), "m"),
    "a list in another order": (lambda item: deep(item).reverse(), "m"),
    "a list's last member gone": (lambda item: deep(item).pop(), "m"),
    "an attribute removed": (lambda item: item.pop("flag"), "flag"),
    "an attribute added": (lambda item: item.update(more={"S": ""}), "more"),
    "a number": (lambda item: item.update(n={"N": "1.0000000000000000000000000000000000001"}), "n"),
    "a number as a string": (lambda item: item.update(n={"S": "1"}), "n"),
    "one member of a set": (lambda item: item["ss"]["SS"].append("c"), "ss"),
    "strings for a list of strings": (lambda item: item.update(ss={"L": [{"S": "a"}, {"S": "b"}]}), "ss"),
    "a byte of a binary": (lambda item: item.update(bin={"B": "AAECBA=="}), "bin"),
    "empty string for NULL": (lambda item: item.update(null={"S": ""}), "null"),
    "NULL for an empty string": (lambda item: item.update(empty={"NULL": True}), "empty"),
    "an empty string gone": (lambda item: item.pop("empty"), "empty"),
    "NULL gone": (lambda item: item.pop("null"), "null"),
    "false for true": (lambda item: item.update(flag={"BOOL": False}), "flag"),
    "a letter in another form": (lambda item: item.update(name={"S": "u\u0308n\u00efc\u00f6d\u00e9 🐦"}), "name"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_each_damage_is_found_and_its_attribute_named(what: str, tmp_path: Path) -> None:
    pair = Pair(findings=Findings(str(tmp_path / "found.jsonl")))
    pair.both(WHOLE, *many(20))
    damage, attribute = DAMAGE[what]
    damage(next(item for item in pair.target.items.values() if item["id"]["S"] == "k1"))
    found = pair.compare()
    assert (found.differences.changed, found.differences.total) == (1, 1)
    (entry,) = listed(tmp_path / "found-src1.jsonl")
    assert (entry["key"], list(entry["attributes"])) == ({"id": {"S": "k1"}}, [attribute])
    assert found.examples == [f"src1: changed, key {entry['digest']} in {attribute}"]


def test_missing_and_extra_items_are_found_with_both_values(tmp_path: Path) -> None:
    pair = Pair(findings=Findings(str(tmp_path / "found.jsonl")))
    pair.both(*many(50))
    pair.target.delete("k00007")
    pair.source.delete("k00040")
    pair.target.items[next(iter(pair.target.items))]["t"] = {"NULL": True}
    found = pair.compare()
    assert (found.differences.missing, found.differences.extra, found.differences.changed) == (1, 1, 1)
    entries = {entry["kind"]: entry for entry in listed(tmp_path / "found-src1.jsonl")}
    assert entries["missing"]["source"] == {"id": {"S": "k00007"}, "val": {"N": "7"}, "t": {"S": "x" * 20}}
    assert entries["extra"]["target"]["val"] == {"N": "40"}
    assert entries["changed"]["attributes"] == {"t": {"source": {"S": "x" * 20}, "target": {"NULL": True}}}
    assert (tmp_path / "found.jsonl").read_text() == ""
    assert not [example for example in found.examples if "k000" in example or "xxx" in example]


def test_a_sort_key_tells_items_apart() -> None:
    table = item_table(sort_key=True)
    pair = Pair(table)
    for side in (pair.source, pair.target):
        for number in range(30):
            side.put({"id": {"S": "same"}, "at": {"N": str(number)}, "v": {"N": str(number)}}, ("id", "at"))
    assert pair.compare().result is CheckResult.EQUAL
    pair.target.items.popitem()
    assert pair.compare().differences.missing == 1


def test_redacted_findings_show_attribute_names_alone(tmp_path: Path) -> None:
    pair = Pair(findings=Findings(str(tmp_path / "found.jsonl"), redact=True))
    pair.both(WHOLE, *many(5))
    pair.target.items[next(iter(pair.target.items))]["name"] = {"S": "secret"}
    pair.target.delete("k00003")
    pair.compare()
    text = (tmp_path / "found-src1.jsonl").read_text()
    assert not [word for word in ("secret", "ünïcödé", "k1", "k00003", "xxx") if word in text]
    assert '"attributes": {"name": {"source": "sha256:' in text


def test_the_list_of_each_table_is_bounded_and_the_count_is_not(tmp_path: Path) -> None:
    findings = Findings(str(tmp_path / "found.jsonl"), limit=3)
    for name in ("one", "two"):
        pair = Pair(item_table(name), findings=findings)
        pair.both(*many(30))
        pair.target.items.clear()
        pair.compare()
        assert len(listed(tmp_path / f"found-{name}.jsonl")) == 3
    assert (findings.differences.missing, len(findings.examples)) == (60, 20)


def test_a_comparison_without_differences_leaves_an_empty_list(tmp_path: Path) -> None:
    item_file(str(tmp_path / "found.jsonl"), "src1").write_text("an older comparison's\n")
    pair = Pair(findings=Findings(str(tmp_path / "found.jsonl")))
    pair.both(*many(3))
    pair.compare()
    assert (tmp_path / "found-src1.jsonl").read_text() == ""
    assert (tmp_path / "found-src1.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_long_value_is_named_by_its_size(tmp_path: Path) -> None:
    pair = Pair(findings=Findings(str(tmp_path / "found.jsonl")))
    pair.source.put({"id": {"S": "k"}, "long": {"S": "x" * 300_000}})
    pair.compare()
    (entry,) = listed(tmp_path / "found-src1.jsonl")
    assert entry["source"]["long"].endswith("(300008 bytes)")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "a\x00b", "a/b", "ü" * 300, "x" * 255, ""]
)
def test_no_tables_name_leaves_the_folder(name: str, tmp_path: Path) -> None:
    path = item_file(str(tmp_path / "found.jsonl"), name)
    assert path.resolve().parent == tmp_path.resolve()
    assert len(path.name.encode()) < 200
    path.touch()


def test_tables_names_made_alike_have_files_of_their_own() -> None:
    names = ["a/b", "a_b", "a b", "x" * 120, "x" * 121]
    assert len({item_file("d/found.jsonl", name) for name in names}) == len(names)
    assert every_item_file("d/found.jsonl") == "d/found-*.jsonl"
    assert str(item_file("found.jsonl", "my.table-1_x")) == "found-my.table-1_x.jsonl"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 60), st.randoms(use_true_random=False))
def test_every_item_is_compared_by_one_worker(workers: int, count: int, rng: random.Random) -> None:
    """Whatever size each believes the table to have."""
    pair = Pair()
    pair.both(*many(count))
    for key in rng.sample(sorted(pair.target.items), count // 5):
        del pair.target.items[key]
    missing = count - len(pair.target.items)
    for number in range(count // 7):
        pair.target.put({"id": {"S": f"extra{number}"}})
    for index in range(workers):
        pair.table = item_table(rows=rng.choice([0, count, 10**9]))
        pair.compare(index, workers)
    assert (pair.findings.differences.missing, pair.findings.differences.extra) == (missing, count // 7)
    assert pair.seen == Counter(rows=count, looked_up=len(pair.target.items))


def test_segments_name_their_bounds_as_the_sources_reader_takes_them() -> None:
    assert [(part.low, part.high) for part in (Segment(0, 1), Segment(0, 2), Segment(1, 2))] == [
        (None, None),
        (None, ("1/2",)),
        (("1/2",), None),
    ]
    assert [part.index for index in range(3) for part in segments_of(index, 3)] == list(range(24))


@pytest.mark.parametrize("seed", range(5))
def test_readers_go_on_where_they_were(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(steady, "BACKOFF", Backoff(base=0.001, cap=0.001))
    pair = Pair()
    pair.both(*many(400))
    pair.target.delete("k00100")
    pair.target.put({"id": {"S": "extra"}})
    pair.source.trouble, pair.target.trouble = random.Random(seed), random.Random(seed + 100)
    found = pair.compare()
    assert (found.differences.missing, found.differences.extra, found.differences.total) == (1, 1, 2)
    assert pair.source.reads == 400
    assert [low for low, _ in pair.source.open_segments if low and len(low) == 2]


def test_large_items_are_asked_for_a_few_at_a_time() -> None:
    assert portion_after([]) == 2000
    assert portion_after([(b"k", b"x" * 250)] * 100) == 2000
    assert portion_after([(b"k", b"x" * 40_000)] * 100) == 104
    assert portion_after([(b"k", b"x" * 400_000)] * 7) == 10
    pair = Pair()
    for number in range(300):
        pair.both({"id": {"S": f"k{number}"}, "long": {"S": "x" * 20_000}})
    asked: list[int] = []
    read = pair.source.by_keys

    def counting(table: Table, keys: Sequence[Any]) -> Sequence[Any]:
        asked.append(len(keys))
        return read(table, keys)

    pair.source.by_keys, pair.target.page = counting, 300  # type: ignore[method-assign]
    lane = pair.lane()
    steps = list(back(lane.source, pair.table, lane.target.segment_keys(pair.table, 0, 1)))
    assert (asked, [step.looked_up for step in steps]) == ([100, 200], [300])
    assert not [step for step in steps if step.suspects]


def test_rows_take_little_more_room_than_their_bytes() -> None:
    """What orjson writes keeps a buffer of 4 KB each unless it is copied."""
    bodies = [json.dumps(item).encode() for item in many(1000)]
    reply = b'{"Responses":{"src1":[' + b",".join(bodies) + b"]}}"
    tracemalloc.start()
    cells = [key_cells(body, ["id"]) for body in bodies]
    items = open_batch(reply)[0]["src1"]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(cells), len(items)) == (1000, 1000)
    assert held < 400_000


def test_the_first_error_ends_all_lanes() -> None:
    class Broken(RuntimeError):
        pass

    turns = Counter[str]()

    def endless(lane: Lane) -> Iterator[None]:
        while True:
            turns.update(endless=1)
            yield

    def breaking(lane: Lane) -> Iterator[None]:
        yield
        raise Broken

    lane = Pair().lane()
    with pytest.raises(Broken):
        in_lanes([lane, lane, lane], [endless, breaking, endless, endless])
    assert turns["endless"] > 0


def test_items_in_flight_end_equal_or_open_never_different() -> None:
    """A writer's changes reach the target late, by a stream that says when it has caught up."""
    rng = random.Random(7)
    pair = Pair(attempts=3, backoff=0.005)
    pair.both(*many(300))
    stream = _Stream(pair)
    pair.flow = stream
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            key = f"k{rng.randrange(300):05}"
            gone = rng.random() < 0.2
            stream.write(key, None if gone else {"id": {"S": key}, "val": {"N": str(number)}})
            done.wait(0.0005)

    threads = [threading.Thread(target=write), threading.Thread(target=stream.run, args=(done,))]
    for thread in threads:
        thread.start()
    for index in range(4):
        pair.compare(index, 4)
    done.set()
    for thread in threads:
        thread.join()
    assert stream.written > 20
    assert pair.findings.differences.total == 0


def test_a_change_between_the_last_looks_at_both_sides_is_no_difference() -> None:
    """The target is late at the first look. At the second a change comes after the source was read."""
    pair = Pair(attempts=1, flow=Still(exists=True))
    pair.both(*many(3))
    pair.source.put({"id": {"S": "k00001"}, "val": {"N": "1000"}})
    looks = Counter[str]()
    read = pair.target.by_keys

    def late(table: Table, keys: Sequence[Any]) -> Sequence[Any]:
        looks.update(target=any(b"k00001" in key[0] for key in keys))
        if looks["target"] == 3:  # the comparison's own look, then two of the recheck
            looks.update(target=1)
            pair.both({"id": {"S": "k00001"}, "val": {"N": "2000"}})
        return read(table, keys)

    pair.target.by_keys = late  # type: ignore[method-assign]
    pair.compare()
    assert (pair.findings.differences.total, pair.findings.inconclusive) == (0, 1)


@pytest.mark.parametrize("what", EQUAL)
def test_equal_items_in_other_bytes_need_no_second_look(what: str) -> None:
    pair = Pair()
    pair.both(WHOLE)
    (item,) = pair.target.items.values()
    EQUAL[what](item)
    rows, found = (list(side.by_keys(pair.table, [*side.items])) for side in (pair.source, pair.target))
    assert matched_items(pair.table, rows, found) == Step(rows=1)


def test_damage_under_a_stream_is_different() -> None:
    pair = Pair(attempts=3, backoff=0.005, flow=Still(exists=True))
    pair.both(*many(50))
    pair.target.delete("k00003")
    assert pair.compare().differences.missing == 1


class _Stream:
    """Applies the source's changes to the target a while later, in order."""

    exists = True

    def __init__(self, pair: Pair) -> None:
        self._pair, self._lock = pair, threading.Lock()
        self._waiting: list[tuple[str, Item | None]] = []
        self.written = self._applied = 0

    def write(self, key: str, item: Item | None) -> None:
        with self._lock:
            _apply(self._pair.source, key, item)
            self._waiting.append((key, item))
            self.written += 1

    def run(self, done: threading.Event) -> None:
        while not done.wait(0.01):
            with self._lock:
                moved, self._waiting = self._waiting, []
            for key, item in moved:
                _apply(self._pair.target, key, item)
                self._applied += 1

    def caught_up(self) -> bool:
        wanted, pause = self.written, threading.Event()
        while self._applied < wanted:
            pause.wait(0.001)
        return True


def _apply(side: Side, key: str, item: Item | None) -> None:
    if item is not None:
        side.put(copy.deepcopy(item))
    elif any(known["id"]["S"] == key for known in list(side.items.values())):
        side.delete(key)
