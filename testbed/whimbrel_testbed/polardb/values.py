"""DynamoDB-typed values: checking, canonical numbers, size, equality and order; nothing about tables or expressions.

A value is what stands in the JSON: ``{"S": "a"}``, ``{"N": "1.5"}``. Numbers stay text; only order and arithmetic make
a Decimal of them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from whimbrel_testbed.polardb.limits import NESTING, NUMBER_DIGITS, NUMBER_MAGNITUDE, NUMBER_SMALLEST
from whimbrel_testbed.polardb.refusals import InvalidError, invalid_parameter, item_not_json

Value = dict[str, Any]
Item = dict[str, Value]

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,37}")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
EXACT = Context(prec=400, Emin=-999999, Emax=999999)
NUL_REFUSED = (
    "The stand-in keeps items as PostgreSQL's jsonb, which cannot hold the character NUL (\\u0000); it stands in {}. "
    "Take it out of the item, or keep the value as binary (B)."
)


def canonical_number(text: Any) -> str:
    """Return a number's canonical text (plain notation, no needless zeros) or refuse it as DynamoDB does."""
    if not isinstance(text, str):
        raise item_not_json("NUMBER_VALUE cannot be converted to String")
    if _WHOLE.fullmatch(text):
        return text
    if not _NUMBER.fullmatch(text):
        raise InvalidError(f"The parameter cannot be converted to a numeric value: {text}")
    try:
        return plain(EXACT.create_decimal(text.strip()))
    except InvalidOperation:
        raise InvalidError(f"The parameter cannot be converted to a numeric value: {text}") from None


def plain(number: Decimal) -> str:
    """Return the canonical text of a number within DynamoDB's range, or refuse it."""
    if not number:
        return "0"
    number = number.normalize(EXACT)
    if number.adjusted() >= NUMBER_MAGNITUDE:
        raise InvalidError("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if number.adjusted() < NUMBER_SMALLEST:
        raise InvalidError("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    if len(number.as_tuple().digits) > NUMBER_DIGITS:
        raise InvalidError("Attempting to store more than 38 significant digits in a Number")
    return format(number, "f")


def measure_item(item: Any, what: str = "item") -> int:
    """Check an item, make its numbers canonical in place, and return its size in DynamoDB's bytes."""
    if type(item) is not dict:
        raise item_not_json(f"The {what} is not a JSON object")
    return sum(_name(name) + measure(value) for name, value in item.items())


def measure(value: Any, depth: int = 0) -> int:
    """Check one value, make its numbers canonical in place, and return its size in DynamoDB's bytes."""
    if type(value) is not dict:
        raise item_not_json("Unexpected value type in payload")
    if len(value) != 1:
        what = "has more than one datatypes set" if value else "is empty"
        raise InvalidError(f"Supplied AttributeValue {what}, must contain exactly one of the supported datatypes")
    ((kind, content),) = value.items()
    check = _CHECKS.get(kind)
    if check is None:
        raise InvalidError("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
    return check(value, content, depth)


def _name(name: str) -> int:
    if "\x00" in name:
        raise InvalidError(NUL_REFUSED.format("an attribute's name"))
    return len(name) if name.isascii() else len(name.encode())


def _text(_value: Value, content: Any, _depth: int) -> int:
    if type(content) is not str:
        raise item_not_json("A value of type S must be a string")
    if "\x00" in content:
        raise InvalidError(NUL_REFUSED.format("a string"))
    return len(content) if content.isascii() else len(content.encode())


def _number_bytes(text: str) -> int:
    digits = text.strip("-0.").replace(".", "")
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")


def _number(value: Value, content: Any, _depth: int) -> int:
    value["N"] = text = canonical_number(content)
    return _number_bytes(text)


def decode_binary(content: Any) -> bytes:
    """Return a binary value's bytes; refuses what is not base64."""
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise item_not_json("Invalid Base64 in a value of type B") from None


def _binary(value: Value, content: Any, _depth: int) -> int:
    data = decode_binary(content)
    value["B"] = base64.b64encode(data).decode()
    return len(data)


def _boolean(_value: Value, content: Any, _depth: int) -> int:
    if type(content) is not bool:
        raise item_not_json("A value of type BOOL must be true or false")
    return 1


def _null(_value: Value, content: Any, _depth: int) -> int:
    if content is not True:
        raise invalid_parameter("Null attribute value types must have the value of true")
    return 1


def _set_of(kind: str, check: Callable[[Value, Any, int], int], name: str) -> Callable[[Value, Any, int], int]:
    def checked(value: Value, content: Any, depth: int) -> int:
        if type(content) is not list:
            raise item_not_json(f"A value of type {kind}S must be a list")
        if not content:
            raise invalid_parameter(f"An {name} set  may not be empty")
        members: list[Value] = [{kind: member} for member in content]
        size = sum(check(member, member[kind], depth) for member in members)
        canonical = [member[kind] for member in members]
        if len(set(canonical)) != len(canonical):
            raise invalid_parameter(f"Input collection [{', '.join(map(str, content))}] contains duplicates.")
        value[kind + "S"] = canonical
        return size

    return checked


def _deeper(depth: int) -> int:
    if depth >= NESTING:
        raise InvalidError("Nesting Levels have exceeded supported limits")
    return depth + 1


def _list(_value: Value, content: Any, depth: int) -> int:
    if type(content) is not list:
        raise item_not_json("A value of type L must be a list")
    deeper = _deeper(depth)
    return 3 + sum(1 + measure(member, deeper) for member in content)


def _map(_value: Value, content: Any, depth: int) -> int:
    if type(content) is not dict:
        raise item_not_json("A value of type M must be an object")
    deeper = _deeper(depth)
    return 3 + sum(1 + _name(name) + measure(member, deeper) for name, member in content.items())


_CHECKS: dict[str, Callable[[Value, Any, int], int]] = {
    "S": _text, "N": _number, "B": _binary, "BOOL": _boolean, "NULL": _null, "L": _list, "M": _map,
    "SS": _set_of("S", _text, "string"), "NS": _set_of("N", _number, "number"), "BS": _set_of("B", _binary, "binary"),
}  # fmt: skip


def kind_of(value: Value) -> str:
    """Return a checked value's type: S, N, B, BOOL, NULL, L, M, SS, NS or BS."""
    return next(iter(value))


def same(one: Value, other: Value) -> bool:
    """Say whether two checked values are equal; sets have no order."""
    kind = kind_of(one)
    if kind != kind_of(other):
        return False
    left, right = one[kind], other[kind]
    if kind in {"SS", "NS", "BS"}:
        return set(left) == set(right)
    if kind == "L":
        return len(left) == len(right) and all(map(same, left, right))
    if kind == "M":
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return bool(left == right)


def ordered(value: Value) -> str | bytes | Decimal | None:
    """Return what a value is ordered by (text by code point, UTF-8's byte order), or None where it has no order."""
    kind = kind_of(value)
    if kind == "S":
        return str(value["S"])
    if kind == "N":
        return Decimal(value["N"])
    if kind == "B":
        return decode_binary(value["B"])
    return None
