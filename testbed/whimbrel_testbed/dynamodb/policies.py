"""A stand-in for resource-based policies, which DynamoDB Local does not have: kept, and Deny enforced on writes.

It imitates what the API reference of PutResourcePolicy, GetResourcePolicy and DeleteResourcePolicy says: revisions,
the size, reads and effect that lag behind, changes that are blocked for a while. It knows no IAM policy: who it does
not deny may do everything but what `forbidden` says. No AWS service was ever compared with it. Which error a blocked
change gives is not documented; it gives LimitExceededException.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_testbed.dynamodb.faults import Call, Refuse

ACCOUNT: Final = "000000000000"
_LARGEST: Final = 20 * 1024
_CONDITIONS: Final = {"ArnLike": True, "ArnEquals": True, "ArnNotLike": False, "ArnNotEquals": False}
_TRANSACTION: Final = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
_PARTIQL: Final = re.compile(r"""\s*(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+["']?([A-Za-z0-9_.-]+)""", re.IGNORECASE)


@dataclass(frozen=True)
class _Version:
    """A policy, or None, from a moment of the monotonic clock on."""

    since: float
    policy: str | None
    revision: str


@dataclass
class PolicyStandIn:
    """Policies by table ARN. The dials, in seconds: `effect_lag` until a change counts, `read_lag` until it is read,
    `blocked` until the next change.

    `principals` names an access key's owner by ARN; else it is a user of the key's own name. `forbidden` holds what a
    principal may not do, such as (arn, "PutResourcePolicy").
    """

    principals: dict[str, str] = field(default_factory=dict)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    effect_lag: float = 0.0
    read_lag: float = 0.0
    blocked: float = 0.0
    _tables: dict[str, list[_Version]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _revisions: Iterator[int] = field(default_factory=lambda: itertools.count(1700000000001))

    def principal(self, access_key: str) -> str:
        """The ARN that aws:PrincipalArn has for calls signed with this key."""
        return self.principals.get(access_key, f"arn:aws:iam::{ACCOUNT}:user/{access_key}")

    def policy(self, table: str) -> str | None:
        """What the table of this name has now, whatever a read would say."""
        with self._lock:
            return self._at(self._arn(table), 0.0).policy

    def attach(self, table: str, policy: Mapping[str, Any] | None) -> None:
        """Set or remove a policy as somebody else would, whatever is blocked; the lags hold for it, too."""
        with self._lock:
            self._keep(self._arn(table), None if policy is None else json.dumps(policy, indent=1))

    def settle(self) -> None:
        """All changes so far are read and count from now on, and nothing is blocked."""
        with self._lock:
            for versions in self._tables.values():
                versions[-1] = _Version(float("-inf"), versions[-1].policy, versions[-1].revision)

    def answer(self, call: Call) -> Mapping[str, Any] | Refuse | None:
        """The reply to a call, or its refusal; None for what the endpoint itself answers."""
        who = self.principal(call.access_key)
        if (who, call.operation) in self.forbidden:
            return _denied(who, f"dynamodb:{call.operation}", "no identity-based policy allows it")
        with self._lock:
            match call.operation:
                case "GetResourcePolicy":
                    return self._get(call.body)
                case "PutResourcePolicy":
                    return self._put(call.body)
                case "DeleteResourcePolicy":
                    return self._delete(call.body)
                case "DeleteTable":
                    self._tables.pop(self._arn(str(call.body.get("TableName", ""))), None)
                    return None
            return next(self._denials(who, call), None)

    def _get(self, body: Mapping[str, Any]) -> Mapping[str, Any] | Refuse:
        found = self._at(body["ResourceArn"], self.read_lag)
        return _not_found() if found.policy is None else {"Policy": found.policy, "RevisionId": found.revision}

    def _put(self, body: Mapping[str, Any]) -> Mapping[str, Any] | Refuse:
        arn, policy = body["ResourceArn"], body["Policy"]
        if (wrong := _wrong(policy)) is not None:
            return Refuse(400, "ValidationException", wrong)
        if (refusal := self._unexpected(arn, body)) is not None:
            return refusal
        found = self._at(arn, 0.0)
        if found.policy is not None and json.loads(found.policy) == json.loads(policy):
            return {"RevisionId": found.revision}
        return self._blocked(arn) or {"RevisionId": self._keep(arn, policy)}

    def _delete(self, body: Mapping[str, Any]) -> Mapping[str, Any] | Refuse:
        arn = body["ResourceArn"]
        if (refusal := self._unexpected(arn, body)) is not None:
            return refusal
        found = self._at(arn, 0.0)
        if found.policy is None:
            return {}
        refused = self._blocked(arn)
        if refused is None:
            self._keep(arn, None)
        return refused or {"RevisionId": found.revision}

    def _unexpected(self, arn: str, body: Mapping[str, Any]) -> Refuse | None:
        found = self._at(arn, 0.0)
        revision = "NO_POLICY" if found.policy is None else found.revision
        return _not_found() if body.get("ExpectedRevisionId", revision) != revision else None

    def _blocked(self, arn: str) -> Refuse | None:
        if time.monotonic() - self._at(arn, 0.0).since >= self.blocked:
            return None
        return Refuse(400, "LimitExceededException", "The policy was updated a moment ago.")

    def _keep(self, arn: str, policy: str | None) -> str:
        revision = str(next(self._revisions))
        self._tables.setdefault(arn, []).append(_Version(time.monotonic(), policy, revision))
        return revision

    def _at(self, arn: str, lag: float) -> _Version:
        """The newest version that is so old at least."""
        before = time.monotonic() - lag
        versions = self._tables.get(arn, [])
        return next((each for each in reversed(versions) if each.since <= before), _Version(float("-inf"), None, ""))

    def _arn(self, table: str) -> str:
        """DynamoDB Local's own, whatever its region."""
        return f"arn:aws:dynamodb:ddblocal:{ACCOUNT}:table/{table}"

    def _denials(self, who: str, call: Call) -> Iterator[Refuse]:
        for action, table in writes(call):
            arn = table if table.startswith("arn:") else self._arn(table)
            policy = self._at(arn, self.effect_lag).policy
            for statement in _statements(policy):
                if denies(statement, who, f"dynamodb:{action}", arn):
                    yield _denied(who, f"dynamodb:{action}", "with an explicit deny in a resource-based policy")


def writes(call: Call) -> Iterator[tuple[str, str]]:
    """The IAM action and the table of each write that a call makes."""
    body = call.body
    match call.operation:
        case "PutItem" | "UpdateItem" | "DeleteItem":
            yield call.operation, str(body.get("TableName", ""))
        case "BatchWriteItem":
            yield from ((call.operation, table) for table in body.get("RequestItems", {}))
        case "TransactWriteItems":
            for item in body.get("TransactItems", []):
                yield from ((_TRANSACTION[kind], item[kind]["TableName"]) for kind in item if kind in _TRANSACTION)
        case "ExecuteStatement":
            yield from _partiql(str(body.get("Statement", "")))
        case "BatchExecuteStatement" | "ExecuteTransaction":
            for each in (*body.get("Statements", []), *body.get("TransactStatements", [])):
                yield from _partiql(str(each.get("Statement", "")))


def _partiql(statement: str) -> Iterator[tuple[str, str]]:
    found = _PARTIQL.match(statement)
    if found is not None:
        yield f"PartiQL{found[1].split()[0].capitalize()}", found[2]


def denies(statement: Mapping[str, Any], who: str, action: str, resource: str) -> bool:
    """Whether a statement denies an action on a resource to a principal."""
    principal = statement.get("Principal")
    named = _listed(principal.get("AWS", []) if isinstance(principal, Mapping) else principal)
    return (
        statement.get("Effect") == "Deny"
        and any(each in ("*", who) for each in named)
        and any(_like(each, action) for each in _listed(statement.get("Action")))
        and any(_arn_like(each, resource) for each in _listed(statement.get("Resource")))
        and all(_met(kind, pairs, who) for kind, pairs in statement.get("Condition", {}).items())
    )


def _met(kind: str, pairs: Mapping[str, Any], who: str) -> bool:
    found = any(_arn_like(each, who) for each in _listed(pairs["aws:PrincipalArn"]))
    return found is _CONDITIONS[kind]


def _arn_like(pattern: str, arn: str) -> bool:
    """Wildcards do not reach over the colons between an ARN's parts."""
    asked, parts = pattern.split(":", 5), arn.split(":", 5)
    return pattern == "*" or (len(asked) == len(parts) and all(map(_like, asked, parts)))


def _like(pattern: str, text: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _listed(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _statements(policy: str | None) -> list[Mapping[str, Any]]:
    found = json.loads(policy).get("Statement", []) if policy is not None else []
    return found if isinstance(found, list) else [found]


def _wrong(policy: str) -> str | None:
    """Why a policy is not taken: what it holds that this stand-in could not enforce, too."""
    if len(policy.encode()) > _LARGEST:
        return f"the policy has more than {_LARGEST} bytes"
    try:
        statements = _statements(policy)
    except (ValueError, AttributeError):
        return "the policy is no JSON object"
    conditions = [
        (kind, key) for each in statements for kind, pairs in each.get("Condition", {}).items() for key in pairs
    ]
    unknown = [each for each in conditions if each[0] not in _CONDITIONS or each[1] != "aws:PrincipalArn"]
    if unknown:
        return f"the stand-in does not know the conditions {unknown}"
    return None if statements else "the policy has no statement"


def _not_found() -> Refuse:
    return Refuse(400, "PolicyNotFoundException", "There is no such policy, or it has another revision.")


def _denied(who: str, action: str, why: str) -> Refuse:
    return Refuse(400, "AccessDeniedException", f"User: {who} is not authorized to perform: {action}: {why}")
