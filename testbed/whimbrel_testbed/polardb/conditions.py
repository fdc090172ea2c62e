"""What conditions and projections mean for an item."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from whimbrel_testbed.polardb.refusals import InvalidError
from whimbrel_testbed.polardb.syntax import (
    Attribute,
    Between,
    Call,
    Condition,
    Junction,
    Literally,
    Negation,
    Operand,
    Path,
    Test,
    Within,
)
from whimbrel_testbed.polardb.values import Item, Value, decode_binary, kind_of, ordered, same

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def holds(condition: Condition, item: Item) -> bool:  # noqa: PLR0911 -- one for each part of the grammar
    """Say whether a condition holds for an item; an absent item is ``{}``."""
    if isinstance(condition, Junction):
        if condition.operator == "AND":
            return holds(condition.left, item) and holds(condition.right, item)
        return holds(condition.left, item) or holds(condition.right, item)
    if isinstance(condition, Negation):
        return not holds(condition.condition, item)
    if isinstance(condition, Test):
        return _test(condition.call, item)
    if isinstance(condition, Within):
        return any(_compare("=", condition.operand, choice, item) for choice in condition.choices)
    if isinstance(condition, Between):
        return _compare(">=", condition.operand, condition.low, item) and _compare(
            "<=", condition.operand, condition.high, item
        )
    return _compare(condition.operator, condition.left, condition.right, item)


def value_at(path: Path, item: Item) -> Value | None:
    """Return what stands at a path, or None."""
    found: Value | None = {"M": item}
    for part in path:
        if found is None:
            return None
        if isinstance(part, int):
            members = found.get("L", [])
            found = members[part] if part < len(members) else None
        else:
            found = found.get("M", {}).get(part)
    return found


def _value(operand: Operand, item: Item) -> Value | None:
    if isinstance(operand, Attribute):
        return value_at(operand.path, item)
    if isinstance(operand, Literally):
        return operand.value
    if isinstance(operand, Call) and operand.name == "size":
        return _size(_value(operand.arguments[0], item))
    raise InvalidError("An operand in the expression has an incorrect data type")


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    kind = kind_of(value)
    if kind in {"N", "BOOL", "NULL"}:
        return None
    if kind == "B":
        return {"N": str(len(decode_binary(value["B"])))}
    return {"N": str(len(value["S"].encode() if kind == "S" else value[kind]))}


def _compare(sign: str, left: Operand, right: Operand, item: Item) -> bool:
    one, other = _value(left, item), _value(right, item)
    if sign == "<>":
        return one is None or other is None or not same(one, other)
    if one is None or other is None:
        return False
    if sign == "=":
        return same(one, other)
    if kind_of(one) != kind_of(other):
        return False
    low, high = ordered(one), ordered(other)
    return low is not None and high is not None and _ORDERS[sign](low, high)


def _test(call: Call, item: Item) -> bool:
    value = _value(call.arguments[0], item)
    if call.name == "attribute_exists":
        return value is not None
    if call.name == "attribute_not_exists":
        return value is None
    argument = _value(call.arguments[1], item)
    if value is None or argument is None:
        return False
    if call.name == "attribute_type":
        return kind_of(value) == argument.get("S")
    if call.name == "begins_with":
        return _begins(value, argument)
    return _contains(value, argument)


def _begins(value: Value, prefix: Value) -> bool:
    kind = kind_of(prefix)
    if kind not in {"S", "B"}:
        raise InvalidError(
            "Invalid expression: Incorrect operand type for operator or function; operator or function: begins_with, "
            f"operand type: {kind}"
        )
    if kind_of(value) != kind:
        return False
    if kind == "B":
        return decode_binary(value["B"]).startswith(decode_binary(prefix["B"]))
    return bool(value["S"].startswith(prefix["S"]))


def _contains(value: Value, member: Value) -> bool:
    kind, wanted = kind_of(value), kind_of(member)
    if kind == "L":
        return any(same(each, member) for each in value["L"])
    if kind in {"SS", "NS", "BS"}:
        return wanted == kind[0] and member[wanted] in value[kind]
    if kind == wanted == "B":
        return decode_binary(member["B"]) in decode_binary(value["B"])
    return kind == wanted == "S" and member["S"] in value["S"]


def project(item: Item, paths: list[Path]) -> Item:
    """Return the part of an item that the paths name; list members close ranks in their order."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
    return dict(_pruned({"M": item}, tree).get("M", {}))


def _pruned(value: Value, tree: dict[str | int, Any]) -> Value:
    if not tree:
        return value
    if "M" in value:
        members = {name: value["M"][name] for name in tree if isinstance(name, str) and name in value["M"]}
        kept = {name: _pruned(member, tree[name]) for name, member in members.items()}
        return {"M": {name: member for name, member in kept.items() if member}} if any(kept.values()) else {}
    if "L" in value:
        wanted = sorted(index for index in tree if isinstance(index, int) and index < len(value["L"]))
        parts = [part for part in (_pruned(value["L"][index], tree[index]) for index in wanted) if part]
        return {"L": parts} if parts else {}
    return {}
