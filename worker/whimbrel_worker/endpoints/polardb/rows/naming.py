"""How DynamoDB tables are called on the server, by one configured rule. Pure.

PolarDB does not publish it, so it is configuration; the default is the table's own name in schema public.
"""

from dataclasses import dataclass
from typing import Final

from whimbrel_worker.errors import ConfigurationError

DEFAULT_RULE: Final = "public.{table}"
_PLACE: Final = "{table}"


@dataclass(frozen=True, slots=True)
class TableRule:
    """How a DynamoDB table is called on the server: `schema.prefix{table}suffix`; the schema is public without one."""

    schema: str
    prefix: str
    suffix: str

    def table(self, schema: str, name: str) -> str | None:
        """The DynamoDB table that is called so on the server; None for what the rule does not fit."""
        long_enough = len(name) > len(self.prefix) + len(self.suffix)
        if schema != self.schema or not long_enough or not name.startswith(self.prefix):
            return None
        return name[len(self.prefix) : len(name) - len(self.suffix)] if name.endswith(self.suffix) else None

    def server_name(self, table: str) -> tuple[str, str]:
        """Schema and name on the server of a DynamoDB table."""
        return self.schema, f"{self.prefix}{table}{self.suffix}"


def parse_rule(text: str) -> TableRule:
    """The rule that `spec.layout.tableRule` says; empty is the default. Raises ConfigurationError."""
    whole = text or DEFAULT_RULE
    head, found, suffix = whole.partition(_PLACE)
    schema, dot, prefix = head.rpartition(".")
    if not found or _PLACE in suffix or (dot and not schema) or "." in schema:
        raise ConfigurationError(
            "the rule for table names cannot be read",
            where="spec.layout.tableRule",
            why=f"{text!r} is not of the form schema.prefix{_PLACE}suffix",
            todo=f"give one with {_PLACE} in it once, such as {DEFAULT_RULE} or app.ddb_{_PLACE}",
        )
    return TableRule(schema or "public", prefix, suffix)
