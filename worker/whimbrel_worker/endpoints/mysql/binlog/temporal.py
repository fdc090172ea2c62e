"""MySQL's packed dates and times (the formats of 5.6 and later) to the text that SELECT prints. Pure.

Formats: MySQL internals documentation, "Date and Time Data Type Representation". TIMESTAMP comes out in UTC. Each
value is put together from pieces that repeat (the day, the time of day): caches stay small even when no value repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from whimbrel_worker.endpoints.mysql.binlog.textcache import TextCache

HalfDay: TypeAlias = tuple[bytes, TextCache[int, bytes]]
"""A day's text with a space behind it, and the times of its hours 0 to 15 or 16 to 31."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZERO_DATETIME = b"0000-00-00 00:00:00"
TIME_ZERO = 1 << 23
"""What stands for 00:00:00 in a TIME's three bytes."""


def fraction_bytes(digits: int) -> int:
    """How many bytes a fraction of 0 to 6 digits takes."""
    return (digits + 1) // 2


def date_text(raw: bytes) -> bytes:
    """Three bytes, little-endian: year, four bits of month, five bits of day."""
    value = int.from_bytes(raw, "little")
    return b"%04d-%02d-%02d" % (value >> 9, value >> 5 & 15, value & 31)


def _times_of_half_day(first_hour: int) -> TextCache[int, bytes]:
    """By the last two of a DATETIME's bytes, read little-endian: four bits of hour, six of minute, six of second."""

    def text(swapped: int) -> bytes:
        clock = (swapped & 0xFF) << 8 | swapped >> 8
        return b"%02d:%02d:%02d" % (first_hour + (clock >> 12), clock >> 6 & 63, clock & 63)

    return TextCache(text)


_HALVES = (_times_of_half_day(0), _times_of_half_day(16))


def _half_day(raw: bytes) -> HalfDay:
    """By the first three of a DATETIME's bytes, big-endian: sign, year and month by 13, day, top bit of hour."""
    packed = int.from_bytes(raw) & 0x7FFFFF
    year, month = divmod(packed >> 6, 13)
    return b"%04d-%02d-%02d " % (year, month, packed >> 1 & 31), _HALVES[packed & 1]


def _epoch_day(day: int) -> bytes:
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d ").encode()


def fraction_text(digits: int) -> Callable[[bytes], bytes]:
    """A function from a fraction's bytes to a point and that many digits."""
    pattern, unit = b".%%0%dd" % digits, 10 ** (2 * fraction_bytes(digits) - digits)
    return lambda raw: pattern % (int.from_bytes(raw) // unit)


def time_text(digits: int) -> Callable[[bytes], bytes]:
    """A function from a TIME's bytes (three, and those of its fraction) to text.

    All bytes together are one offset binary number: hour, minute, second and fraction of its absolute value.
    """
    size = fraction_bytes(digits)
    bits, unit = 8 * size, 10 ** (2 * size - digits)
    fraction = b".%%0%dd" % digits

    def text(raw: bytes) -> bytes:
        value = int.from_bytes(raw) - (TIME_ZERO << bits)
        size = abs(value)
        sign, clock = b"-" if value < 0 else b"", size >> bits
        result = sign + HOURS[clock >> 12] + MINUTE_SECOND[clock & 0xFFF]
        return result + fraction % ((size & ((1 << bits) - 1)) // unit) if digits else result

    return text


HOURS = tuple(b"%02d:" % hour for hour in range(1 << 10))
MINUTE_SECOND = tuple(b"%02d:%02d" % (n >> 6, n & 63) for n in range(1 << 12))
"""By six bits of minute and six bits of second."""
DATES = TextCache(date_text)
HALF_DAYS = TextCache(_half_day)
EPOCH_DAYS = TextCache(_epoch_day)
TIMES_OF_DAY: TextCache[int, bytes] = TextCache(lambda n: b"%02d:%02d:%02d" % (n // 3600, n // 60 % 60, n % 60))
FRACTIONS = tuple(TextCache(fraction_text(digits)) for digits in range(7))
YEARS = (0, *range(1901, 2156))
"""By the stored byte."""
