"""The PolarDB stand-in's pure parts: values, expressions, names in PostgreSQL, signatures, dials."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_testbed.polardb.conditions import holds, project
from whimbrel_testbed.polardb.dials import Dials
from whimbrel_testbed.polardb.layout import DOCUMENT, column_key, document_key, quoted, sql_name
from whimbrel_testbed.polardb.parser import parse_condition, parse_projection, parse_update
from whimbrel_testbed.polardb.placeholders import Placeholders
from whimbrel_testbed.polardb.refusals import InvalidError, RefusedError
from whimbrel_testbed.polardb.reserved import RESERVED
from whimbrel_testbed.polardb.signature import Request, account_of
from whimbrel_testbed.polardb.updates import updated
from whimbrel_testbed.polardb.values import canonical_number, measure, measure_item, same

_NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27)


def _placeholders(**values: Any) -> Placeholders:
    return Placeholders({"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}})


def _holds(text: str, item: dict[str, Any], **values: Any) -> bool:
    return holds(parse_condition(text, "ConditionExpression", _placeholders(**values)), item)


def _updated(item: dict[str, Any], text: str, **values: Any) -> dict[str, Any]:
    return updated(item, parse_update(text, _placeholders(**values)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("1", "1"), ("-0", "0"), ("1.50", "1.5"), ("1E2", "100"), ("007", "7"), (".5", "0.5"), ("5.", "5"), ("+3", "3"),
     ("9" * 38, "9" * 38), ("1e125", "1" + "0" * 125), ("1e-130", "0." + "0" * 129 + "1")],
)  # fmt: skip
def test_a_number_has_one_text(text: str, canonical: str) -> None:
    assert canonical_number(text) == canonical


@pytest.mark.parametrize("text", ["", "one", "1_0", "0x1", "NaN", "Infinity", "1e", "1e126", "1e-131", "1" * 39, "٣"])
def test_what_is_no_number_of_dynamodb(text: str) -> None:
    with pytest.raises(InvalidError):
        canonical_number(text)


@given(_NUMBERS)
def test_a_canonical_number_keeps_its_value(number: Decimal) -> None:
    text = canonical_number(str(number))
    assert Decimal(text) == number
    assert canonical_number(text) == text


def test_sizes_are_dynamodbs() -> None:
    assert measure({"S": "é"}) == 2
    assert measure({"N": "-123.45"}) == 5
    assert measure({"B": "AAE="}) == 2
    assert measure({"L": [{"BOOL": True}, {"M": {"a": {"NULL": True}}}]}) == 3 + 1 + 1 + 1 + 3 + 1 + 1 + 1
    assert measure_item({"pk": {"SS": ["ab", "c"]}}) == 5


@pytest.mark.parametrize(
    "value",
    [{}, {"S": "a", "N": "1"}, {"X": "a"}, {"S": "a\x00"}, {"M": {"\x00": {"S": "a"}}}, {"BS": ["AA==", "AA=="]},
     {"NS": ["1", "1.0"]}, {"SS": []}, {"NULL": False}],
)  # fmt: skip
def test_a_bad_value_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        measure(value)


@pytest.mark.parametrize("value", [None, {"S": 1}, {"N": 1}, {"B": "=="}, {"BOOL": "true"}, {"L": {}}, {"M": []}])
def test_a_misshapen_value_is_a_serialization_error(value: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        measure(value)
    assert caught.value.kind == "SerializationException"


def test_sets_have_no_order_and_types_differ() -> None:
    assert same({"SS": ["a", "b"]}, {"SS": ["b", "a"]})
    assert not same({"S": "1"}, {"N": "1"})
    assert same({"M": {"a": {"NS": ["1", "2"]}}}, {"M": {"a": {"NS": ["2", "1"]}}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a = :one", True), ("a <> :one", False), ("a <= :one", True),
     ("a >= :one", True), ("a < :one", False), ("a > :one", False),
     ("a BETWEEN :zero AND :one", True), ("gone <> :one", True), ("gone = :one", False), ("a < :two", True),
     ("t < :one", False), ("NOT a = :two AND a = :one", True), ("a = :two OR a = :one AND t = :x", True),
     ("(a = :two OR a = :one) AND t = :one", False), ("a BETWEEN :one AND :two", True), ("t IN (:one, :x)", True),
     ("size(t) = :one", True), ("contains(l, :x)", True), ("begins_with(m.t, :x)", True), ("l[0] = :x", True),
     ("attribute_exists(m.t) and attribute_not_exists(l[1])", True)],
)  # fmt: skip
def test_what_a_condition_means(text: str, expected: bool) -> None:
    item = {"a": {"N": "1"}, "t": {"S": "x"}, "l": {"L": [{"S": "x"}]}, "m": {"M": {"t": {"S": "xyz"}}}}
    assert _holds(text, item, zero={"N": "0"}, one={"N": "1"}, two={"N": "2"}, x={"S": "x"}) is expected


def test_what_an_update_does() -> None:
    item = {"n": {"N": "1"}, "l": {"L": [{"S": "a"}, {"S": "b"}, {"S": "c"}]}, "s": {"SS": ["x", "y"]}, "m": {"M": {}}}
    text = "SET n = n + :two, m.k = if_not_exists(q, :x), l[9] = :x REMOVE l[0], l[1] ADD c :two DELETE s :s"
    result = _updated(item, text, two={"N": "2"}, x={"S": "x"}, s={"SS": ["y"]})
    assert result == {
        "n": {"N": "3"}, "m": {"M": {"k": {"S": "x"}}}, "l": {"L": [{"S": "c"}, {"S": "x"}]}, "c": {"N": "2"},
        "s": {"SS": ["x"]},
    }  # fmt: skip
    assert item["n"] == {"N": "1"}, "the old item stays as it was"


def test_operands_are_read_before_anything_changes() -> None:
    assert _updated({"a": {"N": "1"}, "b": {"N": "2"}}, "SET a = b, b = a") == {"a": {"N": "2"}, "b": {"N": "1"}}


def test_sums_are_exact_to_38_digits() -> None:
    result = _updated({"a": {"N": "1" + "0" * 37}}, "SET a = a + :o", o={"N": "1"})
    assert result["a"]["N"] == "1" + "0" * 36 + "1"


def test_a_projection_keeps_lists_close() -> None:
    item: dict[str, Any] = {
        "l": {"L": [{"S": "a"}, {"S": "b"}, {"S": "c"}]},
        "m": {"M": {"x": {"N": "1"}, "y": {"N": "2"}}},
    }
    paths = parse_projection("l[2], l[0], m.x, gone", _placeholders())
    assert project(item, paths) == {"l": {"L": [{"S": "a"}, {"S": "c"}]}, "m": {"M": {"x": {"N": "1"}}}}


@pytest.mark.parametrize("word", ["name", "Value", "status", "ttl", "percent", "zone", "timestamp", "hash", "range"])
def test_reserved_words_are_refused(word: str) -> None:
    assert len(RESERVED) == 573
    with pytest.raises(InvalidError, match="reserved keyword"):
        parse_update(f"REMOVE {word}", _placeholders())


@given(st.text(alphabet=string.ascii_letters + "#:.,()[]<>=+- 019", max_size=40))
def test_no_expression_breaks_the_parser(text: str) -> None:
    readers = (
        lambda: parse_condition(text, "FilterExpression", _placeholders()),
        lambda: parse_update(text, _placeholders()),
        lambda: parse_projection(text, _placeholders()),
    )
    for read in readers:
        try:
            read()
        except InvalidError:
            continue


def test_an_expression_too_deep_is_refused() -> None:
    with pytest.raises(InvalidError, match="too deeply"):
        parse_condition("(" * 1500 + "a = b" + ")" * 1500, "ConditionExpression", _placeholders())


@given(st.text(min_size=1, max_size=255).filter(lambda name: "\x00" not in name))
def test_names_fit_postgresql(name: str) -> None:
    short = sql_name(name)
    assert 0 < len(short.encode()) <= 63
    assert short not in {DOCUMENT, "ctid", "xmin"}
    assert quoted(short).count('"') % 2 == 0


def test_names_are_quoted_everywhere() -> None:
    nasty = "a\"b%s'c"
    assert column_key(nasty, "S").sql == '"a""b%%s\'c"'
    assert "'a\"b%%s''c'" in document_key(nasty, "S").sql


def _signed(body: bytes, *, secret: str = "pass-word", account: str = "account") -> Request:
    request = AWSRequest("POST", "http://127.0.0.1:1234/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}, body)
    SigV4Auth(Credentials(account, secret), "dynamodb", "eu-west-1").add_auth(request)
    headers = {name.lower(): str(value) for name, value in request.headers.items()} | {"host": "127.0.0.1:1234"}
    return Request("POST", "/", "", headers, body)


_PASSWORDS = {"account": "pass-word"}


def test_a_signature_of_the_sdk_is_taken() -> None:
    assert account_of(_signed(b"{}"), _PASSWORDS) == "account"


def _kind(request: Request, now: datetime | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        account_of(request, _PASSWORDS, now)
    return caught.value.kind


def test_what_is_wrong_with_a_signature_is_said() -> None:
    good = _signed(b"{}")
    assert _kind(_signed(b"{}", secret="other")) == "InvalidSignatureException"
    assert _kind(_signed(b"{}", account="other")) == "UnrecognizedClientException"
    assert _kind(Request("POST", "/", "", good.headers, b"{ }")) == "InvalidSignatureException"
    assert _kind(Request("POST", "/", "", {**good.headers, "host": "elsewhere"}, b"{}")) == "InvalidSignatureException"
    assert _kind(Request("POST", "/", "", {}, b"{}")) == "MissingAuthenticationTokenException"
    assert _kind(Request("POST", "/", "", {"authorization": "Basic x"}, b"")) == "IncompleteSignatureException"
    without_date = {name: value for name, value in good.headers.items() if name != "x-amz-date"}
    assert _kind(Request("POST", "/", "", without_date, b"{}")) == "IncompleteSignatureException"


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_signature_has_its_time(minutes: int) -> None:
    assert _kind(_signed(b"{}"), datetime.now(UTC) + timedelta(minutes=minutes)) == "InvalidSignatureException"


def test_a_bad_dial_changes_nothing() -> None:
    dials = Dials()
    with pytest.raises(ValueError, match="takes a"):
        dials.set(delay=1, refuse="PutItem")
    assert dials == Dials()
