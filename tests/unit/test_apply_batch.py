"""Batches and routing: the last state of a key, changes of key, unique values, sizes, stable lanes."""

from support.streamed import ORDERS, PAIRS, TEXTS, USERS
from whimbrel_worker.engine.apply.batch import Batch
from whimbrel_worker.engine.apply.plan import ORDERED_LANE, plan_table
from whimbrel_worker.engine.ports import Delete, Upsert

NOTHING_STOPPED = lambda _name: False  # noqa: E731


def test_only_the_last_state_of_a_key_is_written_in_key_order() -> None:
    plan, batch = plan_table(ORDERS, 4), Batch()
    for key, row in [(3, (3, b"a")), (1, (1, b"b")), (3, None), (2, (2, b"c")), (1, (1, b"d")), (3, (3, b"e"))]:
        batch.put(plan, key, row)
    batch.put(plan, 9, None)
    assert batch.writes(NOTHING_STOPPED) == [
        Delete(ORDERS, [(9,)]),
        Upsert(ORDERS, [(1, b"d"), (2, b"c"), (3, b"e")]),
    ]
    assert batch.rows == 4


def test_a_row_that_gave_up_a_unique_value_is_deleted_before_it_is_written() -> None:
    plan, batch = plan_table(USERS, 4), Batch()
    batch.put(plan, 1, (1, b"b", 0))
    batch.release(plan, 1)
    batch.put(plan, 2, (2, b"a", 0))
    batch.release(plan, 2)
    batch.put(plan, 3, (3, b"c", 0))
    assert batch.writes(NOTHING_STOPPED) == [
        Delete(USERS, [(1,), (2,)]),
        Upsert(USERS, [(1, b"b", 0), (2, b"a", 0), (3, b"c", 0)]),
    ]
    assert batch.rows == 5, "a row that is deleted and written again counts twice"


def test_stopped_tables_are_left_out() -> None:
    plan, other, batch = plan_table(ORDERS, 4), plan_table(USERS, 4), Batch()
    batch.put(plan, 1, (1, b"x"))
    batch.put(other, 1, (1, b"x", 0))
    assert [write.table for write in batch.writes(lambda name: name == "shop.users")] == [ORDERS]


def test_lanes_do_not_depend_on_the_process() -> None:
    """The lanes' positions outlive the process, so these numbers may never change."""
    texts, pairs, orders = plan_table(TEXTS, 4), plan_table(PAIRS, 4), plan_table(ORDERS, 4)
    assert [texts.lane_of(key) for key in (b"", b"a", b"b", "é".encode())] == [2, 1, 3, 3]
    assert [pairs.lane_of(key) for key in ((1, b"a"), (1, b"b"), (2, b"a"))] == [1, 2, 4]
    assert [orders.lane_of(key) for key in (-1, 0, 1, 2, 2**63)] == [4, 1, 2, 3, 1]


def test_tables_with_unique_indexes_go_through_the_ordered_lane() -> None:
    users = plan_table(USERS, 4)
    assert {users.lane_of(key) for key in range(100)} == {ORDERED_LANE}
    assert ORDERED_LANE not in {plan_table(ORDERS, 4).lane_of(key) for key in range(100)}


def test_sizes_follow_long_texts_and_hex() -> None:
    size = plan_table(TEXTS, 4).size_of
    assert size((b"k", b"x" * 1000, b"y" * 500)) - size((b"k", None, b"")) == 1000 + 2 * 500
