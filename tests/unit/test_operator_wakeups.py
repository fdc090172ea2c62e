"""The board: whose bell rings for which event, and who is overdue."""

from typing import Any

from whimbrel_operator.runtime.port import Key
from whimbrel_operator.wakeups import Board, Wakeup

SHOP = Key("a", "Migration", "shop")
CHECK = Key("a", "Validation", "check")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def body(generation: int = 1, phase: str = "", ref: str = "", **meta: Any) -> dict[str, Any]:
    spec = {"migrationRef": {"name": ref}} if ref else {}
    return {"metadata": {"generation": generation, **meta}, "spec": spec, "status": {"phase": phase} if phase else {}}


def rested(board: Board, key: Key, uid: str, refers_to: str = "") -> Wakeup:
    """A resource that was seen once, and whose pass is over."""
    wakeup = board.join(key, uid, refers_to)
    board.changed(uid, body(ref=refers_to))
    wakeup.begin()
    wakeup.due = 130.0
    return wakeup


def test_a_new_generation_rings_and_an_own_status_does_not() -> None:
    board = Board(Clock())
    shop = rested(board, SHOP, "1")
    board.changed("1", body(phase="Preflight"))
    assert not shop.rung.is_set()
    board.changed("1", body(phase="Preflight") | {"status": {"phase": "Preflight", "progress": "3%"}})
    assert not shop.rung.is_set()
    board.changed("1", body(2, "Preflight"))
    assert shop.rung.is_set()
    assert shop.changed
    assert shop.due == 100.0


def test_a_status_that_another_hand_wiped_or_rewound_rings() -> None:
    for hand in ({}, {"phase": "Preflight"}):
        board = Board(Clock())
        shop = rested(board, SHOP, "1")
        shop.phase = "Completed"
        board.changed("1", body(phase="Completed") | {"status": {"phase": "Completed", "progress": "3%"}})
        assert not shop.rung.is_set()
        board.changed("1", body() | {"status": hand})
        assert shop.rung.is_set()


def test_annotations_and_deletion_ring() -> None:
    for meta in ({"annotations": {"x": "y"}}, {"deletionTimestamp": "2026-11-21T00:00:00Z"}):
        board = Board(Clock())
        shop = rested(board, SHOP, "1")
        board.changed("1", body(**meta))
        assert shop.rung.is_set()


def test_children_ring_by_uid_and_strangers_do_not() -> None:
    board = Board(Clock())
    shop = rested(board, SHOP, "1")
    board.child("another")
    assert not shop.rung.is_set()
    board.child("1")
    assert shop.rung.is_set()
    assert not shop.changed


def test_a_phase_concerns_those_that_refer_to_it_and_figures_do_not() -> None:
    board = Board(Clock())
    rested(board, SHOP, "1")
    assert board.changed("1", body(phase="Following"))
    assert not board.changed("1", body(phase="Following") | {"status": {"phase": "Following", "progress": "1%"}})


def test_a_migration_and_its_validation_ring_each_other() -> None:
    board = Board(Clock())
    shop, check = rested(board, SHOP, "1"), rested(board, CHECK, "2", "shop")
    other = rested(board, Key("a", "Validation", "other"), "3", "billing")
    elsewhere = rested(board, Key("b", "Validation", "check"), "4", "shop")
    board.around(SHOP, body())
    assert [each.rung.is_set() for each in (shop, check, other, elsewhere)] == [False, True, False, False]
    check.begin()
    board.around(CHECK, body(ref="shop"))
    assert [each.rung.is_set() for each in (shop, check, other, elsewhere)] == [True, False, False, False]


def test_the_overdue_are_named_the_longest_first() -> None:
    clock = Clock()
    board = Board(clock)
    shop, check = rested(board, SHOP, "1"), rested(board, CHECK, "2")
    check.due = 150.0
    clock.now = 200.0
    assert board.overdue(60) == [(SHOP, 70.0)]
    assert board.overdue(40) == [(SHOP, 70.0), (CHECK, 50.0)]
    board.leave(shop)
    assert board.overdue(40) == [(CHECK, 50.0)]


def test_one_made_again_under_the_name_waits_for_what_is_left_of_the_former() -> None:
    board = Board(Clock())
    former = board.join(SHOP, "1")
    lock = board.lock(SHOP)
    again = board.join(SHOP, "2")
    board.deleted("1")
    assert former.gone
    assert not again.gone
    board.leave(former)
    assert board.lock(SHOP) is lock
    board.leave(again)
    assert len(board) == 0
    assert board.lock(SHOP) is not lock


def test_a_migration_and_its_way_back_ring_each_other_while_it_is_rolled_back() -> None:
    board = Board(Clock())
    shop, back = rested(board, SHOP, "1"), rested(board, Key("a", "ReverseSync", "shop"), "2", "shop")
    rolling = {"state": "RollingBack", "rollback": {"position": ""}}
    board.changed("1", body(phase="Completed") | {"status": {"phase": "Completed", "cutover": rolling}})
    rested_again = {"state": "RollingBack", "rollback": {"position": "0/1"}}
    assert board.changed("1", body(phase="Completed") | {"status": {"phase": "Completed", "cutover": rested_again}})
    board.around(SHOP, body())
    assert back.rung.is_set()
    assert board.changed("2", body(ref="shop") | {"status": {"phase": "", "drainedTo": "0/1", "lagSeconds": 0.1}})
    board.around(back.key, body(ref="shop"))
    assert shop.rung.is_set()
    assert not board.changed("2", body(ref="shop") | {"status": {"phase": "", "drainedTo": "0/1", "lagSeconds": 0.2}})
