"""What the policy of a frozen table says: one statement of ours added to it, and taken out again. Pure.

AWS Identity and Access Management User Guide, "IAM JSON policy elements reference" and, for the principals,
"AWS global condition context keys" (aws:PrincipalArn); Amazon DynamoDB Developer Guide, "Resource-based policy
considerations" (size, service-linked role of replication).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LARGEST: Final = 20 * 1024
"""Bytes of a policy document, white space included."""

SID_PREFIX: Final = "WhimbrelFreeze"

ACTIONS: Final = tuple(
    f"dynamodb:{name}"
    for name in (
        "BatchWriteItem", "DeleteItem", "PartiQLDelete", "PartiQLInsert", "PartiQLUpdate", "PutItem", "UpdateItem",
    )
)  # fmt: skip
"""All that writes items. A transaction is authorised by the single actions in it."""

_REPLICATION: Final = "role/aws-service-role/replication.dynamodb.amazonaws.com/AWSServiceRoleForDynamoDBReplication"
_ROLE_SESSION: Final = re.compile(r"arn:([^:]+):sts::(\d+):assumed-role/([^/]+)/.+")
_TABLE: Final = re.compile(r"arn:([^:]+):dynamodb:[^:]*:([^:]*):table/.+")


def sid_of(migration: str) -> str:
    """The name of a migration's statement: two migrations of one table take away their own only."""
    return SID_PREFIX + hashlib.sha256(migration.encode()).hexdigest()[:12]


def principals_of(caller: str) -> list[str]:
    """As aws:PrincipalArn may have a caller of whom STS gave this ARN.

    That of a role's session does not tell the role's path; a role's name is unique in its account whatever the path.
    """
    found = _ROLE_SESSION.fullmatch(caller)
    if found is None:
        return [caller]
    partition, account, role = found.groups()
    return [f"arn:{partition}:iam::{account}:role/{role}", f"arn:{partition}:iam::{account}:role/*/{role}"]


@dataclass(frozen=True, slots=True)
class Denial:
    """Our statement: nobody writes items but who is excepted."""

    sid: str
    excepted: tuple[str, ...]

    def statement(self, table: str) -> dict[str, Any]:
        """For the table of this ARN. Replication into a global table's replica cannot be denied to DynamoDB itself."""
        return {
            "Sid": self.sid,
            "Effect": "Deny",
            "Principal": "*",
            "Action": list(ACTIONS),
            "Resource": table,
            "Condition": {"ArnNotLike": {"aws:PrincipalArn": [*self.excepted, *_replication(table)]}},
        }

    def added(self, policy: str | None, table: str) -> str:
        """The policy with our statement, all others as they are; the very text where it holds it already."""
        ours = self.statement(table)
        if policy is None:
            return _text({"Version": "2012-10-17", "Statement": [ours]})
        if self.stands(policy, table):
            return policy
        document = json.loads(policy)
        return _text({**document, "Statement": [*_others(document, self.sid), ours]})

    def stands(self, policy: str | None, table: str) -> bool:
        """Whether the policy holds our statement, in whatever order and form it is given back."""
        if policy is None:
            return False
        ours = [each for each in _statements(json.loads(policy)) if each.get("Sid") == self.sid]
        return len(ours) == 1 and _plain(ours[0]) == _plain(self.statement(table))


def removed(policy: str | None, sid: str) -> str | None:
    """The policy without our statement, the very text where it has none; None where nothing else is in it."""
    if policy is None:
        return None
    document = json.loads(policy)
    statements, others = _statements(document), _others(document, sid)
    if len(others) == len(statements):
        return policy
    return _text({**document, "Statement": others}) if others else None


def digest(policy: str | None) -> str:
    """A short name of what a policy says, however it is written; empty where there is none."""
    if policy is None:
        return ""
    document = json.loads(policy)
    plain = _text(_plain({**document, "Statement": _statements(document)}), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def _replication(table: str) -> list[str]:
    found = _TABLE.fullmatch(table)
    return [f"arn:{found[1]}:iam::{found[2]}:{_REPLICATION}"] if found is not None else []


def _statements(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A policy of one statement may have it without brackets."""
    found = document.get("Statement", [])
    return list(found) if isinstance(found, list) else [found]


def _others(document: Mapping[str, Any], sid: str) -> list[dict[str, Any]]:
    return [each for each in _statements(document) if each.get("Sid") != sid]


def _plain(value: Any) -> Any:
    """The same for what means the same: lists in one order, one of one member as the member, everybody as `*`."""
    if isinstance(value, Mapping):
        inner = {key: _plain(each) for key, each in value.items()}
        return "*" if inner == {"AWS": "*"} else inner
    if isinstance(value, Sequence) and not isinstance(value, str):
        members = sorted((_plain(each) for each in value), key=lambda each: _text(each, sort_keys=True))
        return members[0] if len(members) == 1 else members
    return value


def _text(document: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=sort_keys, ensure_ascii=False)
