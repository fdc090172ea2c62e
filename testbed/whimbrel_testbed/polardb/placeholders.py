"""The names and values a call gives to its expressions, and the parameters that expressions have replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whimbrel_testbed.polardb.refusals import InvalidError, invalid_parameter
from whimbrel_testbed.polardb.values import Value, measure


class Placeholders:
    """The names and values of one call; keeps account of which have been used in its expressions."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.names: dict[str, str] = body.get("ExpressionAttributeNames") or {}
        self.values: dict[str, Value] = body.get("ExpressionAttributeValues") or {}
        for value in self.values.values():
            measure(value)
        self._unused = {"names": set(self.names), "values": set(self.values)}

    def name(self, token: str, where: str) -> str:
        """Return the attribute name that a `#name` stands for."""
        if token not in self.names:
            raise InvalidError(
                f"Invalid {where}: An expression attribute name used in the document path is not defined; "
                f"attribute name: {token}"
            )
        self._unused["names"].discard(token)
        return self.names[token]

    def value(self, token: str, where: str) -> Value:
        """Return the value that a `:value` stands for."""
        if token not in self.values:
            raise InvalidError(
                f"Invalid {where}: An expression attribute value used in expression is not defined; "
                f"attribute value: {token}"
            )
        self._unused["values"].discard(token)
        return self.values[token]

    def all_used(self) -> None:
        """Refuse the call where a name or value was given and not used."""
        for kind, title in (("names", "ExpressionAttributeNames"), ("values", "ExpressionAttributeValues")):
            if self._unused[kind]:
                keys = ", ".join(sorted(self._unused[kind]))
                raise InvalidError(f"Value provided in {title} unused in expressions: keys: {{{keys}}}")


_LEGACY = (
    "AttributesToGet", "AttributeUpdates", "Expected", "ConditionalOperator", "KeyConditions", "QueryFilter",
    "ScanFilter",
)  # fmt: skip


def no_legacy_parameters(body: Mapping[str, Any]) -> None:
    """Refuse the parameters that expressions have replaced: the stand-in has only expressions."""
    given = [name for name in _LEGACY if name in body]
    if given:
        raise invalid_parameter(f"The stand-in takes expressions only, not {', '.join(given)}")
