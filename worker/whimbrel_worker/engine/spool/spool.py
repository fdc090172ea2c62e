"""The changes that one migration keeps on a volume: a folder a shard, read again without the source."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from whimbrel_worker.engine.shard_ports import Holder, ItemChange, Page, ShardRef
from whimbrel_worker.engine.spool import folder as folders
from whimbrel_worker.engine.spool.pages import size_of as changes_size
from whimbrel_worker.engine.spool.volume import Volume, make_folder, size_of, sync_folder
from whimbrel_worker.engine.spool.writer import Writer

_PAGE_CHANGES: Final = 1000
_PAGE_BYTES: Final = 1 << 20
"""A page given out again is about as large as one of DynamoDB's, however small those were that came."""
_NAME_DIGITS: Final = 32
SEGMENT_BYTES: Final = 8 << 20
"""A segment of this size is followed by another one."""


def open_spool(volume: Path, name: str, migration: str, start: str) -> "Spool":
    """The folder of one migration on a volume. `start`: where it began, so that one made anew finds nothing old.

    `name` is what a person knows the volume by. Raises ConfigurationError where it cannot be used.
    """
    digest = hashlib.sha256(f"{migration}\n{start}".encode()).hexdigest()[:12]
    spool = Spool(volume / f"{migration.replace('/', '_')}-{digest}", name)
    with spool.volume.guarded(spool.folder):
        if not volume.is_dir():
            raise FileNotFoundError(2, "it is not mounted", str(volume))
        make_folder(spool.folder)
    return spool


@dataclass(slots=True)
class Spool:
    """Safe from any thread; one writer a shard, over all processes that share the volume."""

    folder: Path
    name: str = ""
    segment_bytes: int = SEGMENT_BYTES
    volume: Volume = field(init=False)
    _ended: set[ShardRef] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.volume = Volume(self.folder, self.name or str(self.folder))

    def writer(self, ref: ShardRef, since: str, holder: Holder) -> Writer:
        """Take a shard to keep its changes, those after `since` or after what is there. A former writer is out."""
        said = f"stream worker {holder.index}, attempt {holder.attempt}"
        return Writer(self.volume, self.folder_of(ref), ref, since=since, holder=said, segment_bytes=self.segment_bytes)

    def collected_to(self, ref: ShardRef) -> str:
        """The last sequence number that is kept; BEGINNING for none. Raises SourceLogLost for damage."""
        return self._standing(ref).collected

    def ended(self, ref: ShardRef) -> bool:
        """Whether the shard is kept to its end. Cheap while it is not."""
        if ref not in self._ended:
            with self.volume.guarded(self.folder):
                told = (self.folder_of(ref) / folders.ENDED).exists()
            if told and self._standing(ref).ended:
                self._ended.add(ref)
        return ref in self._ended

    def pages_after(self, ref: ShardRef, position: str) -> Iterator[Page]:
        """What is kept of a shard after a position, in order, small pages joined. Raises SourceLogLost for damage."""
        with self.volume.guarded(self.folder_of(ref)):
            yield from _joined(folders.pages(self.folder_of(ref), self._standing(ref), position))

    def drop(self, ref: ShardRef) -> None:
        """Remove what is kept of a shard: all of it is in the target, and the control table says so."""
        path = self.folder_of(ref)
        with self.volume.guarded(path):
            if path.exists():
                shutil.rmtree(path)
                sync_folder(self.folder)

    def bytes_kept(self) -> int:
        """How much the migration's folder holds."""
        return size_of(self.folder)

    def folder_of(self, ref: ShardRef) -> Path:
        """A digest of stream and shard; the names stand in a file inside."""
        digest = hashlib.sha256(f"{ref.stream}\n{ref.shard}".encode()).hexdigest()
        return self.folder / digest[:_NAME_DIGITS]

    def _standing(self, ref: ShardRef) -> folders.Standing:
        with self.volume.guarded(self.folder_of(ref)):
            return folders.standing(self.folder_of(ref))


def _joined(pages: Iterator[Page]) -> Iterator[Page]:
    held: list[ItemChange] = []
    size, last = 0, None
    for page in pages:
        if held and (len(held) + len(page.changes) > _PAGE_CHANGES or size > _PAGE_BYTES) and last is not None:
            yield replace(last, changes=held)
            held, size = [], 0
        held += page.changes
        size += changes_size(page.changes)
        last = page
    if last is not None:
        yield replace(last, changes=held)
