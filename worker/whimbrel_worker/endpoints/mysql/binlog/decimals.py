"""MySQL's packed DECIMAL to the text that SELECT prints, by integer arithmetic: an expression for each shape. Pure.

Format: MySQL internals documentation, "DECIMAL data type": big-endian groups of nine digits in four bytes, shorter
groups at both ends, the first bit inverted, all bits inverted when negative.
"""

from __future__ import annotations

from typing import Any

_BYTES_OF_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def _groups(digits: int, *, short_first: bool) -> list[int]:
    """The digits of each group, first to last."""
    groups = [digits % 9, *[9] * (digits // 9)] if short_first else [*[9] * (digits // 9), digits % 9]
    return [size for size in groups if size]


def decimal_bytes(precision: int, scale: int) -> int:
    """How many bytes a DECIMAL(precision, scale) takes."""
    groups = _groups(precision - scale, short_first=True) + _groups(scale, short_first=False)
    return sum(_BYTES_OF_DIGITS[digits] for digits in groups)


def decimal_expression(precision: int, scale: int) -> tuple[str, tuple[Any, ...]]:
    """A template and its constants: ``{0}`` is the packed bytes, ``v`` becomes its magnitude, the value is the text."""
    sign = 1 << (8 * decimal_bytes(precision, scale) - 1)
    pattern = b"%%d.%%0%dd" % scale if scale else b"%d"
    parts = [_sum(_groups(precision - scale, short_first=True), decimal_bytes(scale, scale))]
    if scale:
        parts.append(_sum(_groups(scale, short_first=False), 0))
    # All bits are inverted in a negative number: its magnitude is the complement, taken where v is read first.
    numbers = ", ".join(parts).replace("v", "(v := v if v >= 0 else ~v)", 1)
    template = f"({{k0}} if (v := {{k2}}({{0}}) - {sign}) >= 0 else {{k1}}) % ({numbers})"
    return template, (pattern, b"-" + pattern, int.from_bytes)


def _sum(groups: list[int], bytes_below: int) -> str:
    """The number that these groups of digits of ``v`` make, as an expression."""
    terms, shift, power = [], 8 * bytes_below, 0
    for digits in reversed(groups):
        bits = 8 * _BYTES_OF_DIGITS[digits]
        group = f"(v >> {shift} & {(1 << bits) - 1})" if shift else f"(v & {(1 << bits) - 1})"
        terms.append(f"{group} * {10**power}" if power else group)
        shift, power = shift + bits, power + digits
    return " + ".join(reversed(terms)) or "0"
