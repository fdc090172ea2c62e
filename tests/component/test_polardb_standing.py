"""What stands in a slot's log is found without taking it, in part where that is asked for, and never read twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.polardb_log import PolarDBLog, read_to_marker
from whimbrel_worker.endpoints.polardb.failures import SlotInUse
from whimbrel_worker.endpoints.polardb.log.changes import Committed, RowChange
from whimbrel_worker.endpoints.polardb.log.messages import Relation
from whimbrel_worker.endpoints.polardb.slot.standing import Sought, Standing, peek
from whimbrel_worker.libpq import Connection

WHERE = "here"


def named(relation: Relation) -> str | None:
    return relation.name if relation.name == "items" else None


@pytest.fixture
def log(log: PolarDBLog) -> PolarDBLog:
    log.sql("CREATE TABLE other (id integer PRIMARY KEY)")
    return log.prepare()


@pytest.fixture
def connection(log: PolarDBLog) -> Iterator[Connection]:
    with log.connector.connect() as connected:
        yield connected


def look(log: PolarDBLog, connection: Connection, position: int | None = None, most: int = 1000) -> Standing:
    sought = Sought(log.slot, log.published, log.position if position is None else position, named, most)
    return peek(connection, sought, WHERE)


def test_it_is_found_as_often_as_it_is_looked_at_and_still_read_later(log: PolarDBLog, connection: Connection) -> None:
    assert look(log, connection) == Standing()
    log.beat("first")
    log.sql("INSERT INTO other VALUES (1)")
    assert look(log, connection) == Standing(), "neither a heartbeat nor what is no table of items counts"
    log.put("a", 1)
    log.sql("TRUNCATE items, other")
    found = look(log, connection)
    assert (found.changes, found.tables, found.whole) == (2, ("items",), True)
    assert log.position < found.first < found.last
    assert look(log, connection) == found
    log.beat("end")
    with log.stream() as stream:
        events = read_to_marker(stream)
        ends = [event.end_lsn for event in events if isinstance(event, Committed)]
        assert any(isinstance(event, RowChange) and event.relation.name == "items" for event in events)
        with pytest.raises(SlotInUse):
            look(log, connection)
    assert look(log, connection, position=ends[-1]).changes == 0, "what was applied before does not stand there"


def test_where_more_stands_than_was_asked_for_that_is_said(log: PolarDBLog, connection: Connection) -> None:
    for number in range(10):
        log.sql("INSERT INTO other VALUES (%s)", [number])
    log.put("a", 1)
    short, whole = look(log, connection, most=5), look(log, connection)
    assert (short.changes, short.whole) == (0, False)
    assert (whole.changes, whole.whole) == (1, True)
    with log.connector.connect() as other, other.transaction():
        for number in range(50):
            other.execute("INSERT INTO items VALUES ('b', %s, '{}')", [number])
    cut = look(log, connection, position=whole.last + 1, most=60)
    assert (0 < cut.changes < 50, cut.tables, cut.whole) == (True, ("items",), False)
