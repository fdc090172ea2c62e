"""Slot and publication of a reverse sync: made once, found again after a stop, and nothing else ever dropped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.polardb_log import PolarDBLog, read_to_marker
from whimbrel_worker.endpoints.polardb.log.changes import RowChange
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.endpoints.polardb.slot.arming import Armed, Cleared, Names, arm, arm_beside, chosen_names, disarm
from whimbrel_worker.endpoints.polardb.slot.publication import Qualified
from whimbrel_worker.errors import ConfigurationError, FencedOut, SourceLogLost
from whimbrel_worker.libpq import Connection

ITEMS = [Qualified("public", "items")]
WHERE = "here"


def holds() -> None:
    """Nobody else has the control row."""


def fenced() -> None:
    raise FencedOut("a successor has the control row", where=WHERE)


@pytest.fixture
def log(log: PolarDBLog) -> PolarDBLog:
    log.sql("CREATE TABLE items (id integer PRIMARY KEY)")
    return log


@pytest.fixture
def connection(log: PolarDBLog) -> Iterator[Connection]:
    with log.connector.connect() as connected:
        yield connected


@pytest.fixture(params=["own", "chosen"])
def names(request: pytest.FixtureRequest, log: PolarDBLog) -> Names:
    return chosen_names(log.slot, "", "") if request.param == "own" else chosen_names(log.slot, log.slot, "p")


def there(log: PolarDBLog) -> tuple[int, int]:
    """How many slots and publications the database has."""
    query = (
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()), "
        "(SELECT count(*) FROM pg_publication)"
    )
    slot_count, publication_count = log.sql(query)[0]
    return slot_count, publication_count


def test_arming_again_finds_what_is_there(log: PolarDBLog, connection: Connection, names: Names) -> None:
    first = arm(connection, names, None, WHERE, prove=holds)
    log.sql("INSERT INTO items VALUES (1)")
    assert first.made
    assert arm(connection, names, None, WHERE, prove=holds) == Armed(first.position, made=False)
    assert disarm(connection, names, WHERE) == Cleared(slot=True, publication=True)
    assert disarm(connection, names, WHERE) == Cleared()
    assert there(log) == (0, 0)


def test_a_stop_between_the_two_is_gone_on_from(log: PolarDBLog, connection: Connection, names: Names) -> None:
    publication.create(connection, names.publication, names.mark, None, WHERE)
    assert arm(connection, names, None, WHERE, prove=holds).made
    slots.drop(connection, names.slot, WHERE)
    assert disarm(connection, names, WHERE) == Cleared(slot=False, publication=True)


def test_a_change_right_after_arming_comes(log: PolarDBLog, connection: Connection, names: Names) -> None:
    log.slot, log.published = names.slot, names.publication
    log.position = arm(connection, names, ITEMS, WHERE, prove=holds).position
    log.sql("INSERT INTO items VALUES (1)")
    log.beat()
    with log.stream() as stream:
        assert isinstance(read_to_marker(stream)[0], RowChange)
        assert disarm(connection, names, WHERE) == Cleared(slot=True, publication=True)


def test_a_slot_of_others_is_neither_used_nor_dropped(log: PolarDBLog, connection: Connection) -> None:
    names = chosen_names(log.slot, log.slot, "p")
    slots.create(connection, log.slot, WHERE)
    with pytest.raises(ConfigurationError, match="somebody else made a slot"):
        arm(connection, names, None, WHERE, prove=holds)
    assert there(log) == (1, 0)
    assert disarm(connection, names, WHERE) == Cleared(left=(f"slot {log.slot}",))
    assert there(log) == (1, 0)


def test_a_publication_of_others_is_neither_changed_nor_dropped(log: PolarDBLog, connection: Connection) -> None:
    names = chosen_names(log.slot, "", "theirs")
    log.sql("CREATE PUBLICATION theirs FOR TABLE items")
    with pytest.raises(ConfigurationError, match="made by somebody else"):
        arm(connection, names, None, WHERE, prove=holds)
    assert there(log) == (0, 1)
    assert arm_beside(connection, names, ITEMS, WHERE, prove=holds).made
    assert not arm_beside(connection, names, ITEMS, WHERE, prove=holds).made
    with pytest.raises(ConfigurationError, match="does not carry"):
        arm_beside(connection, names, [Qualified("public", "other")], WHERE, prove=holds)
    assert disarm(connection, names, WHERE) == Cleared(slot=True, left=("publication theirs",))
    assert there(log) == (0, 1)


def test_a_slot_whose_publication_somebody_dropped_is_made_anew(log: PolarDBLog, connection: Connection) -> None:
    names = chosen_names(log.slot, "", "")
    first = arm(connection, names, None, WHERE, prove=holds)
    log.sql(f"DROP PUBLICATION {names.publication}")
    log.sql("INSERT INTO items VALUES (1)")
    second = arm(connection, names, None, WHERE, prove=holds)
    assert second.made
    log.slot, log.published, log.position = names.slot, names.publication, first.position
    with pytest.raises(SourceLogLost, match="made anew"):
        log.stream()
    log.position = second.position
    log.beat()
    with log.stream() as stream:
        assert read_to_marker(stream) == []


def test_whoever_lost_the_control_row_neither_drops_the_slot_nor_makes_one(
    log: PolarDBLog, connection: Connection, names: Names
) -> None:
    """It looked before its successor had armed, and goes on when that one streams."""
    log.slot, log.published = names.slot, names.publication

    def succeeded() -> None:
        with log.connector.connect() as other:
            log.position = arm(other, names, ITEMS, WHERE, prove=holds).position
        fenced()

    with pytest.raises(FencedOut):
        arm(connection, names, ITEMS, WHERE, prove=succeeded)
    with log.stream() as stream:
        with pytest.raises(FencedOut):
            arm(connection, chosen_names("late", log.slot + "late", "late"), ITEMS, WHERE, prove=fenced)
        log.beat()
        assert read_to_marker(stream) == []
    assert there(log) == (1, 1)
    disarm(connection, names, WHERE)
    publication.create(connection, names.publication, names.mark, ITEMS, WHERE)
    with pytest.raises(FencedOut):
        arm(connection, names, ITEMS, WHERE, prove=fenced)
    assert there(log) == (0, 1), "nor is a slot made where the publication is there"


def test_what_shall_stay_stays(log: PolarDBLog, connection: Connection, names: Names) -> None:
    arm(connection, names, None, WHERE, prove=holds)
    kept = disarm(connection, names, WHERE, slot=False, published=False)
    assert kept == Cleared(left=(f"slot {names.slot}", f"publication {names.publication}"))
    assert there(log) == (1, 1)
