"""The test bed's stand-in for resource-based policies: what is a write, whom a statement denies, revisions and lags."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whimbrel_testbed.dynamodb.faults import Call, Refuse
from whimbrel_testbed.dynamodb.policies import ACCOUNT, PolicyStandIn, denies, writes

ARN = f"arn:aws:dynamodb:ddblocal:{ACCOUNT}:table/orders"
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"


def policy(*excepted: str, action: str = "dynamodb:PutItem") -> dict[str, Any]:
    condition = {"ArnNotLike": {"aws:PrincipalArn": list(excepted)}}
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": ARN, "Condition": condition}
    return {"Version": "2012-10-17", "Statement": [statement]}


def call(operation: str, access_key: str = "ann", **body: Any) -> Call:
    return Call(operation, body, 1, access_key=access_key)


def put(document: Any, revision: str) -> Call:
    return call("PutResourcePolicy", ResourceArn=ARN, Policy=json.dumps(document), ExpectedRevisionId=revision)


def code(answer: Any) -> str:
    assert isinstance(answer, Refuse)
    return answer.type


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (call("PutItem", TableName="a"), [("PutItem", "a")]),
        (call("BatchWriteItem", RequestItems={"a": [], "b": []}), [("BatchWriteItem", "a"), ("BatchWriteItem", "b")]),
        (
            call("TransactWriteItems", TransactItems=[{"Delete": {"TableName": "a"}}, {"ConditionCheck": {}}]),
            [("DeleteItem", "a")],
        ),
        (call("ExecuteStatement", Statement="insert into \"a\" value {'pk': 1}"), [("PartiQLInsert", "a")]),
        (call("ExecuteTransaction", TransactStatements=[{"Statement": "UPDATE b SET c=1"}]), [("PartiQLUpdate", "b")]),
        (call("ExecuteStatement", Statement='SELECT * FROM "a"'), []),
        (call("GetItem", TableName="a"), []),
    ],
)
def test_what_writes(made: Call, found: list[tuple[str, str]]) -> None:
    assert list(writes(made)) == found


@pytest.mark.parametrize(
    ("excepted", "denied"),
    [
        (ANN, False),
        (f"arn:aws:iam::{ACCOUNT}:user/*", False),
        (f"arn:aws:iam::{ACCOUNT}:*", False),
        ("arn:aws:iam::*", True),  # wildcards do not reach over colons
        (f"arn:aws:iam::{ACCOUNT}:role/ann", True),
    ],
)
def test_whom_a_statement_denies(excepted: str, denied: bool) -> None:
    (statement,) = policy(excepted)["Statement"]
    assert denies(statement, ANN, "dynamodb:PutItem", ARN) is denied
    assert not denies(statement, ANN, "dynamodb:GetItem", ARN)


def test_changes_are_conditional_on_the_revision() -> None:
    bed = PolicyStandIn()
    assert code(bed.answer(call("GetResourcePolicy", ResourceArn=ARN))) == "PolicyNotFoundException"
    assert code(bed.answer(put(policy(ANN), "1"))) == "PolicyNotFoundException"
    first = bed.answer(put(policy(ANN), "NO_POLICY"))
    assert isinstance(first, dict)
    assert bed.answer(put(policy(ANN), first["RevisionId"])) == first, "the same again changes nothing"
    assert code(bed.answer(put(policy(), "NO_POLICY"))) == "PolicyNotFoundException"
    taken = call("DeleteResourcePolicy", ResourceArn=ARN, ExpectedRevisionId=first["RevisionId"])
    assert isinstance(bed.answer(taken), dict)
    assert code(bed.answer(taken)) == "PolicyNotFoundException"


def test_reads_and_effect_lag_behind_and_changes_are_blocked() -> None:
    bed = PolicyStandIn(effect_lag=60, read_lag=60, blocked=60)
    written = call("PutItem", TableName="orders")
    assert isinstance(bed.answer(put(policy(), "NO_POLICY")), dict)
    assert bed.answer(written) is None
    assert code(bed.answer(call("GetResourcePolicy", ResourceArn=ARN))) == "PolicyNotFoundException"
    assert code(bed.answer(call("DeleteResourcePolicy", ResourceArn=ARN))) == "LimitExceededException"
    bed.settle()
    assert code(bed.answer(written)) == "AccessDeniedException"
    assert isinstance(bed.answer(call("DeleteResourcePolicy", ResourceArn=ARN)), dict)


@pytest.mark.parametrize("wrong", ["no JSON", json.dumps(policy("x" * 21000)), '{"Statement": []}'])
def test_what_is_no_policy_is_refused(wrong: str) -> None:
    made = call("PutResourcePolicy", ResourceArn=ARN, Policy=wrong)
    assert code(PolicyStandIn().answer(made)) == "ValidationException"
