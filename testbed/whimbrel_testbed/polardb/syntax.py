"""The parts of DynamoDB's expressions, as data; reading stands in parser.py, meaning in conditions.py, updates.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whimbrel_testbed.polardb.values import Value

Path = tuple[str | int, ...]
"""An attribute's name, then names of map members and list indexes."""


@dataclass(frozen=True)
class Attribute:
    """What stands at a path."""

    path: Path


@dataclass(frozen=True)
class Literally:
    """A value given with the call."""

    value: Value


@dataclass(frozen=True)
class Call:
    """A function of an expression."""

    name: str
    arguments: tuple[Operand, ...]


@dataclass(frozen=True)
class Arithmetic:
    """A sum or difference in SET."""

    operator: Literal["+", "-"]
    left: Operand
    right: Operand


Operand = Attribute | Literally | Call | Arithmetic


@dataclass(frozen=True)
class Comparison:
    """Two operands compared by =, <>, <, <=, > or >=."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Between:
    """Within a range; both of its ends belong to it."""

    operand: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True)
class Within:
    """Equal to one of the choices (IN)."""

    operand: Operand
    choices: tuple[Operand, ...]


@dataclass(frozen=True)
class Test:
    """A function that is true or false."""

    call: Call


@dataclass(frozen=True)
class Negation:
    """NOT."""

    condition: Condition


@dataclass(frozen=True)
class Junction:
    """AND or OR of two conditions."""

    operator: Literal["AND", "OR"]
    left: Condition
    right: Condition


Condition = Comparison | Between | Within | Test | Negation | Junction


@dataclass(frozen=True)
class Action:
    """One action of an UpdateExpression; REMOVE has no operand."""

    clause: Literal["SET", "REMOVE", "ADD", "DELETE"]
    path: Path
    operand: Operand | None


def attributes_of(part: Condition | Operand | None) -> list[Path]:  # noqa: PLR0911 -- one for each part
    """Return the paths that a condition reads."""
    if isinstance(part, Attribute):
        return [part.path]
    if isinstance(part, Junction | Comparison | Arithmetic):
        return attributes_of(part.left) + attributes_of(part.right)
    if isinstance(part, Negation):
        return attributes_of(part.condition)
    if isinstance(part, Test):
        return attributes_of(part.call)
    if isinstance(part, Call):
        return [path for argument in part.arguments for path in attributes_of(argument)]
    if isinstance(part, Between):
        return attributes_of(part.operand) + attributes_of(part.low) + attributes_of(part.high)
    if isinstance(part, Within):
        return attributes_of(part.operand) + [path for choice in part.choices for path in attributes_of(choice)]
    return []
