"""Pages of changes as bytes and back, so that reading them needs no source. Framing and files stand elsewhere.

A payload is compressed by zlib at its lowest level, the only fast one that Python 3.11 to 3.14 have in common.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from whimbrel_worker.engine.shard_ports import ItemChange, Page
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.values.columns import Row

_LEVEL: Final = 1
_PAGE: Final = struct.Struct(">dBI")
_CHANGE: Final = struct.Struct(">dBHHH")
_LENGTH: Final = struct.Struct(">I")
_AFTER, _TTL = 1, 2


def packed(page: Page) -> bytes:
    """A page as bytes. Raises WorkerError for a change whose cells are not bytes."""
    parts = [_PAGE.pack(page.asked_at, page.ended, len(page.changes))]
    for change in page.changes:
        parts += _parts(change)
    return zlib.compress(b"".join(parts), _LEVEL)


def _parts(change: ItemChange) -> list[bytes]:
    key, after = change.key, change.after or ()
    beside = after[len(key) :]
    if change.after is not None and tuple(after[: len(key)]) != tuple(key):
        raise _unfit(change)
    flags = (_AFTER if change.after is not None else 0) | (_TTL if change.by_ttl else 0)
    sequence = change.sequence.encode()
    parts = [_CHANGE.pack(change.at, flags, len(sequence), len(key), len(beside)), sequence]
    for cell in (*key, *beside):
        if not isinstance(cell, bytes):
            raise _unfit(change)
        parts += [_LENGTH.pack(len(cell)), cell]
    return parts


def unpacked(payload: bytes) -> Page:
    """The page that was packed."""
    data = zlib.decompress(payload)
    asked_at, ended, count = _PAGE.unpack_from(data)
    at, changes = _PAGE.size, []
    for _ in range(count):
        change, at = _change(data, at)
        changes.append(change)
    return Page(changes, asked_at, bool(ended))


def _change(data: bytes, at: int) -> tuple[ItemChange, int]:
    moment, flags, sequence_bytes, keys, beside = _CHANGE.unpack_from(data, at)
    at += _CHANGE.size
    sequence, at = data[at : at + sequence_bytes].decode(), at + sequence_bytes
    key, at = _cells(data, at, keys)
    rest, at = _cells(data, at, beside)
    after: Row | None = (*key, *rest) if flags & _AFTER else None
    return ItemChange(sequence, key, after, moment, bool(flags & _TTL)), at


def _cells(data: bytes, at: int, count: int) -> tuple[tuple[bytes, ...], int]:
    cells = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        cells.append(data[at : at + length])
        at += length
    return tuple(cells), at


def size_of(changes: Sequence[ItemChange]) -> int:
    """About how many bytes these changes hold."""
    return sum(len(change.after[-1]) for change in changes if change.after and isinstance(change.after[-1], bytes))


def _unfit(change: ItemChange) -> WorkerError:
    return WorkerError(
        "a change cannot be kept on the spool's volume",
        where=f"sequence {change.sequence}",
        why="its row does not begin with its key, or a cell is no JSON text",
        todo="report this: only rows of item tables are kept",
    )
