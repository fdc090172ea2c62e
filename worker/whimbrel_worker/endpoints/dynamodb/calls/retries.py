"""Which of a DynamoDB service's refusals are worth another try, and the tries. The one place for both.

Codes: Amazon DynamoDB Developer Guide, "Error handling with DynamoDB"; DynamoDB Streams API reference, "Common errors".
What the other refusals mean stands in failures.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import Transient

T = TypeVar("T")

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "KMSThrottlingException",
        "SlowDown",
    }
)
_CONTENDED = frozenset(
    {"TransactionConflictException", "TransactionInProgressException", "ReplicatedWriteConflictException"}
)
_CANCELLED_FOR_NOW = frozenset({"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_UNANSWERED = frozenset(
    {"InternalServerError", "InternalFailure", "InternalServerException", "ServiceUnavailable", "RequestTimeout"}
)
_RATE_LIMITED = ("Describe", "List", "Get", "Scan", "Query")
"""What begins so changes nothing: LimitExceededException means its rate there, else a limit that stays."""
_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT, _SERVER_ERRORS = 429, 408, 500
_NEVER_BLINDLY = frozenset({"UpdateItem", "ExecuteStatement", "ExecuteTransaction"})


class Throttled(Transient):
    """The service took nothing and wants fewer calls; the same call may be made again."""


class Contended(Transient):
    """The service took nothing because of a concurrent transaction; the same call may be made again."""


class Unreachable(Transient):
    """The call never left: no connection came about."""


class Unanswered(Transient):
    """The call left and whether it was carried out is not known: the reply was lost, or the server failed over it."""


class Rule(Enum):
    """What to do about a refusal."""

    SLOW_DOWN = auto()
    CONTEND = auto()
    ASK_AGAIN = auto()
    GIVE_UP = auto()


def rule(operation: str, status: int, code: str, reasons: frozenset[str] = frozenset()) -> Rule:
    """The rule for a refusal by HTTP status and the exception's short name.

    `reasons`: the codes of a cancelled transaction's parts.
    """
    if code in _THROTTLES or status == _TOO_MANY_REQUESTS:
        return Rule.SLOW_DOWN
    if code == "LimitExceededException" and operation.startswith(_RATE_LIMITED):
        return Rule.SLOW_DOWN
    if code in _CONTENDED or (reasons and reasons <= _CANCELLED_FOR_NOW):
        return Rule.CONTEND
    if code in _UNANSWERED or status >= _SERVER_ERRORS or status == _REQUEST_TIMEOUT:
        return Rule.ASK_AGAIN
    return Rule.GIVE_UP


def may_repeat(operation: str, body: bytes) -> bool:
    """Whether a call whose outcome is not known may be made again without asking.

    Not so for conditions, which the call itself may have made false, nor for updates, which may add up. CreateTable and
    its like are repeated: the second time they are told that the table is there or busy, which callers expect anyway.
    """
    return operation not in _NEVER_BLINDLY and b'"ConditionExpression"' not in body


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call is tried again: for `seconds` in all, with the backoff's delays in between."""

    seconds: float = 60.0
    backoff: Backoff = field(default_factory=lambda: Backoff(base=0.05, cap=5.0, attempts=1000))


def retrying(
    action: Callable[[], T],
    *,
    repeatable: bool,
    patience: Patience,
    stop: threading.Event,
    noticed: Callable[[Transient], None],
) -> T:
    """The action's result, tried again as the rules say; `noticed` hears of each failure that is tried again.

    Raises the last Transient when patience ends or `stop` is set, and Unanswered at once unless `repeatable`.
    """
    ends = time.monotonic() + patience.seconds
    delays = patience.backoff.delays()
    while True:
        try:
            return action()
        except Transient as failure:
            delay = next(delays, None)
            lost = isinstance(failure, Unanswered) and not repeatable
            if lost or delay is None or time.monotonic() + delay > ends:
                raise
            noticed(failure)
            if stop.wait(delay):
                raise
