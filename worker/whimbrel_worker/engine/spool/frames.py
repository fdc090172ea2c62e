"""Frames in a segment file: each proves by itself that it is whole and at its place. What they hold stands in pages.

A frame is a head (mark, kind, its own offset, length, checksum of the payload, checksum of the head) and a payload.
Every frame is on the disk before the next one is begun, so a crash can tear the last one only: a bad frame with nothing
good behind it is a torn tail, and one with a good frame behind it is damage, which is never passed over.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from whimbrel_worker.errors import SourceLogLost

_MARK: Final = b"WSP1"
_HEAD: Final = struct.Struct(">4sBQII")
_CHECKSUM: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size
BEGIN, PAGE, CLOSE = 1, 2, 3
"""A segment's own words, one page of changes, and the end of a segment that was closed in order."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame; `end` is the offset behind it."""

    kind: int
    payload: bytes
    end: int


def frame(kind: int, payload: bytes, offset: int) -> bytes:
    """The bytes of a frame that will stand at this offset."""
    head = _HEAD.pack(_MARK, kind, offset, len(payload), zlib.crc32(payload))
    return head + _CHECKSUM.pack(zlib.crc32(head)) + payload


def frames(path: Path, limit: int | None = None) -> Iterator[Frame]:
    """The frames of a segment, whole ones only. `limit`: how many bytes count, all of them whole; None: not known.

    Without a limit the file may end in a torn frame. Raises SourceLogLost for damage, with file and offset.
    """
    with path.open("rb") as file:
        offset = 0
        while limit is None or offset < limit:
            found = _read(file, offset)
            if found is None:
                _judge(file, path, offset, limit)
                return
            yield found
            offset = found.end
        if offset != limit:
            raise damaged(path, offset, f"a frame goes beyond the {limit} bytes that were sealed")


def _read(file: BinaryIO, offset: int) -> Frame | None:
    """The whole frame at this offset, or None."""
    file.seek(offset)
    head = file.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES or _CHECKSUM.unpack_from(head, _HEAD.size)[0] != zlib.crc32(head[: _HEAD.size]):
        return None
    mark, kind, place, length, checksum = _HEAD.unpack_from(head)
    payload = file.read(length) if mark == _MARK and place == offset else b""
    if mark != _MARK or place != offset or len(payload) != length or zlib.crc32(payload) != checksum:
        return None
    return Frame(kind, payload, offset + HEAD_BYTES + length)


def _judge(file: BinaryIO, path: Path, offset: int, limit: int | None) -> None:
    """Nothing more where a tail was torn; raise where something good stands behind, or should."""
    file.seek(0, 2)
    size = file.tell()
    if limit is not None:
        raise damaged(path, offset, f"{limit} bytes were written whole, {size} are there, and this frame is not whole")
    file.seek(offset)
    rest = file.read()
    at = rest.find(_MARK, 1)
    while at >= 0:
        if _read(file, offset + at) is not None:
            raise damaged(path, offset, f"this frame is not whole, and the one at {offset + at} behind it is")
        at = rest.find(_MARK, at + 1)


def damaged(path: Path, offset: int, why: str) -> SourceLogLost:
    """The changes kept on the volume cannot be read any more."""
    return SourceLogLost(
        "the changes kept on the spool's volume are damaged",
        where=f"{path}, byte {offset:,}",
        why=why,
        todo="restore the file from a backup of the volume if there is one (its first line names the shard); else "
        "empty the target's table and begin a new migration: nothing is passed over",
    )
