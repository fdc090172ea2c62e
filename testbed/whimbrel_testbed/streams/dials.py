"""The dials of the stream server and what they count down; who turns them is the control's affair."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from whimbrel_testbed.streams.refusals import Refusal

ITERATOR_SECONDS = 900.0
"""The life of a shard iterator: 15 minutes."""
DESCRIBES_A_SECOND = 10
"""How often a second DescribeStream may be called, where the dial is on."""
READERS = 2
"""How many readers a shard may have at once, where the dial is on."""


@dataclass
class Dials:
    """What may be changed while the server runs; the defaults are a stream without surprises.

    iterator_lifetime: seconds; max_readers, describe_rate: None for no limit; reader_window: seconds after its last
    GetRecords in which a reader counts; delay_new_shards: seconds; listing_seed: None lists shards oldest first.
    """

    iterator_lifetime: float = ITERATOR_SECONDS
    delay_new_shards: float = 0.0
    listing_seed: int | None = None
    initial_shards: int = 1
    max_readers: int | None = None
    reader_window: float = 1.0
    describe_rate: int | None = None
    throttled: Counter[str] = field(default_factory=Counter)
    throttled_as: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    describes: deque[float] = field(default_factory=deque)

    def admit(self, operation: str, now: float) -> None:
        """Let a call (`GetRecords`, `kinesis:GetRecords`) pass, or raise the Refusal that is its turn."""
        if operation in self.refused:
            action = operation if ":" in operation else f"dynamodb:{operation}"
            raise Refusal(
                "AccessDeniedException",
                f"User: test-bed is not authorized to perform: {action} because a dial refuses it",
            )
        if self.throttled[operation] > 0:
            self.throttled[operation] -= 1
            raise Refusal(self.throttled_as[operation], "Rate exceeded: a dial throttles this operation")
        if operation == "DescribeStream" and self.describe_rate is not None:
            self._admit_describe(self.describe_rate, now)

    def _admit_describe(self, rate: int, now: float) -> None:
        while self.describes and self.describes[0] <= now - 1:
            self.describes.popleft()
        if len(self.describes) >= rate:
            raise Refusal("ThrottlingException", f"Rate exceeded: DescribeStream may be called {rate} times a second")
        self.describes.append(now)
