"""MySQL character sets to UTF-8. Which column has which set, the table map says."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import cache
from typing import Final

BINARY: Final = "binary"
UTF8: Final = frozenset({"utf8", "utf8mb3", "utf8mb4", "ascii"})
"""Sets whose bytes are UTF-8 as they stand."""

_SINGLE_BYTE: Final = {
    "cp1250": "cp1250", "cp1251": "cp1251", "cp1256": "cp1256", "cp1257": "cp1257", "cp850": "cp850", "cp852": "cp852",
    "cp866": "cp866", "greek": "iso8859_7", "hebrew": "iso8859_8", "koi8r": "koi8_r", "koi8u": "koi8_u",
    "latin1": "cp1252", "latin2": "iso8859_2", "latin5": "iso8859_9", "latin7": "iso8859_13", "macce": "mac_latin2",
    "macroman": "mac_roman", "tis620": "tis_620",
}  # fmt: skip
_MULTI_BYTE: Final = {
    "ucs2": "utf_16_be", "utf16": "utf_16_be", "utf16le": "utf_16_le", "utf32": "utf_32_be", "gbk": "gbk",
    "gb2312": "gb2312", "cp932": "cp932", "euckr": "euc_kr",
}  # fmt: skip
SUPPORTED: Final = frozenset({*_SINGLE_BYTE, *_MULTI_BYTE})
"""Converted as the server does, which a test compares code by code."""

_UNASSIGNED: Final = "\ufffe"
"""What stands for no character in a table of codecs.charmap_decode."""
_DIFFERENCES: Final[dict[str, dict[int, str]]] = {
    "latin1": {code: chr(code) for code in (0x81, 0x8D, 0x8F, 0x90, 0x9D)},
    "cp866": {0xFC: "\u207f", 0xFD: "\u00b2"},
    "greek": {0xA1: "\u02bd", 0xA2: "\u02bc", **dict.fromkeys((0xA4, 0xA5, 0xAA), _UNASSIGNED)},
    "hebrew": {0xAF: "\u203e"},
    "koi8u": {0x95: "\u2022"},
    "cp1256": dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), _UNASSIGNED),
}
"""Where MySQL's set is not Python's codec."""


def _table(charset: str) -> str:
    """The character of each byte."""
    codec, differences = _SINGLE_BYTE[charset], _DIFFERENCES.get(charset, {})
    usual = (bytes([byte]).decode(codec, "replace").replace("\ufffd", _UNASSIGNED) for byte in range(256))
    return "".join(differences.get(byte, character) for byte, character in enumerate(usual))


@cache
def transcoder(charset: str) -> Callable[[bytes], bytes] | None:
    """A function from the set's bytes to UTF-8; None when the set is not known here.

    The function raises UnicodeDecodeError for bytes that the set does not assign.
    """
    if charset in UTF8 or charset == BINARY:
        return bytes
    if charset in _SINGLE_BYTE:
        table = _table(charset)
        return lambda raw: codecs.charmap_decode(raw, "strict", table)[0].encode()
    codec = _MULTI_BYTE.get(charset)
    return (lambda raw: raw.decode(codec).encode()) if codec else None
