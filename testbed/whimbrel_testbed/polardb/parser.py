"""Reads condition, update and projection expressions by recursive descent; what they mean stands elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeVar, cast

from whimbrel_testbed.polardb.limits import EXPRESSION_BYTES
from whimbrel_testbed.polardb.placeholders import Placeholders
from whimbrel_testbed.polardb.refusals import InvalidError
from whimbrel_testbed.polardb.reserved import RESERVED
from whimbrel_testbed.polardb.syntax import (
    Action,
    Arithmetic,
    Attribute,
    Between,
    Call,
    Comparison,
    Condition,
    Junction,
    Literally,
    Negation,
    Operand,
    Path,
    Test,
    Within,
)
from whimbrel_testbed.polardb.values import kind_of

_TOKEN = re.compile(r"\s*(?:([#:]?[A-Za-z0-9_]+)|(<>|<=|>=|[=<>(),.\[\]+-])|(\S))")
_COMPARISONS = {"=", "<>", "<", "<=", ">", ">="}
_TESTS = {"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "contains": 2}
_Part = TypeVar("_Part")
_CLAUSES = ("SET", "REMOVE", "ADD", "DELETE")


class Parser:
    """One expression; `where` is its parameter's name, for the messages."""

    def __init__(self, text: str, where: str, placeholders: Placeholders) -> None:
        self.where, self.placeholders, self._next = where, placeholders, 0
        if not text.strip():
            raise InvalidError(f"Invalid {where}: The expression can not be empty;")
        if len(text.encode()) > EXPRESSION_BYTES:
            raise InvalidError(f"Invalid {where}: Expression size has exceeded the maximum allowed size;")
        self.tokens = [self._token(match) for match in _TOKEN.finditer(text.rstrip())]

    def condition(self) -> Condition:
        """Read the whole as a condition."""
        return self._whole(self._disjunction)

    def paths(self) -> list[Path]:
        """Read the whole as a projection."""
        return self._whole(lambda: self._listed(self._path))

    def actions(self) -> list[Action]:
        """Read the whole as an update."""
        return self._whole(self._update)

    def _token(self, match: re.Match[str]) -> str:
        if match[3]:
            raise InvalidError(f'Invalid {self.where}: Syntax error; token: "{match[3]}", near: "{match[0].strip()}"')
        return match[1] or match[2]

    def _whole(self, read: Callable[[], _Part]) -> _Part:
        try:
            part = read()
        except RecursionError:
            raise InvalidError(f"Invalid {self.where}: The expression is nested too deeply;") from None
        if self._peek():
            raise self._syntax_error()
        return part

    def _peek(self, ahead: int = 0) -> str:
        position = self._next + ahead
        return self.tokens[position] if position < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise self._syntax_error()
        self._next += 1
        return token

    def _expect(self, wanted: str) -> None:
        if self._peek().upper() != wanted:
            raise self._syntax_error()
        self._next += 1

    def _word(self, *words: str) -> bool:
        if self._peek().upper() in words:
            self._next += 1
            return True
        return False

    def _syntax_error(self) -> InvalidError:
        near = " ".join(self.tokens[max(0, self._next - 1) : self._next + 2])
        return InvalidError(f'Invalid {self.where}: Syntax error; token: "{self._peek() or "<EOF>"}", near: "{near}"')

    def _listed(self, read: Callable[[], _Part]) -> list[_Part]:
        parts = [read()]
        while self._word(","):
            parts.append(read())
        return parts

    def _disjunction(self) -> Condition:
        left = self._conjunction()
        while self._word("OR"):
            left = Junction("OR", left, self._conjunction())
        return left

    def _conjunction(self) -> Condition:
        left = self._negation()
        while self._word("AND"):
            left = Junction("AND", left, self._negation())
        return left

    def _negation(self) -> Condition:
        return Negation(self._negation()) if self._word("NOT") else self._simple()

    def _simple(self) -> Condition:
        if self._word("("):
            inner = self._disjunction()
            self._expect(")")
            return inner
        if self._peek(1) == "(" and self._peek() in _TESTS:
            return Test(self._call(_TESTS))
        return self._compared(self._operand())

    def _compared(self, operand: Operand) -> Condition:
        if self._word("BETWEEN"):
            low = self._ordered("BETWEEN", self._operand())
            self._expect("AND")
            high = self._ordered("BETWEEN", self._operand())
            self._distinct("BETWEEN", operand, low, high)
            return Between(operand, low, high)
        if self._word("IN"):
            self._expect("(")
            choices = tuple(self._listed(self._operand))
            self._expect(")")
            self._distinct("IN", operand, *choices)
            return Within(operand, choices)
        operator = self._take()
        if operator not in _COMPARISONS:
            self._next -= 1
            raise self._syntax_error()
        other = self._operand()
        self._distinct(operator, operand, other)
        if operator in {"=", "<>"}:
            return Comparison(operator, operand, other)
        return Comparison(operator, self._ordered(operator, operand), self._ordered(operator, other))

    def _distinct(self, operator: str, first: Operand, *others: Operand) -> None:
        if isinstance(first, Attribute) and first in others:
            raise InvalidError(
                f"Invalid {self.where}: The first operand must be distinct from the remaining operands for this "
                f"operator or function; operator: {operator}, first operand: {_shown(first.path)}"
            )

    def _ordered(self, operator: str, operand: Operand) -> Operand:
        """Refuse a given value that has no order."""
        kind = kind_of(operand.value) if isinstance(operand, Literally) else "S"
        if kind not in {"S", "N", "B"}:
            raise InvalidError(
                f"Invalid {self.where}: Incorrect operand type for operator or function; "
                f"operator or function: {operator}, operand type: {kind}"
            )
        return operand

    def _operand(self) -> Operand:
        if self._peek(1) == "(":
            return self._call({"size": 1})
        return self._plain_operand()

    def _plain_operand(self) -> Operand:
        if self._peek().startswith(":"):
            return Literally(self.placeholders.value(self._take(), self.where))
        return Attribute(self._path())

    def _call(self, functions: Mapping[str, int]) -> Call:
        name = self._take()
        if name not in functions:
            raise InvalidError(f"Invalid {self.where}: Invalid function name; function: {name}")
        self._expect("(")
        arguments = tuple(self._listed(self._settable if "if_not_exists" in functions else self._operand))
        self._expect(")")
        if len(arguments) != functions[name]:
            raise InvalidError(
                f"Invalid {self.where}: Incorrect number of operands for operator or function; "
                f"operator or function: {name}, number of operands: {len(arguments)}"
            )
        return Call(name, arguments)

    def _path(self) -> Path:
        parts: list[str | int] = [self._attribute_name()]
        while self._peek() in {".", "["}:
            if self._take() == ".":
                parts.append(self._attribute_name())
            else:
                parts.append(self._index())
        return tuple(parts)

    def _index(self) -> int:
        digits = self._take()
        if not digits.isascii() or not digits.isdigit():
            self._next -= 1
            raise self._syntax_error()
        self._expect("]")
        return int(digits)

    def _attribute_name(self) -> str:
        token = self._take()
        if token.startswith("#"):
            return self.placeholders.name(token, self.where)
        if not token[0].isalpha():
            self._next -= 1
            raise self._syntax_error()
        if token.upper() in RESERVED:
            raise InvalidError(f"Invalid {self.where}: Attribute name is a reserved keyword; reserved keyword: {token}")
        return token

    def _update(self) -> list[Action]:
        actions: list[Action] = []
        seen: set[str] = set()
        while clause := self._peek().upper():
            if clause not in _CLAUSES:
                raise self._syntax_error()
            if clause in seen:
                raise InvalidError(
                    f'Invalid {self.where}: The "{clause}" section can only be used once in an update expression;'
                )
            seen.add(clause)
            self._next += 1
            actions += self._listed(partial(self._action, clause))
        self.no_overlap([action.path for action in actions])
        return actions

    def _action(self, clause: str) -> Action:
        path = self._path()
        kind = cast("Literal['SET', 'REMOVE', 'ADD', 'DELETE']", clause)
        if kind == "REMOVE":
            return Action(kind, path, None)
        if kind == "SET":
            self._expect("=")
            return Action(kind, path, self._sum())
        if not self._peek().startswith(":"):
            raise self._syntax_error()
        return Action(kind, path, self._plain_operand())

    def _sum(self) -> Operand:
        left = self._settable()
        if self._peek() in {"+", "-"}:
            operator = cast("Literal['+', '-']", self._take())
            return Arithmetic(operator, left, self._settable())
        return left

    def _settable(self) -> Operand:
        if self._word("("):
            inner = self._sum()
            self._expect(")")
            return inner
        if self._peek(1) == "(":
            return self._call({"if_not_exists": 2, "list_append": 2})
        return self._plain_operand()

    def no_overlap(self, paths: list[Path]) -> None:
        """Refuse two paths of which one is within the other, or that see a list and a map at one place."""
        for number, one in enumerate(paths):
            for other in paths[number + 1 :]:
                if fault := _clash(one, other):
                    raise InvalidError(
                        f"Invalid {self.where}: Two document paths {fault} with each other; must remove or rewrite one "
                        f"of these paths; path one: {_shown(one)}, path two: {_shown(other)}"
                    )


def _clash(one: Path, other: Path) -> str:
    for left, right in zip(one, other, strict=False):
        if left != right:
            return "conflict" if type(left) is not type(right) else ""
    return "overlap"


def _shown(path: Path) -> str:
    return "[" + ", ".join(f"[{part}]" if isinstance(part, int) else part for part in path) + "]"


def parse_condition(text: str, where: str, placeholders: Placeholders) -> Condition:
    """Read a condition, filter or key condition; `where` is the parameter's name."""
    return Parser(text, where, placeholders).condition()


def parse_update(text: str, placeholders: Placeholders) -> list[Action]:
    """Read an UpdateExpression."""
    return Parser(text, "UpdateExpression", placeholders).actions()


def parse_projection(text: str, placeholders: Placeholders) -> list[Path]:
    """Read a ProjectionExpression."""
    parser = Parser(text, "ProjectionExpression", placeholders)
    paths = parser.paths()
    parser.no_overlap(paths)
    return paths
