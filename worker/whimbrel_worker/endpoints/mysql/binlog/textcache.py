"""A bounded cache from a packed value to its text, filled on a miss. What the texts are, others say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

LIMIT: Final = 1 << 17
"""Entries, more than a day has seconds; a full cache starts anew, which costs less than to know what was used last."""

K = TypeVar("K")
V = TypeVar("V")


class TextCache(dict[K, V], Generic[K, V]):
    """``cache[packed]`` is the text: one look-up in C on a hit, one call of ``make`` on a miss."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, packed: K) -> V:
        text = self._make(packed)
        if len(self) >= LIMIT:
            self.clear()
        self[packed] = text
        return text
