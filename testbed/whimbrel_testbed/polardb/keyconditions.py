"""A KeyConditionExpression as SQL: one value of the partition key, and a range of the sort key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel_testbed.polardb.layout import Key
from whimbrel_testbed.polardb.refusals import InvalidError, invalid_parameter
from whimbrel_testbed.polardb.syntax import (
    Attribute,
    Between,
    Comparison,
    Condition,
    Junction,
    Literally,
    Operand,
    Test,
)
from whimbrel_testbed.polardb.tables import check_key_value
from whimbrel_testbed.polardb.values import kind_of

_SQL_PREFIX = {"S": "starts_with({0}, {1})", "B": "substring({0} FROM 1 FOR length({1})) = {1}"}
_MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Clause:
    """A SQL condition and its parameters."""

    sql: str
    parameters: list[str]


def key_clauses(condition: Condition, keys: Sequence[Key]) -> list[Clause]:
    """Return the conditions on the keys' columns, or refuse what is no key condition."""
    parts = _conjuncts(condition)
    named = [_named(part) for part in parts]
    for key in keys[:1]:
        if key.attribute not in named:
            raise InvalidError(f"Query condition missed key schema element: {key.attribute}")
    if len(parts) > len(keys) or set(named) - {key.attribute for key in keys} or len(set(named)) != len(named):
        missed = next((key.attribute for key in keys if key.attribute not in named), None)
        raise InvalidError(
            f"Query condition missed key schema element: {missed}" if missed else
            "Conditions must have at most two members, and one condition a key attribute"
        )  # fmt: skip
    by_name = dict(zip(named, parts, strict=True))
    first = by_name[keys[0].attribute]
    if not isinstance(first, Comparison) or first.operator != "=":
        raise InvalidError("Query key condition not supported")
    return [_clause(by_name[key.attribute], key) for key in keys if key.attribute in by_name]


def _conjuncts(condition: Condition) -> list[Condition]:
    if isinstance(condition, Junction) and condition.operator == "AND":
        return _conjuncts(condition.left) + _conjuncts(condition.right)
    return [condition]


def _named(part: Condition) -> str:
    operands: tuple[Operand, ...] = ()
    if isinstance(part, Comparison):
        operands = (part.left, part.right)
    elif isinstance(part, Between):
        operands = (part.operand,)
    elif isinstance(part, Test) and part.call.name == "begins_with":
        operands = part.call.arguments[:1]
    for operand in operands:
        if isinstance(operand, Attribute) and len(operand.path) == 1:
            return str(operand.path[0])
    raise InvalidError("Invalid operator used in KeyConditionExpression")


def _clause(part: Condition, key: Key) -> Clause:
    if isinstance(part, Between):
        return Clause(
            f"{key.sql} BETWEEN {key.parameter} AND {key.parameter}", [_given(part.low, key), _given(part.high, key)]
        )
    if isinstance(part, Test):
        return _prefix(_given(part.call.arguments[1], key), key)
    if not isinstance(part, Comparison) or part.operator not in _MIRRORED:
        raise InvalidError("Unsupported operator in KeyConditionExpression: <>")
    if isinstance(part.left, Attribute):
        return Clause(f"{key.sql} {part.operator} {key.parameter}", [_given(part.right, key)])
    return Clause(f"{key.sql} {_MIRRORED[part.operator]} {key.parameter}", [_given(part.left, key)])


def _prefix(prefix: str, key: Key) -> Clause:
    if key.kind not in _SQL_PREFIX:
        raise InvalidError(
            "Invalid KeyConditionExpression: Incorrect operand type for operator or function; operator or function: "
            "begins_with, operand type: N"
        )
    sql = _SQL_PREFIX[key.kind].format(key.sql, key.parameter)
    return Clause(f"{key.sql} >= {key.parameter} AND {sql}", [prefix] * sql.count("%s") + [prefix])


def _given(operand: Operand, key: Key) -> str:
    if not isinstance(operand, Literally):
        raise InvalidError("Invalid KeyConditionExpression: a key is compared with a given value only")
    if kind_of(operand.value) != key.kind:
        raise invalid_parameter("Condition parameter type does not match schema type")
    check_key_value(key, operand.value)
    return str(operand.value[key.kind])
