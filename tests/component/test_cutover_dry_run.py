"""`whimbrel cutover --dry-run` beside a run over real servers: what it says comes true, and it changes nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.item_moves import ItemMove, fill
from support.live_run import LiveRun, Run
from support.moves import Move
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(180)


def rehearsed(live: Run) -> tuple[int, dict[str, Any]]:
    code, said = live.say("cutover", "--dry-run", "shop", "-o", "json")
    return code, json.loads(said)


def shut(found: dict[str, Any]) -> list[str]:
    return [gate["type"] for gate in found["gates"] if not gate["open"]]


def wait_for(live: Run, code: int, closed: list[str]) -> dict[str, Any]:
    """What is said once it is that: a reading of the lag may be missing for a moment."""
    seen: list[tuple[int, dict[str, Any]]] = []

    def told() -> bool:
        seen[:] = [rehearsed(live)]
        return (seen[0][0], shut(seen[0][1])) == (code, closed)

    eventually(told, lambda: seen)
    return seen[0][1]


def test_it_says_what_is_missing_and_then_that_nothing_is(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    live = LiveRun(postgres_move, mysql, mysql_database, cutover={"notBefore": later})
    live.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    with live.started() as run:
        plan = live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL).plan.hash
        live.execute("INSERT INTO t VALUES (4, 4)")
        wait_for(live, 1, ["CutoverDue"])
        live.store.patch_spec(live.key, {"cutover": {"notBefore": datetime.now(UTC).isoformat()}})
        asked = live.store.get(live.key).spec
        found = wait_for(live, 0, [])
        assert live.store.get(live.key).spec == asked
        assert (found["ready"], found["plan"]["hash"], found["approval"]["open"]) == (True, plan, False)
        assert [each["name"] for each in found["steps"] if each["takes"]["atMost"]] == ["FinalCheck"]
        assert (found["pause"]["atMost"], found["pause"]["longerThanTimeout"]) == (False, False)
        started = live.status().validation.start_seconds
        assert started is not None
        assert found["pause"]["seconds"] > 3 * started
        said = live.say("cutover", "--dry-run", "shop")[1]
        approve = f"whimbrel approve shop --plan {plan}"
        assert approve in said
        assert live.say(*approve.split()[1:])[0] == 0
        assert live.ended(run) == 0, live.log()
    status = live.status()
    assert status.phase is Phase.COMPLETED
    assert status.cutover.started_at is not None
    assert status.cutover.completed_at is not None
    took = (status.cutover.completed_at - status.cutover.started_at).total_seconds()
    print(f"expected without writes: {found['pause']['seconds']} s; the cutover took {took:.1f} s")
    assert live.differences(["t"]) == []
    code, said = live.say("cutover", "--dry-run", "shop")
    assert (code, "shop is Completed already; no cutover is left." in said) == (1, True)


def test_of_items_it_says_how_long_the_log_is_kept(moving: ItemMove) -> None:
    """DynamoDB's 24 hours, of which the guard and the cutover ask for a part."""
    table = moving.table("orders")
    fill(moving.origin, table, range(50), 1)
    live = Run(moving)
    with live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        found = wait_for(live, 0, [])
        (kept,) = [gate for gate in found["gates"] if gate["type"] == "RetentionSafe"]
        assert (kept["reason"], "4h48m must be left" in kept["message"]) == ("LogKept", True)
        (final,) = [step for step in found["steps"] if step["name"] == "FinalCheck"]
        assert final["takes"]["basis"].endswith("50 rows; the final one reads as much")
        live.approve()
        assert live.ended(run) == 0, live.log()
    assert live.status().phase is Phase.COMPLETED
    assert moving.differences(table) == []


def test_a_window_that_cannot_be_read_is_refused_with_its_field_before_anything_starts(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    window = {"schedule": "0 25 * * *", "timeZone": "Europe/Berlln"}
    live = LiveRun(postgres_move, mysql, mysql_database, cutover={"window": window})
    code, said = live.say("run", live.file, "--secrets", live.folder / "secrets")
    assert code == 2
    assert "Migration/shop: spec.cutover.window.schedule: '0 25 * * *' is no cron expression (Bad hour)" in said
    assert "Migration/shop: spec.cutover.window.timeZone: 'Europe/Berlln' is no time zone" in said
    assert not live.store.list()
