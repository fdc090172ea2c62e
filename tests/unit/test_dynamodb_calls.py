"""Signatures, refusals, retries, the server's clock and the pace, without any server."""

from __future__ import annotations

import random
import threading
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_worker.endpoints.dynamodb.calls.access import Access
from whimbrel_worker.endpoints.dynamodb.calls.clock import Clock
from whimbrel_worker.endpoints.dynamodb.calls.failures import (
    Refused,
    Reply,
    RightMissing,
    SignInRefused,
    of_connection,
    of_reply,
    without_values,
)
from whimbrel_worker.endpoints.dynamodb.calls.pace import Pace, Units, read_units, write_units
from whimbrel_worker.endpoints.dynamodb.calls.retries import (
    Contended,
    Patience,
    Throttled,
    Unanswered,
    Unreachable,
    may_repeat,
    retrying,
)
from whimbrel_worker.endpoints.dynamodb.calls.signing import Signer
from whimbrel_worker.endpoints.dynamodb.calls.wire import Lost, NotConnected, NotHTTP, Untrusted
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.secrets import Secrets

_NOW = 1_795_287_600.0
_QUICK = Patience(5.0, Backoff(base=0.0, cap=0.0, attempts=5))


# --- signatures ---


def test_all_that_matters_is_signed() -> None:
    headers = Signer("http://h:8000", "eu-west-1", "AKID", "se/cret", "to/ken").headers("A.B", b"{}")
    signed = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-target", "x-amz-security-token"} <= set(signed)
    assert headers["X-Amz-Security-Token"] == "to/ken"
    assert (headers["X-Amz-Target"], headers["Accept-Encoding"]) == ("A.B", "identity")
    assert "se/cret" not in "".join(headers.values())


def test_keys_are_not_shown() -> None:
    signer = Signer("http://h", "r", "AKID", "se/cret", "to/ken")
    signer.headers("A.B", b"")
    assert "se/cret" not in repr(signer)
    assert "to/ken" not in repr(signer)


# --- refusals ---


def _refused(code: str, status: int = 400, message: str = "no", operation: str = "PutItem", **more: Any) -> Exception:
    body = orjson.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more})
    return of_reply(Reply("DynamoDB x", "Secret s", operation, status, {"date": formatdate(_NOW)}, body))


@pytest.mark.parametrize(
    ("code", "status", "operation", "kind"),
    [
        ("ProvisionedThroughputExceededException", 400, "Scan", Throttled),
        ("ThrottlingException", 400, "BatchWriteItem", Throttled),
        ("RequestLimitExceeded", 400, "PutItem", Throttled),
        ("LimitExceededException", 400, "DescribeStream", Throttled),
        ("LimitExceededException", 400, "CreateTable", Refused),
        ("InternalServerError", 500, "PutItem", Unanswered),
        ("Whatever", 503, "PutItem", Unanswered),
        ("TransactionConflictException", 400, "PutItem", Contended),
        ("ResourceNotFoundException", 400, "DescribeTable", Refused),
        ("ConditionalCheckFailedException", 400, "PutItem", Refused),
        ("TrimmedDataAccessException", 400, "GetRecords", Refused),
        ("ValidationException", 400, "BatchWriteItem", Refused),
        ("UnrecognizedClientException", 400, "ListTables", SignInRefused),
        ("InvalidSignatureException", 400, "ListTables", SignInRefused),
        ("ExpiredTokenException", 400, "ListTables", SignInRefused),
        ("AccessDeniedException", 400, "Scan", RightMissing),
    ],
)
def test_each_refusal_has_its_error(code: str, status: int, operation: str, kind: type[Exception]) -> None:
    error = _refused(code, status, operation=operation)
    assert type(error) is kind
    assert code in str(error)
    assert operation in str(error)


def test_a_refusal_carries_what_the_caller_handles() -> None:
    item = {"pk": {"S": "secret value"}}
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": item}]
    error = _refused("TransactionCanceledException", CancellationReasons=reasons)
    assert isinstance(error, Refused)
    assert (error.code, error.reasons) == ("TransactionCanceledException", ("None", "ConditionalCheckFailed"))
    assert "secret value" not in str(error)
    again = _refused("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}])
    assert isinstance(again, Contended)


def test_sign_in_errors_say_whose_keys_and_what_to_do() -> None:
    assert "Secret s" in str(_refused("UnrecognizedClientException"))
    expired = _refused("ExpiredTokenException")
    assert isinstance(expired, SignInRefused)
    assert expired.expired
    assert "renew the keys and sessionToken in Secret s" in str(expired)
    missing = _refused("AccessDeniedException", operation="TransactWriteItems")
    assert isinstance(missing, RightMissing)
    assert missing.action == "dynamodb:PutItem, UpdateItem, DeleteItem and ConditionCheckItem"


def test_a_wrong_clock_is_told_from_wrong_keys() -> None:
    for error in (
        _refused("RequestExpired"),
        _refused("InvalidSignatureException", message="Signature expired: 2026 is now earlier than 2026"),
        _refused("InvalidSignatureException", message="Signature not yet current: …"),
    ):
        assert type(error) is ConfigurationError
        assert "clock" in str(error)
        assert "s ahead" in str(error) or "s behind" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}"])
def test_what_is_no_dynamodb_is_called_so(body: bytes) -> None:
    error = of_reply(Reply("DynamoDB x", "Secret s", "ListTables", 404, {}, body))
    assert type(error) is ConfigurationError
    assert "does not speak DynamoDB's protocol" in str(error)


def test_the_code_may_stand_in_a_header() -> None:
    headers = {"x-amzn-errortype": "ResourceNotFoundException:http://internal.amazon.com/coral"}
    error = of_reply(Reply("w", "k", "ListTables", 400, headers, b"{}"))
    assert isinstance(error, Refused)
    assert error.code == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "message",
    [
        "The parameter cannot be converted to a numeric value: 4711",
        "Value '4711' at 'x' failed",
        'duplicate key\nDETAIL:  Key (pk)=(4711) already exists.',
        'invalid input syntax for type numeric: "4711"',
    ],
)  # fmt: skip
def test_messages_are_cut_to_what_names_no_value(message: str) -> None:
    assert "4711" not in without_values(message)
    assert without_values("Type mismatch for key pk expected: S actual: N") == (
        "Type mismatch for key pk expected: S actual: N"
    )


def test_a_call_without_a_reply() -> None:
    def kind(error: Lost | NotConnected | NotHTTP | Untrusted) -> type[Exception]:
        return type(of_connection(error, "DynamoDB x", "Scan"))

    assert kind(Lost("x")) is Unanswered
    assert kind(NotConnected("x")) is Unreachable
    assert kind(NotHTTP("x")) is ConfigurationError
    assert kind(Untrusted("x")) is ConfigurationError


# --- retries ---


def _failing(*failures: Transient) -> Any:
    left = list(failures)

    def act() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return act


def test_what_may_be_repeated() -> None:
    assert may_repeat("BatchWriteItem", b"{}")
    assert may_repeat("PutItem", b'{"Item":{}}')
    assert not may_repeat("PutItem", b'{"ConditionExpression":"a = b"}')
    assert not may_repeat("UpdateItem", b"{}")
    assert not may_repeat("TransactWriteItems", b'{"TransactItems":[{"ConditionCheck":{"ConditionExpression":"a"}}]}')


def test_failures_are_tried_again_and_told() -> None:
    told: list[Transient] = []
    failures = [Throttled("t"), Contended("c"), Unreachable("u")]
    for repeatable, more in ((True, [Unanswered("a")]), (False, [])):
        told.clear()
        result = retrying(
            _failing(*failures, *more), repeatable=repeatable, patience=_QUICK, stop=threading.Event(),
            noticed=told.append,
        )  # fmt: skip
        assert (result, told) == ("done", [*failures, *more])


def test_an_unknown_outcome_is_not_repeated_where_that_could_do_harm() -> None:
    told: list[Transient] = []
    action = _failing(Throttled("t"), Unanswered("a"))
    with pytest.raises(Unanswered):
        retrying(action, repeatable=False, patience=_QUICK, stop=threading.Event(), noticed=told.append)
    assert len(told) == 1


def test_patience_ends() -> None:
    def ended(patience: Patience, stop: threading.Event) -> int:
        told: list[Transient] = []
        with pytest.raises(Throttled):
            retrying(
                _failing(*[Throttled("t")] * 99), repeatable=True, patience=patience, stop=stop, noticed=told.append
            )
        return len(told)

    stop = threading.Event()
    assert ended(_QUICK, stop) == 5
    assert ended(Patience(-1.0), stop) == 0
    stop.set()
    assert ended(_QUICK, stop) == 1


# --- the server's clock ---


@given(st.integers(0, 2**32), st.floats(-1e5, 1e5), st.floats(0.0, 0.2))
def test_the_servers_clock_is_found_by_its_date(seed: int, offset: float, delay: float) -> None:
    rng, now = random.Random(seed), 1000.0

    def monotonic() -> float:
        return now

    clock = Clock(monotonic, lambda: 5.0)
    assert clock.now() == 5.0
    for _ in range(60):
        now += rng.random() * 2
        sent = clock.mark()
        now += delay * rng.random()
        stamped = int(_NOW + now + offset)
        now += delay * rng.random()
        clock.learn(formatdate(stamped, usegmt=True), sent)
        assert abs(clock.now() - (_NOW + now + offset)) <= 0.5 + delay + 1e-6
    assert abs(clock.now() - (_NOW + now + offset)) <= 0.3 + delay


def test_a_clock_that_drifts_is_followed_without_leaps() -> None:
    now, drift, last = 0.0, 1.0001, 0.0
    clock = Clock(lambda: now)
    for step in range(30_000):
        now += 0.1
        clock.learn(formatdate(int(_NOW + now * drift)), clock.mark())
        if step > 1000:
            assert abs(clock.now() - (_NOW + now * drift)) < 0.2
            assert clock.now() >= last
        last = clock.now()


def test_a_clock_that_was_set_is_learnt_anew() -> None:
    clock = Clock(lambda: 50.0)
    clock.learn(formatdate(_NOW), 50.0)
    clock.learn(formatdate(_NOW + 3600), 50.0)
    assert abs(clock.now() - (_NOW + 3600)) <= 1
    for nothing in (None, "yesterday", ""):
        clock.learn(nothing, 50.0)
    assert abs(clock.now() - (_NOW + 3600)) <= 1


# --- pace ---


def test_the_pace_grows_by_one_a_round_and_halves_once_a_burst() -> None:
    now = 0.0
    pace = Pace(16, start=4, clock=lambda: now)
    _round(pace)
    assert pace.limit == 5
    _round(pace)
    assert pace.limit == 6
    for _ in range(10):
        pace.throttled()
    assert pace.limit == 3
    _round(pace)
    assert pace.limit == 3
    for _ in range(40):
        now += 1
        _round(pace)
    assert pace.limit == 16
    for _ in range(9):
        now += 1
        pace.throttled()
    assert pace.limit == 1


def test_a_pace_that_is_not_used_does_not_grow() -> None:
    pace = Pace(16, start=4)
    for _ in range(40):
        with pace.slot():
            pass
    assert pace.limit == 4


def _round(pace: Pace) -> None:
    """As many calls at once as are allowed."""
    slots = [pace.slot() for _ in range(pace.limit)]
    for slot in slots:
        slot.__enter__()
    for slot in slots:
        slot.__exit__(None, None, None)


def test_no_more_calls_at_once_than_the_pace_allows() -> None:
    pace, under_way, most, lock = Pace(3, start=3), 0, 0, threading.Lock()
    gate = threading.Barrier(3)

    def call() -> None:
        nonlocal under_way, most
        for _ in range(20):
            with pace.slot():
                with lock:
                    under_way += 1
                    most = max(most, under_way)
                gate.wait(10)
                with lock:
                    under_way -= 1

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (most, under_way) == (3, 0)


def test_a_stopped_worker_does_not_wait_for_a_slot() -> None:
    pace, stop = Pace(1, start=1), threading.Event()
    stop.set()
    with pace.slot(), pace.slot(stop):
        pass


def test_units_go_into_debt_and_are_paid_for() -> None:
    now = 100.0
    units = Units(10.0, clock=lambda: now)
    assert units.limited
    assert units.owed_seconds() == 0
    units.spend(30)
    assert units.owed_seconds() == pytest.approx(2.0)
    now += 2.5
    assert units.owed_seconds() == 0
    free = Units(None)
    free.spend(1e9)
    assert (free.limited, free.owed_seconds()) == (False, 0)


def test_units_of_an_item() -> None:
    assert [write_units(size) for size in (0, 1, 1024, 1025)] == [1, 1, 1, 2]
    assert [read_units(size, True) for size in (1, 4096, 4097)] == [1, 1, 2]
    assert read_units(4097, False) == 1


# --- access ---


@pytest.mark.parametrize(
    ("endpoint", "streams", "host"),
    [
        ("https://dynamodb.eu-west-1.amazonaws.com", "https://streams.dynamodb.eu-west-1.amazonaws.com", None),
        ("https://v.dynamodb.eu-west-1.vpce.amazonaws.com", "https://streams.dynamodb.eu-west-1.amazonaws.com", None),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://db.example:443", "https://db.example:443", "db.example"),
        ("http://[::1]:80", "http://[::1]:80", "[::1]"),
    ],
)  # fmt: skip
def test_streams_have_their_own_host_at_aws(endpoint: str, streams: str, host: str | None) -> None:
    access = Access(endpoint, "eu-west-1", Secrets({}))
    assert access.for_streams().endpoint == streams
    if host:
        assert access.host == host
