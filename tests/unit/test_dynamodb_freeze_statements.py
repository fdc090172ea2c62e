"""What the policy of a frozen table says: our statement added, told from others, and taken out again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whimbrel_worker.endpoints.dynamodb.freeze.freezing import Former
from whimbrel_worker.endpoints.dynamodb.freeze.statements import (
    ACTIONS,
    LARGEST,
    Denial,
    digest,
    principals_of,
    removed,
    sid_of,
)

TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
ROLE = "arn:aws:iam::123456789012:role/mover"
SID = sid_of("shop/move")
DENIAL = Denial(SID, (ROLE,))
READERS: dict[str, Any] = {
    "Sid": "Readers", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::210987654321:root"},
    "Action": "dynamodb:GetItem", "Resource": TABLE,
}  # fmt: skip
THEIRS = json.dumps({"Version": "2012-10-17", "Id": "é", "Statement": [READERS]}, indent=2)


def test_a_table_without_a_policy_gets_one_of_our_statement_alone_and_loses_it() -> None:
    made = json.loads(DENIAL.added(None, TABLE))
    (ours,) = made["Statement"]
    assert (ours["Sid"], ours["Effect"], ours["Principal"], ours["Resource"]) == (SID, "Deny", "*", TABLE)
    assert {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"} < set(ACTIONS)
    assert set(ours["Action"]) == set(ACTIONS)
    excepted = ours["Condition"]["ArnNotLike"]["aws:PrincipalArn"]
    assert excepted[0] == ROLE
    assert excepted[1].startswith("arn:aws:iam::123456789012:role/aws-service-role/replication.dynamodb.amazonaws.com/")
    assert removed(json.dumps(made), SID) is None


def test_an_existing_policy_is_kept_whole() -> None:
    both = DENIAL.added(THEIRS, TABLE)
    found = json.loads(both)
    assert found["Statement"][0] == READERS
    assert (found["Id"], found["Version"], len(found["Statement"])) == ("é", "2012-10-17", 2)
    left = removed(both, SID)
    assert left is not None
    assert json.loads(left) == json.loads(THEIRS)
    assert digest(left) == digest(THEIRS) != digest(both)


def test_nothing_is_rewritten_where_nothing_is_to_change() -> None:
    assert removed(THEIRS, SID) == THEIRS
    once = DENIAL.added(THEIRS, TABLE)
    assert DENIAL.added(once, TABLE) == once


def test_a_single_statement_without_brackets() -> None:
    single = json.dumps({"Statement": READERS})
    both = DENIAL.added(single, TABLE)
    assert json.loads(both)["Statement"][0] == READERS
    assert digest(removed(both, SID)) == digest(single)


def test_our_statement_is_known_in_another_order_and_form() -> None:
    document = json.loads(DENIAL.added(THEIRS, TABLE))
    ours = document["Statement"][1]
    ours["Action"].reverse()
    ours["Principal"] = {"AWS": ["*"]}
    ours["Resource"] = [TABLE]
    assert DENIAL.stands(json.dumps(document), TABLE)
    ours["Action"].pop()
    changed = json.dumps(document)
    assert not DENIAL.stands(changed, TABLE)
    mended = DENIAL.added(changed, TABLE)
    assert DENIAL.stands(mended, TABLE)
    assert len(json.loads(mended)["Statement"]) == 2


def test_what_another_migration_denies_stays() -> None:
    other = Denial(sid_of("shop/other"), (ROLE,))
    both = other.added(DENIAL.added(None, TABLE), TABLE)
    left = removed(both, SID)
    assert other.stands(left, TABLE)
    assert not DENIAL.stands(left, TABLE)
    assert SID.isalnum()


@pytest.mark.parametrize(
    ("caller", "principals"),
    [
        ("arn:aws:iam::123456789012:user/path/ann", ["arn:aws:iam::123456789012:user/path/ann"]),
        ("arn:aws:iam::123456789012:root", ["arn:aws:iam::123456789012:root"]),
        (
            "arn:aws-cn:sts::123456789012:assumed-role/mover/whimbrel",
            ["arn:aws-cn:iam::123456789012:role/mover", "arn:aws-cn:iam::123456789012:role/*/mover"],
        ),
    ],
)
def test_a_caller_as_conditions_name_him(caller: str, principals: list[str]) -> None:
    assert principals_of(caller) == principals


def test_the_journal_keeps_what_was_there_or_that_it_is_too_much() -> None:
    few = Former((ROLE,), (), {"orders": digest(THEIRS), "stock": ""})
    assert Former.parse(few.detail()) == few
    many = Former((ROLE,), ("arn:aws:iam::1:role/x",), {f"{n:0>200}": "" for n in range(100)})
    assert len(many.detail()) < 1000
    assert Former.parse(many.detail()) == Former(many.own, many.asked, None)


def test_the_statement_is_small_beside_what_a_policy_may_have() -> None:
    excepted = tuple(f"arn:aws:iam::123456789012:role/{n:0>250}" for n in range(10))
    assert len(Denial(SID, excepted).added(None, TABLE)) < LARGEST / 4
