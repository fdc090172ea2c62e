"""What the stand-in answers where it refuses: DynamoDB's error types with their HTTP status, and the texts in use."""

from __future__ import annotations

from typing import Any

_DYNAMODB = "com.amazonaws.dynamodb.v20120810#"
_CORAL = "com.amazon.coral.service#"
_VALIDATE = "com.amazon.coral.validate#"
_PREFIXES = {
    "ValidationException": _VALIDATE, "SerializationException": _CORAL, "UnknownOperationException": _CORAL,
    "UnrecognizedClientException": _CORAL, "InvalidSignatureException": _CORAL, "AccessDeniedException": _CORAL,
    "IncompleteSignatureException": _CORAL, "MissingAuthenticationTokenException": _CORAL,
    "InternalFailure": _CORAL, "ThrottlingException": _CORAL,
}  # fmt: skip


class RefusedError(Exception):
    """A call that ends with an error answer: DynamoDB's error `kind`, a message, further members of the answer."""

    def __init__(self, kind: str, message: str, *, status: int = 400, members: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.status, self.members = kind, message, status, members or {}

    def answer(self) -> dict[str, Any]:
        """Return the answer's body."""
        named = "Message" if self.kind == "TransactionCanceledException" else "message"
        return {"__type": _PREFIXES.get(self.kind, _DYNAMODB) + self.kind, named: self.message, **self.members}


class InvalidError(RefusedError):
    """A ValidationException."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class ConditionFailedError(RefusedError):
    """A condition that does not hold; `item`: what stands there (ReturnValuesOnConditionCheckFailure)."""

    def __init__(self, item: dict[str, Any] | None = None) -> None:
        members = {"Item": item} if item else {}
        super().__init__("ConditionalCheckFailedException", "The conditional request failed", members=members)


def invalid_parameter(what: str) -> InvalidError:
    """Refuse with the opening words most of DynamoDB's validation texts have."""
    return InvalidError(f"One or more parameter values were invalid: {what}")


def table_not_found(name: str) -> RefusedError:
    """Refuse a call about a table that is not there."""
    return RefusedError("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")


def item_not_json(detail: str) -> RefusedError:
    """Refuse a body that cannot be read."""
    return RefusedError("SerializationException", detail)
