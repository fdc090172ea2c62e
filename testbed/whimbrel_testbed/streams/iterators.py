"""Shard iterators as texts: what one points at, and since when; whether it still serves is decided elsewhere."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import astuple, dataclass

from whimbrel_testbed.streams.refusals import Refusal, invalid


@dataclass(frozen=True)
class ShardIterator:
    """Points at the first record whose number is at least `position`.

    `issued`: Unix seconds; `generation`: how often all iterators had been expired by then; `reader`: whose iterator it
    is, handed on from page to page.
    """

    arn: str
    shard_id: str
    position: int
    issued: float
    generation: int
    reader: str

    def text(self) -> str:
        """The iterator as the service hands it out."""
        _, *rest = astuple(self)
        return f"{self.arn}|1|{base64.b64encode(json.dumps(rest).encode()).decode()}"


def iterator_of(text: str) -> ShardIterator:
    """Read what `text()` wrote; a Refusal (ValidationException) where it is something else."""
    arn, _, rest = text.partition("|1|")
    try:
        shard_id, position, issued, generation, reader = json.loads(base64.b64decode(rest, validate=True))
        return ShardIterator(arn, str(shard_id), int(position), float(issued), int(generation), str(reader))
    except (ValueError, TypeError, binascii.Error) as error:
        raise _not_one() from error


def _not_one() -> Refusal:
    return invalid("Invalid ShardIterator")
