"""What a DynamoDB endpoint can do wrong, as values: a rule names one for a call, the proxy makes it happen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

ThrottleKind = Literal["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]

BATCHES: Final = {"BatchWriteItem": "UnprocessedItems", "BatchGetItem": "UnprocessedKeys"}
"""Operation → under which name its answer gives back what was not done."""

_SPACES: Final = {"ThrottlingException": "com.amazon.coral.availability"}
_OWN_SPACE: Final = "com.amazonaws.dynamodb.v20120810"
_TOLD: Final = {
    "ProvisionedThroughputExceededException": "The table's configured provisioned throughput was exceeded.",
    "ThrottlingException": "Rate of requests exceeds the allowed throughput.",
    "RequestLimitExceeded": "Throughput exceeds the current throughput limit for your account.",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call. `number` counts from 1 over all of them; `body` is its JSON, empty where it has none.

    `service` is what stands before the operation in X-Amz-Target, such as `DynamoDB_20120810`; `access_key` is what it
    is signed with.
    """

    operation: str
    body: Mapping[str, Any] = field(repr=False)
    number: int
    service: str = ""
    access_key: str = ""


@dataclass(frozen=True)
class Throttle:
    """The call is refused, as DynamoDB does above a limit, and goes no further."""

    kind: ThrottleKind = "ProvisionedThroughputExceededException"


@dataclass(frozen=True)
class Unprocessed:
    """Of a BatchWriteItem or BatchGetItem, this share (0 to 1, rounded up) is not done and given back; others go on."""

    share: float


@dataclass(frozen=True)
class Delay:
    """The call goes on only after this many seconds, even where its client is gone by then."""

    seconds: float


@dataclass(frozen=True)
class LoseReply:
    """The endpoint does what is asked, and the connection breaks before its answer; `first` is called just before."""

    first: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Cut:
    """The connection breaks before the endpoint has heard of the call; `first` is called just before."""

    first: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Refuse:
    """The answer is this error, and the call goes no further; `type` such as `AccessDeniedException`."""

    status: int
    type: str
    message: str


Fault = Throttle | Unprocessed | Delay | LoseReply | Cut | Refuse
Rule = Callable[[Call], Fault | None]


def no_fault(_: Call) -> None:
    """Everything goes on."""


def throttled(fault: Throttle) -> Refuse:
    """Return the refusal that a throttled client sees: status 400."""
    return Refuse(400, fault.kind, _TOLD[fault.kind])


def error_body(fault: Refuse) -> bytes:
    """Return an error as DynamoDB's JSON 1.0 protocol words it."""
    space = _SPACES.get(fault.type, _OWN_SPACE)
    return json.dumps({"__type": f"{space}#{fault.type}", "message": fault.message}).encode()


def split_batch(call: Call, share: float) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Split a batch: the body to send on (None where nothing is left), and the rest as its answer gives it back.

    Both shapes are DynamoDB's: table → list of requests (BatchWriteItem), or table → {"Keys": [...]} (BatchGetItem).
    """
    asked: Mapping[str, Any] = call.body["RequestItems"]
    total = sum(len(_entries(part)) for part in asked.values())
    left = total - min(total, math.ceil(total * share))
    done: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for table, part in asked.items():
        entries = _entries(part)
        taken, left = entries[:left], left - min(left, len(entries))
        for side, some in ((done, taken), (rest, entries[len(taken) :])):
            if some:
                side[table] = some if isinstance(part, list) else {**part, "Keys": some}
    return ({**call.body, "RequestItems": done} if done else None), rest


def _entries(part: Any) -> list[Any]:
    return list(part if isinstance(part, list) else part["Keys"])


def give_back(call: Call, answer: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch's answer with `rest` among what was not done; `answer` is the endpoint's, to the part sent on."""
    name = BATCHES[call.operation]
    merged: dict[str, Any] = dict(answer.get(name, {}))
    for table, part in rest.items():
        before = merged.get(table)
        if before is None:
            merged[table] = part
        elif isinstance(part, list):
            merged[table] = [*before, *part]
        else:
            merged[table] = {**part, "Keys": [*before["Keys"], *part["Keys"]]}
    empty: dict[str, Any] = {"Responses": {}} if call.operation == "BatchGetItem" else {}
    return {**empty, **answer, name: merged}
