"""A DynamoDB service's refusals as the worker's errors, with what to do next. Which are tried again stands in retries.

Replies may hold items, so messages are cut to what names no value. Codes: Amazon DynamoDB Developer Guide, "Error
handling with DynamoDB"; AWS Signature Version 4, "Troubleshooting".
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.retries import Contended, Rule, Throttled, Unanswered, Unreachable, rule
from whimbrel_worker.endpoints.dynamodb.calls.wire import NotConnected, NotHTTP, Untrusted, WireError
from whimbrel_worker.errors import ConfigurationError, Transient, WorkerError

_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired"})
_KEYS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationTokenException",
        "MissingAuthenticationToken",
        "InvalidAccessKeyId",
        "AuthFailure",
        "NotAuthorizedException",
    }
)
_RIGHTS = frozenset(
    {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "OptInRequired", "KMSAccessDeniedException"}
)
_CLOCK_CODES = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_CLOCK_WORDS = ("Signature expired", "Signature not yet current", "not within the allowed time")
_ACTIONS = {
    "TransactWriteItems": "PutItem, UpdateItem, DeleteItem and ConditionCheckItem",
    "TransactGetItems": "GetItem",
}
_VALUES = re.compile(r"""(["'`]).*?\1|(?<=value: ).*|(?<=value:).*|DETAIL.*|Key \(.*""", re.DOTALL)
_LONGEST = 500
_TOO_LARGE = 413


class Refused(WorkerError):
    """The service refused a call for a reason that the caller may handle.

    `code`: the exception's short name, such as ConditionalCheckFailedException. `answer`: the parsed reply; never to be
    shown, since it may hold items.
    """

    def __init__(self, code: str, answer: Mapping[str, Any], what: str, *, where: str, why: str) -> None:
        super().__init__(
            what,
            where=where,
            why=why,
            todo="nothing here expects this refusal: see the service's log for this call, and report it",
        )
        self.code, self.answer = code, answer

    @property
    def reasons(self) -> tuple[str, ...]:
        """A cancelled transaction's reasons, one for each of its parts in order; `None` for a part that was fine."""
        return _reasons(self.answer)


class SignInRefused(ConfigurationError):
    """The keys are wrong or no longer valid. `expired`: they were right once."""

    def __init__(self, what: str, *, where: str, why: str, todo: str, expired: bool = False) -> None:
        super().__init__(what, where=where, why=why, todo=todo)
        self.expired = expired


class RightMissing(ConfigurationError):
    """The keys are right, but may not do this. `action`: the IAM action."""

    def __init__(self, what: str, *, where: str, why: str, todo: str, action: str) -> None:
        super().__init__(what, where=where, why=why, todo=todo)
        self.action = action


@dataclass(frozen=True, slots=True)
class Reply:
    """A refusal as it came: for `operation`, signed in with `keys` (words that name where they come from)."""

    where: str
    keys: str
    operation: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    service: str = "dynamodb"


def of_reply(reply: Reply) -> WorkerError:
    """The error for a reply whose status is not 200: Refused, ConfigurationError, or one that retries knows."""
    answer = _parsed(reply.body)
    code = _code(answer, reply.headers)
    what = f"{reply.operation} was refused: {code or f'HTTP {reply.status}'}"
    why = without_values(str(answer.get("message") or answer.get("Message") or ""))
    again = _worth_another(rule(reply.operation, reply.status, code, frozenset(_reasons(answer))))
    if again is not None:
        return again(what, where=reply.where, why=why, todo="it was tried again in vain; is the service overloaded?")
    if not code and reply.status != _TOO_LARGE:
        return no_such_service(reply.where, f"HTTP {reply.status} without a DynamoDB error in the reply")
    return _sign_in(reply, code, what, why) or Refused(
        code or "RequestEntityTooLarge", answer, what, where=reply.where, why=why
    )


def _worth_another(found: Rule) -> type[Transient] | None:
    return {Rule.SLOW_DOWN: Throttled, Rule.CONTEND: Contended, Rule.ASK_AGAIN: Unanswered}.get(found)


def _sign_in(reply: Reply, code: str, what: str, why: str) -> WorkerError | None:
    if code in _CLOCK_CODES or (code in _KEYS and any(words in why for words in _CLOCK_WORDS)):
        return ConfigurationError(
            "the clock of this machine and the service's differ too much",
            where=reply.where,
            why=f"{_skew(reply.headers)}; {what}",
            todo="set the clock of the node that this worker runs on (NTP); it is tried again within 5 minutes",
        )
    if code in _EXPIRED:
        return SignInRefused(
            "the session token has expired",
            where=reply.where,
            why=f"keys from {reply.keys}; {what}",
            todo=f"renew the keys and sessionToken in {reply.keys}; what is done so far is kept and goes on from there",
            expired=True,
        )
    if code in _KEYS:
        return SignInRefused(
            "the service does not accept the keys",
            where=reply.where,
            why=f"keys from {reply.keys}; {what}",
            todo=f"correct accessKeyId and secretAccessKey in {reply.keys} (PolarDB: the account's name and password), "
            "and check the region and this machine's clock",
        )
    return _right_missing(reply, what, why) if code in _RIGHTS else None


def _right_missing(reply: Reply, what: str, why: str) -> RightMissing:
    action = f"{reply.service}:{_ACTIONS.get(reply.operation, reply.operation)}"
    return RightMissing(
        f"a permission is missing: {action}",
        where=reply.where,
        why=f"{what}; {why}" if why else what,
        todo=f"allow {action} in the IAM policy (or give the account the right) that belongs to {reply.keys}",
        action=action,
    )


def no_such_service(where: str, why: str) -> ConfigurationError:
    """What answers there is no DynamoDB."""
    return ConfigurationError(
        "what answers at this address does not speak DynamoDB's protocol",
        where=where,
        why=why,
        todo="correct the endpoint in the manifest: scheme, host and port of the DynamoDB-compatible service",
    )


def of_connection(error: WireError, where: str, operation: str) -> WorkerError:
    """The error for a call that got no reply."""
    why = f"{operation}: {str(error)[:_LONGEST]}"
    if isinstance(error, NotHTTP):
        return no_such_service(where, why)
    if isinstance(error, Untrusted):
        return ConfigurationError(
            "no trusted TLS connection to the service can be made",
            where=where,
            why=why,
            todo="check tls.caSecretRef, that the host name in the endpoint is the certificate's, and http or https",
        )
    if isinstance(error, NotConnected):
        return Unreachable(
            "the service cannot be reached",
            where=where,
            why=why,
            todo="check endpoint, network policy and whether the service is up; it is tried again",
        )
    return Unanswered("the service did not answer", where=where, why=why, todo="it is tried again")


def without_values(message: str) -> str:
    """A service's message without what may be an item's value: quoted words, and what follows `value:`."""
    return _VALUES.sub("…", " ".join(message.split()))[:_LONGEST]


def _code(answer: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The exception's short name: after # in the body's __type, or before : in a header."""
    code = str(answer.get("__type") or answer.get("code") or headers.get("x-amzn-errortype", ""))
    return code.rpartition("#")[2].partition(":")[0]


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _reasons(answer: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = answer.get("CancellationReasons") or ()
    return tuple(str(reason.get("Code", "None")) for reason in reasons)


def _skew(headers: Mapping[str, str]) -> str:
    try:
        there = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return "by how much the reply does not say"
    ahead = time.time() - there
    return f"this machine's is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
