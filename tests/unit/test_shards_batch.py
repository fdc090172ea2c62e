"""A page's changes as writes: the last state of each key, without what was there before and without TTL deletes."""

from hypothesis import given
from hypothesis import strategies as st

from support.memory_shards import MemoryItems, item_table
from whimbrel_worker.engine.ports import Delete, Upsert
from whimbrel_worker.engine.shard_ports import ItemChange
from whimbrel_worker.engine.shards.batch import writes_of

TABLE = item_table("t")


def change(number: int, key: bytes, value: bytes | None, *, at: float = 50.0, by_ttl: bool = False) -> ItemChange:
    return ItemChange(str(number), (key,), None if value is None else (key, value), at, by_ttl)


def test_the_last_change_of_a_key_wins_and_no_key_stands_twice() -> None:
    page = [change(1, b"a", b"1"), change(2, b"b", b"1"), change(3, b"a", None), change(4, b"b", b"2")]
    found = writes_of(TABLE, page, skip_before=0.0, keep_ttl=True)
    assert found.writes == [Upsert(TABLE, [(b"b", b"2")]), Delete(TABLE, [(b"a",)])]
    assert found.changes == 4


def test_a_ttl_delete_left_out_leaves_what_came_before_it() -> None:
    page = [change(1, b"a", b"1"), change(2, b"a", None, by_ttl=True)]
    assert writes_of(TABLE, page, skip_before=0.0, keep_ttl=False).writes == [Upsert(TABLE, [(b"a", b"1")])]
    assert writes_of(TABLE, page, skip_before=0.0, keep_ttl=True).writes == [Delete(TABLE, [(b"a",)])]


def test_changes_from_before_the_copy_are_left_out() -> None:
    page = [change(1, b"a", b"1", at=9.9), change(2, b"b", b"1", at=10.0)]
    found = writes_of(TABLE, page, skip_before=10.0, keep_ttl=True)
    assert found.writes == [Upsert(TABLE, [(b"b", b"1")])]
    assert found.changes == 1


def test_a_page_of_nothing_writes_nothing() -> None:
    assert writes_of(TABLE, [], skip_before=0.0, keep_ttl=True).writes == []


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.one_of(st.none(), st.binary(max_size=2)))), st.data())
def test_pages_of_any_size_end_where_the_changes_one_by_one_do(
    pairs: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    changes = [change(number, key, value) for number, (key, value) in enumerate(pairs)]
    expected = {(key,): (key, value) for key, value in pairs if value is not None}
    for key, value in pairs:
        expected.pop((key,), None)
        if value is not None:
            expected[key,] = (key, value)
    target = MemoryItems()
    while changes:
        size = data.draw(st.integers(1, len(changes)))
        target.write(writes_of(TABLE, changes[:size], skip_before=0.0, keep_ttl=True).writes)
        changes = changes[size:]
    assert target.items.get("t", {}) == expected
