"""Messages become changes by transaction; what was applied before is dropped, and disorder is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_worker.endpoints.polardb.log.changes import Assembler, Committed, Event, Marker, RowChange, Truncated
from whimbrel_worker.endpoints.polardb.log.messages import (
    Begin,
    Commit,
    Delete,
    Emitted,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    RelationColumn,
    ReplicaIdentity,
    Truncate,
    Type,
    Update,
)
from whimbrel_worker.errors import Incompatible

COLUMNS = (RelationColumn("id", True, 25, -1), RelationColumn("d", False, 3802, -1))
ITEMS = Relation(7, "public", "items", ReplicaIdentity.DEFAULT, COLUMNS)
ROW = (b"a", b"{}")


def transaction(begun: int, *changes: Message) -> list[Message]:
    return [Begin(begun, begun * 10, 1), *changes, Commit(begun, begun + 5, begun * 10)]


def fed(assembler: Assembler, messages: list[Message]) -> list[Event]:
    return [event for message in messages if (event := assembler.feed(message)) is not None]


def test_a_transaction_is_its_changes_and_then_its_end() -> None:
    assembler = Assembler(0)
    old = OldRow(False, (b"a", None))
    changes: list[Message] = [
        ITEMS,
        Type(1, "public", "t"),
        Origin(1, "o"),
        Insert(7, ROW),
        Update(7, None, ROW),
        Delete(7, old),
    ]
    events = fed(assembler, transaction(10, *changes, Truncate((7,), False, False), Emitted(True, 12, "p", b"x")))
    assert events == [
        RowChange(ITEMS, None, ROW, 100),
        RowChange(ITEMS, None, ROW, 100),
        RowChange(ITEMS, old, None, 100),
        Truncated((ITEMS,), 100),
        Marker("p", b"x", 12, 100),
        Committed(15, 100),
    ]
    assert assembler.position == 15
    assert not assembler.inside


def test_a_marker_may_stand_outside_a_transaction() -> None:
    assert Assembler(0).feed(Emitted(False, 3, "p", b"")) == Marker("p", b"", 3, 0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.data())
def test_a_stream_that_begins_again_gives_each_commit_once(gaps: list[int], data: st.DataObject) -> None:
    begins = [sum(gaps[:count]) * 5 for count in range(1, len(gaps) + 1)]
    log = [transaction(begin, ITEMS, Insert(7, ROW), Emitted(True, begin, "p", b"")) for begin in begins]
    applied = data.draw(st.integers(0, len(log)))
    position = begins[applied - 1] + 5 if applied else 0
    assembler = Assembler(position)
    events = fed(assembler, [message for each in log for message in each])
    assert [event.end_lsn for event in events if isinstance(event, Committed)] == [b + 5 for b in begins[applied:]]
    assert len(events) == 3 * (len(log) - applied)
    assert assembler.repeated == applied


def test_a_relation_inside_a_repeated_transaction_counts() -> None:
    assembler = Assembler(15)
    events = fed(assembler, transaction(10, ITEMS, Insert(7, ROW)) + transaction(20, Insert(7, ROW)))
    assert events == [RowChange(ITEMS, None, ROW, 200), Committed(25, 200)]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([Insert(7, ROW)], "outside a transaction"),
        ([Begin(1, 0, 1), Begin(2, 0, 2)], "inside another"),
        ([Commit(1, 2, 0)], "ends no transaction"),
        ([Begin(1, 0, 1), Commit(3, 4, 0)], "ends no transaction"),
        ([Begin(3, 0, 1), Commit(3, 3, 0)], "ends no transaction"),
        ([Begin(1, 0, 1), Insert(7, ROW)], "was not described"),
        ([Begin(1, 0, 1), ITEMS, Insert(7, (b"a",))], "1 values in items, which has 2"),
        ([Begin(1, 0, 1), ITEMS, Delete(7, OldRow(True, ()))], "0 values in items"),
    ],
)
def test_disorder_is_refused(messages: list[Message], why: str) -> None:
    with pytest.raises(Incompatible) as raised:
        fed(Assembler(0), messages)
    assert why in raised.value.why
