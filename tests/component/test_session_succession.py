"""A worker that must find out what became of its COMMIT does not take the row away from its successor."""

import pytest

from support.targets import ITEMS, TargetCase, prepared, rows_of
from whimbrel_worker.engine.ports import Upsert
from whimbrel_worker.errors import FencedOut


def test_a_lost_reply_after_a_successor_came_is_a_fence(dsql_case: TargetCase) -> None:
    """The cut comes between the COMMIT and its reply; by the time of the question the successor holds the row."""
    target = prepared(dsql_case)
    old, new = target.session("stream", 0), target.session("stream", 0)
    old.take()
    new.take()
    new.commit([Upsert(ITEMS, rows_of([1], b"new"))], position="p1")
    with pytest.raises(FencedOut, match="another worker holds the control row"):
        old._resolve(1)
    new.commit([Upsert(ITEMS, rows_of([2], b"new"))], position="p2")
    assert target.control().positions("stream") == {0: "p2"}


def test_a_lost_reply_is_resolved_by_the_same_worker(dsql_case: TargetCase) -> None:
    target = prepared(dsql_case)
    session = target.session("stream", 0)
    session.take()
    before = dsql_case.dials.dials()
    dsql_case.dials.set(drop_after_commit=1)
    session.commit([Upsert(ITEMS, rows_of([1], b"once"))], position="p1")
    session.commit([Upsert(ITEMS, rows_of([2], b"again"))], position="p2")
    dsql_case.dials.set(**before)
    assert target.control().positions("stream") == {0: "p2"}
    assert sorted(dsql_case.look('SELECT id FROM shop."it""e%ms"')) == [(1,), (2,)]
