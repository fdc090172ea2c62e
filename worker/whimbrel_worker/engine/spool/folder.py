"""The folder of one shard: whose turn it is to write, which segments count and how far, what was collected.

Whoever wants to write takes the next generation by making its claim file, which only one can. Then it writes the
generation's seal: every earlier segment with the bytes of it that count. A former writer that wakes up later may still
add to a file of its own; that lies beyond the seal, and the writer sees the newer claim before it counts it.
"""

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from whimbrel_worker.engine.shard_ports import BEGINNING, Page, ShardRef
from whimbrel_worker.engine.shards.lineage import number
from whimbrel_worker.engine.spool.frames import BEGIN, PAGE, Frame, damaged, frames
from whimbrel_worker.engine.spool.pages import unpacked
from whimbrel_worker.engine.spool.volume import sync_folder, write_file
from whimbrel_worker.errors import SourceLogLost

_CLAIM, _SEAL, _SEGMENT = ".claim", ".seal", ".seg"
NAMES: Final = "shard.json"
ENDED: Final = "ended"


@dataclass(frozen=True, slots=True)
class Segment:
    """One file. `length`: the bytes of it that count; None while its generation is the newest and it is its last."""

    name: str
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a folder holds: the segments that count, in order, and how far the shard is collected."""

    segments: tuple[Segment, ...] = ()
    collected: str = BEGINNING
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """A segment's own words. `since`: the position after which its generation read the shard. `collected`: the last
    sequence number before this segment. `previous`: the segment of the same generation before it, and its length."""

    since: str
    collected: str
    previous: Segment | None = None

    def payload(self, ref: ShardRef, holder: str) -> bytes:
        """As bytes that a person can read too."""
        before = [self.previous.name, self.previous.length] if self.previous is not None else None
        words = {"since": self.since, "collected": self.collected, "previous": before, "holder": holder}
        return json.dumps({"table": ref.table, "stream": ref.stream, "shard": ref.shard, **words}).encode()

    @classmethod
    def read(cls, payload: bytes) -> "Begin":
        """The same from a frame."""
        words: dict[str, Any] = json.loads(payload)
        before = words["previous"]
        return cls(words["since"], words["collected"], Segment(*before) if before is not None else None)


def claim(folder: Path) -> int:
    """Take the next generation. From here on a former writer is fenced out."""
    generation = max(_generations(folder, _CLAIM), default=0)
    while True:
        generation += 1
        try:
            os.close(os.open(_claim_file(folder, generation), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            continue
        sync_folder(folder)
        return generation


def holds(folder: Path, generation: int) -> bool:
    """Whether nobody has taken a later generation, nor removed the folder."""
    return _claim_file(folder, generation).exists() and not _claim_file(folder, generation + 1).exists()


def seal(folder: Path, generation: int, standing: Standing) -> Standing:
    """Write down what counts of all earlier generations. Returns it."""
    sealed = [[each.name, each.length] for each in standing.segments]
    text = json.dumps({"segments": sealed, "collected": standing.collected, "ended": standing.ended}).encode()
    write_file(folder / f"{generation:08d}{_SEAL}", b"%08x %s\n" % (zlib.crc32(text), text))
    return standing


def segment_name(generation: int, number: int) -> str:
    """Names sort in the order of writing."""
    return f"{generation:08d}-{number:06d}{_SEGMENT}"


def standing(folder: Path) -> Standing:
    """What counts now, every segment with its length. Raises SourceLogLost where it is damaged."""
    sealed, generation = _sealed(folder)
    names = sorted(path.name for path in folder.glob(f"{generation:08d}-*{_SEGMENT}")) if generation else []
    begins = [_begin(folder, Segment(name)) for name in names]
    while begins and begins[-1] is None:
        names.pop()
        begins.pop()
    if not names:
        return sealed
    before = [begin.previous if begin is not None else None for begin in begins[1:]]
    own = [_matching(folder, name, said) for name, said in zip(names, before, strict=False)]
    return _with_last(folder, replace(sealed, segments=(*sealed.segments, *own)), names[-1])


def _with_last(folder: Path, known: Standing, name: str) -> Standing:
    """The same with the newest segment, as far as it is whole."""
    collected, ended, end = known.collected, known.ended, 0
    for found in frames(folder / name):
        end = found.end
        if found.kind == BEGIN:
            collected = Begin.read(found.payload).collected
        elif found.kind == PAGE:
            page = unpacked(found.payload)
            collected = page.changes[-1].sequence if page.changes else collected
            ended = ended or page.ended
    return Standing((*known.segments, Segment(name, end)), collected, ended)


def pages(folder: Path, known: Standing, position: str) -> Iterator[Page]:
    """All pages of what counts after a position, only with what is behind it. Raises SourceLogLost for a gap."""
    at = number(position)
    for segment in known.segments[_first(folder, known, at) :]:
        for found in frames(folder / segment.name, segment.length):
            if found.kind == BEGIN:
                _refuse_gap(folder / segment.name, Begin.read(found.payload), at)
            elif found.kind == PAGE:
                page = unpacked(found.payload)
                fresh = [change for change in page.changes if int(change.sequence) > at]
                at = int(fresh[-1].sequence) if fresh else at
                if fresh or page.ended:
                    yield replace(page, changes=fresh)


def _first(folder: Path, known: Standing, at: int) -> int:
    """The last segment before which nothing stands that is asked for."""
    for index in range(len(known.segments) - 1, 0, -1):
        begin = _begin(folder, known.segments[index])
        if begin is not None and number(begin.collected) <= at:
            return index
    return 0


def _refuse_gap(path: Path, begin: Begin, at: int) -> None:
    if number(begin.since) > at:
        raise SourceLogLost(
            "the changes kept on the spool's volume begin too late",
            where=str(path),
            why=f"needed is every record after {at}, and these were read after {begin.since}",
            todo="see that the claim in spec.stream.spool is the one that the copy was begun with; else empty the "
            "target's table and begin a new migration",
        )


def _begin(folder: Path, segment: Segment) -> Begin | None:
    """A segment's own words; None where not even they were written whole."""
    found: Frame | None = next(frames(folder / segment.name, segment.length), None)
    if found is None:
        return None
    if found.kind != BEGIN:
        raise damaged(folder / segment.name, 0, "a segment does not begin with its own words")
    return Begin.read(found.payload)


def _matching(folder: Path, name: str, said: Segment | None) -> Segment:
    if said is None or said.name != name:
        raise damaged(folder / name, 0, f"the segment behind it says that {said.name if said else 'none'} was before")
    return said


def _sealed(folder: Path) -> tuple[Standing, int]:
    """What the newest seal says, and its generation; 0 where there is none."""
    generation = max(_generations(folder, _SEAL), default=0)
    if not generation:
        return Standing(), 0
    path = folder / f"{generation:08d}{_SEAL}"
    checksum, _, text = path.read_bytes().rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise damaged(path, 0, "its checksum is not that of its text")
    words = json.loads(text)
    segments = tuple(Segment(name, length) for name, length in words["segments"])
    return Standing(segments, words["collected"], words["ended"]), generation


def _generations(folder: Path, suffix: str) -> list[int]:
    return [int(path.stem) for path in folder.glob(f"[0-9]*{suffix}")]


def _claim_file(folder: Path, generation: int) -> Path:
    return folder / f"{generation:08d}{_CLAIM}"
