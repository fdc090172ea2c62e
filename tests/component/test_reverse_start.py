"""How a way back begins and what is left of it: refusals by name, another server's position, disarming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.item_faults import facts_of
from support.reverse_moves import CONTROL, ReverseMove, reverse_move
from whimbrel_api.reports import ErrorCategory, WorkerReport
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.faults import Call, Fault, Refuse
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb.server import PolarDBServer

RETIRED = {"drainTo": "0/1", "retire": True}
"""Arm, and end once that is done."""


@pytest.fixture
def back(polardb: PolarDBServer, dynamodb: DynamoDBServer, tmp_path: Path) -> Iterator[ReverseMove]:
    with reverse_move(tmp_path, polardb, dynamodb) as move:
        yield move


def arm(move: ReverseMove, **fields: Any) -> tuple[int, WorkerReport]:
    move.order(**RETIRED)
    return move.run(**fields)


def refusal(move: ReverseMove, **fields: Any) -> str:
    """Why arming is refused: a person must act."""
    code, report = arm(move, **fields)
    assert code == ExitCode.CONFIGURATION, report.last_error
    assert report.last_error is not None
    assert move.slots() == []
    return report.last_error.sentence()


def account(move: ReverseMove, name: str, rights: str) -> dict[str, Any]:
    """A source with an account of these rights, which owns nothing."""
    move.sql(f"DROP ROLE IF EXISTS {name}")
    move.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'fine' {rights}")
    source = move.source()
    move.secret("other", username=name, password="fine")
    source["polardb"]["credentialsSecretRef"] = {"name": "other"}
    return source


def test_what_the_account_and_the_tables_lack_is_named(back: ReverseMove) -> None:
    table = back.table()
    lacking = refusal(back, source=account(back, "no_rights", ""))
    assert "REPLICATION" in lacking
    everything = refusal(back, source=account(back, "some_rights", "REPLICATION"), tables={})
    assert "FOR ALL TABLES is for superusers" in everything
    listed = refusal(back, source=account(back, "few_rights", "REPLICATION"))
    assert "GRANT CREATE ON DATABASE" in listed
    layout = refusal(back, reverse={"layout": {"documentColumn": "item"}})
    assert f"public.{table}; there is no column item" in layout
    elsewhere = refusal(back, reverse={"layout": {"tableRule": "app.{table}"}})
    assert f"the source has no table app.{table}" in elsewhere
    beside = refusal(back, reverse={"createPublication": False, "publicationName": "theirs"})
    assert "there is no publication theirs" in beside
    none = refusal(back, tables={"include": ["nothing-*"]})
    assert "there is no table to write to" in none


def test_the_pre_flight_task_makes_nothing(back: ReverseMove) -> None:
    back.table()
    code, report = back.run("preflight", lookOnly=True)
    assert code == ExitCode.DONE, report.last_error
    assert report.preflight is not None
    assert report.preflight.source_id.startswith("polardb:")
    assert any("max_slot_wal_keep_size" in warning for warning in report.preflight.warnings)
    assert (back.slots(), back.publications()) == ([], [])
    code, report = back.run("preflight", lookOnly=True, reverse={"layout": {"tableRule": "app.{table}"}})
    assert code == ExitCode.CONFIGURATION


def test_a_look_tells_who_else_may_write_behind_the_endpoint(back: ReverseMove) -> None:
    table = back.table()
    account(back, "intruder", "")
    back.sql(f'GRANT INSERT, DELETE ON public."{table}" TO intruder')
    try:
        code, report = back.run(lookOnly=True, writers={"look": True})
        assert code == ExitCode.DONE, report.last_error
        assert report.reverse is not None
        assert report.writers is not None
        assert '"intruder" holds INSERT, DELETE on 1 table of "public"' in report.writers.roles
        named = len(report.writers.roles)
        code, report = back.run(lookOnly=True, writers={"look": True, "allowed": ["intruder"]})
        assert report.writers is not None
        assert len(report.writers.roles) == named - 1
        assert back.run(lookOnly=True)[1].writers is None
    finally:
        back.sql("DROP OWNED BY intruder")
        back.sql("DROP ROLE intruder")


@pytest.mark.parametrize("fenced", [True, False])
def test_a_look_tells_that_writes_may_not_be_fenced(back: ReverseMove, fenced: bool) -> None:
    def rule(call: Call) -> Fault | None:
        return Refuse(400, "AccessDeniedException", "no") if call.operation == "TransactWriteItems" else None

    back.table()
    back.target["dynamodb"]["fencedWrites"] = fenced
    with DynamoDBProxy(facts_of(back.goal), rule) as proxy:
        back.target["dynamodb"]["endpoint"] = proxy.endpoint
        code, report = back.run(lookOnly=True)
    assert code == ExitCode.DONE, report.last_error
    assert report.reverse is not None
    assert (
        any("dynamodb:" in problem and "ConditionCheckItem" in problem for problem in report.reverse.problems) is fenced
    )


def test_a_position_of_another_server_is_refused(back: ReverseMove) -> None:
    back.table()
    assert arm(back)[0] == ExitCode.DONE
    client_of(back.goal).update_item(
        TableName=CONTROL, Key={"migration": {"S": back.migration}, "entry": {"S": "migration"}},
        UpdateExpression="SET sourceId = :s", ExpressionAttributeValues={":s": {"S": "polardb:1/other"}},
    )  # fmt: skip
    code, report = arm(back)
    assert code == ExitCode.CONFIGURATION
    assert "polardb:1/other" in str(report.last_error)


def test_another_reverse_sync_of_the_same_name_begins_anew(back: ReverseMove) -> None:
    """The position of a deleted one is not taken over; a slot that this one names itself is its predecessor's."""
    back.table()
    assert arm(back)[0] == ExitCode.DONE
    before = back.kept()
    code, report = arm(back, reverse={"owner": "another"})
    assert code == ExitCode.DONE, report.last_error
    after = back.kept()
    assert before is not None
    assert after is not None
    assert (before.owner, after.owner) == (back.owner, "another")
    assert back.run("disarm", reverse={"owner": "another"})[0] == ExitCode.DONE
    assert back.slots() == [back.slot]


@pytest.mark.parametrize("chosen", [{}, {"slotName": "chosen_slot", "publicationName": "chosen"}])
def test_disarming_takes_away_what_was_made_and_can_be_repeated(back: ReverseMove, chosen: dict[str, str]) -> None:
    back.table()
    back.reverse = dict(chosen)
    assert arm(back)[0] == ExitCode.DONE
    assert len(back.slots()) == len(back.publications()) == 1
    code, report = back.run("disarm")
    assert code == ExitCode.DONE, report.last_error
    assert report.reverse is not None
    assert (report.reverse.left_behind, back.slots(), back.publications(), back.kept()) == ([], [], [], None)
    assert back.run("disarm")[0] == ExitCode.DONE


def test_a_slot_beside_somebody_elses_publication_is_taken_away_alone(back: ReverseMove) -> None:
    table = back.table()
    back.reverse = {"slotName": "beside_theirs", "publicationName": "theirs", "createPublication": False}
    back.sql(f'CREATE PUBLICATION theirs FOR TABLE "{table}"')
    assert arm(back)[0] == ExitCode.DONE
    code, report = back.run("disarm")
    assert code == ExitCode.DONE
    assert report.reverse is not None
    assert report.reverse.left_behind == ["publication theirs"]
    assert (back.slots(), back.publications()) == ([], ["theirs"])


def test_disarming_knows_its_slot_again_after_the_server_was_away(back: ReverseMove) -> None:
    """Beside somebody else's publication the kept position alone tells whose the slot is."""
    table = back.table()
    back.reverse = {"slotName": "beside_theirs", "publicationName": "theirs", "createPublication": False}
    back.sql(f'CREATE PUBLICATION theirs FOR TABLE "{table}"')
    assert arm(back)[0] == ExitCode.DONE
    away = back.source()
    away["polardb"]["port"] = 1
    assert back.run("disarm", source=away)[0] == ExitCode.FAILED
    code, report = back.run("disarm")
    assert code == ExitCode.DONE, report.last_error
    assert report.reverse is not None
    assert (report.reverse.left_behind, back.slots(), back.kept()) == (["publication theirs"], [], None)


def test_a_server_that_is_away_is_told_with_the_sql_to_run_by_hand(back: ReverseMove) -> None:
    source = back.source()
    source["polardb"]["port"] = 1
    code, report = back.run("disarm", source=source)
    assert code == ExitCode.FAILED
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.TRANSIENT
    assert f"SELECT pg_drop_replication_slot('{back.slot}')" in report.last_error.todo


def test_options_leave_the_slot_to_its_user(back: ReverseMove) -> None:
    back.table()
    assert arm(back)[0] == ExitCode.DONE
    code, report = back.run("disarm", reverse={"dropSlot": False, "dropPublication": False})
    assert code == ExitCode.DONE
    assert report.reverse is not None
    assert report.reverse.left_behind == [f"slot {back.slot}", f"publication {back.slot}"]
