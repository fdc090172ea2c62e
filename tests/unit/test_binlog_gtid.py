"""GTID sets against a plain set of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
SOURCES = [A, B, f"{A}:blue", f"{A}:green_1", f"{B}:blue"]
members = st.sets(st.tuples(st.sampled_from(SOURCES), st.integers(1, 30)), max_size=60)


def made(pairs: set[tuple[str, int]]) -> GtidSet:
    result = GtidSet()
    for source, number in pairs:
        result.add(source, number)
    return result


def listed(gtids: GtidSet) -> set[tuple[str, int]]:
    return {(s, n) for s in SOURCES for n in range(1, 32) if gtids.contains(f"{s}:{n}")}


@given(members)
def test_a_set_holds_what_was_added_and_its_text_says_the_same(pairs: set[tuple[str, int]]) -> None:
    gtids = made(pairs)
    assert listed(gtids) == pairs
    assert len(gtids) == len(pairs)
    assert bool(gtids) == bool(pairs)
    assert GtidSet.parse(str(gtids)) == gtids
    assert listed(GtidSet.parse(str(gtids))) == pairs


@given(members, members)
def test_arithmetic_is_that_of_sets(left: set[tuple[str, int]], right: set[tuple[str, int]]) -> None:
    one, two = made(left), made(right)
    assert listed(one.union(two)) == left | right
    assert listed(one.intersection(two)) == left & right
    assert listed(one.difference(two)) == left - right
    assert one.issubset(two) == (left <= right)
    assert (one == two) == (left == right)
    assert listed(one) == left, "the operands stay as they were"


@given(members, st.sampled_from(SOURCES), st.integers(1, 30), st.integers(1, 10))
def test_ranges_join(pairs: set[tuple[str, int]], source: str, start: int, size: int) -> None:
    gtids = made(pairs)
    gtids.add_range(source, start, start + size)
    whole = pairs | {(source, n) for n in range(start, start + size)}
    assert listed(gtids) == {pair for pair in whole if pair[1] < 32}
    assert gtids == made(whole), "touching intervals are one"


def test_text_is_that_of_the_server() -> None:
    text = f"{B}:7:tag_b:1-2, {A.upper()}:5-6:1-3:4:blue:9:\n9-12,{A}:green:1"
    assert str(GtidSet.parse(text)) == f"{A}:1-6:blue:9-12:green:1,{B}:7:tag_b:1-2"
    assert str(GtidSet.parse("")) == ""


def test_a_copy_is_independent() -> None:
    gtids = GtidSet.parse(f"{A}:1-3")
    copy = gtids.copy()
    copy.add_gtid(f"{A}:4")
    copy.add_gtid(f"{A}:blue:1")
    assert str(gtids) == f"{A}:1-3"
    assert str(copy) == f"{A}:1-4:blue:1"


@pytest.mark.parametrize(
    "text", ["x:1", A, f"{A}:", f"{A}:0", f"{A}:1-2-3", f"{A}:-4", f"{A}:1;{B}:1", f"{A}:9223372036854775807", f"{A}:é"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a GTID set"):
        GtidSet.parse(text)


def test_wire_form_without_tags() -> None:
    encoded = GtidSet.parse(f"{A}:1-3:7").encode()
    numbers = b"".join(n.to_bytes(8, "little") for n in (2, 1, 4, 7, 8))
    assert encoded == (1).to_bytes(8, "little") + bytes.fromhex(A.replace("-", "")) + numbers
    assert GtidSet().encode() == bytes(8)
