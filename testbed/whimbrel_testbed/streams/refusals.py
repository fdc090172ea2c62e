"""What the stream server refuses, as DynamoDB Streams words it; when it does so is the affair of others.

The types are those of the service's API. Texts are those of DynamoDB Local where it has one, and ours otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

_VALIDATION_PREFIX = "com.amazon.coral.validate#"
_PREFIX = "com.amazonaws.dynamodb.v20120810#"


@dataclass
class Refusal(Exception):
    """The answer is an error of this type (its short name) with this text, HTTP 400."""

    kind: str
    text: str

    def as_json(self) -> dict[str, str]:
        """The body of the answer."""
        prefix = _VALIDATION_PREFIX if self.kind == "ValidationException" else _PREFIX
        return {"__type": prefix + self.kind, "message": self.text}


def no_stream(arn: str) -> Refusal:
    """There is no stream of this ARN."""
    return Refusal("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")


def no_shard(shard_id: str, arn: str) -> Refusal:
    """The stream has no such shard, or has it no more."""
    text = f"Requested resource not found: Shard: {shard_id} in Stream: {arn} not found"
    return Refusal("ResourceNotFoundException", text)


def trimmed() -> Refusal:
    """What is asked for is older than the oldest record that is kept."""
    text = "The operation attempted to read past the oldest stream record in a shard."
    return Refusal("TrimmedDataAccessException", text)


def expired() -> Refusal:
    """The iterator is older than its life."""
    text = "Iterator expired. The iterator was created at an earlier time than its lifetime allows."
    return Refusal("ExpiredIteratorException", text)


def invalid(text: str) -> Refusal:
    """A parameter makes no sense."""
    return Refusal("ValidationException", text)


def out_of_range(name: str, highest: int) -> Refusal:
    """A limit is not between 1 and the highest there is."""
    return invalid(f"One or more parameter values were invalid: {name} must be between 1 and {highest}")
