"""What an UpdateExpression does to an item."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

from whimbrel_testbed.polardb.conditions import value_at
from whimbrel_testbed.polardb.refusals import InvalidError
from whimbrel_testbed.polardb.syntax import Action, Arithmetic, Attribute, Call, Literally, Operand, Path
from whimbrel_testbed.polardb.values import EXACT, Item, Value, kind_of, plain

_SETS = {"SS", "NS", "BS"}
_NO_SUCH_PATH = "The document path provided in the update expression is invalid for update"
_NO_ATTRIBUTE = "The provided expression refers to an attribute that does not exist in the item"
_WRONG_TYPE = "An operand in the update expression has an incorrect data type"


def updated(item: Item, actions: list[Action]) -> Item:
    """Return a changed copy of an item. All operands are read from the item as it was, whatever their order."""
    result: Item = copy.deepcopy(item)
    values = [_operand(action.operand, item) if action.operand else None for action in actions]
    removals: list[Path] = []
    for action, value in zip(actions, values, strict=True):
        if action.clause == "REMOVE":
            removals.append(action.path)
        elif value is not None:
            _apply(action, value, item, result)
    # Higher indexes first: a removed list member moves those behind it.
    for path in sorted(
        removals, key=lambda path: [part if isinstance(part, int) else -1 for part in path], reverse=True
    ):
        _remove(path, result)
    return result


def _apply(action: Action, value: Value, item: Item, result: Item) -> None:
    if action.clause == "SET":
        _put(action.path, copy.deepcopy(value), result)
        return
    current = value_at(action.path, item)
    if action.clause == "ADD":
        _put(action.path, _added(current, value), result)
        return
    if kind_of(value) not in _SETS:
        raise InvalidError(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: DELETE, "
            f"operand type: {kind_of(value)}"
        )
    if current is None:
        return
    kind = _same_kind(current, value)
    left = [member for member in current[kind] if member not in value[kind]]
    if left:
        _put(action.path, {kind: left}, result)
    else:
        _remove(action.path, result)


def _added(current: Value | None, value: Value) -> Value:
    kind = kind_of(value)
    if kind not in _SETS | {"N"}:
        raise InvalidError(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, "
            f"operand type: {kind}"
        )
    if current is None:
        return copy.deepcopy(value)
    _same_kind(current, value)
    if kind == "N":
        return {"N": plain(EXACT.add(Decimal(current["N"]), Decimal(value["N"])))}
    return {kind: current[kind] + [member for member in value[kind] if member not in current[kind]]}


def _same_kind(current: Value, value: Value) -> str:
    kind = kind_of(value)
    if kind_of(current) != kind:
        raise InvalidError(_WRONG_TYPE)
    return kind


def _operand(operand: Operand, item: Item) -> Value:
    if isinstance(operand, Literally):
        return operand.value
    if isinstance(operand, Attribute):
        found = value_at(operand.path, item)
        if found is None:
            raise InvalidError(_NO_ATTRIBUTE)
        return found
    if isinstance(operand, Arithmetic):
        return _arithmetic(operand, item)
    return _called(operand, item)


def _arithmetic(operand: Arithmetic, item: Item) -> Value:
    left, right = _operand(operand.left, item), _operand(operand.right, item)
    if "N" not in left or "N" not in right:
        raise InvalidError(_WRONG_TYPE)
    calculate = EXACT.add if operand.operator == "+" else EXACT.subtract
    return {"N": plain(calculate(Decimal(left["N"]), Decimal(right["N"])))}


def _called(call: Call, item: Item) -> Value:
    first, second = call.arguments
    if call.name == "if_not_exists":
        if not isinstance(first, Attribute):
            raise InvalidError(
                "Invalid UpdateExpression: Operator or function requires a document path; "
                "operator or function: if_not_exists"
            )
        found = value_at(first.path, item)
        return _operand(second, item) if found is None else found
    left, right = _operand(first, item), _operand(second, item)
    if "L" not in left or "L" not in right:
        raise InvalidError(_WRONG_TYPE)
    return {"L": left["L"] + right["L"]}


def _parent(path: Path, item: Item) -> Any:
    """Return the dict or list which holds (or may hold) the path's last part."""
    parent = {"M": item} if len(path) == 1 else value_at(path[:-1], item)
    held = None if parent is None else parent.get("L" if isinstance(path[-1], int) else "M")
    if held is None:
        raise InvalidError(_NO_SUCH_PATH)
    return held


def _put(path: Path, value: Value, item: Item) -> None:
    parent, last = _parent(path, item), path[-1]
    if isinstance(last, int) and last >= len(parent):
        parent.append(value)
    else:
        parent[last] = value


def _remove(path: Path, item: Item) -> None:
    parent, last = _parent(path, item), path[-1]
    if isinstance(last, str):
        parent.pop(last, None)
    elif last < len(parent):
        del parent[last]
