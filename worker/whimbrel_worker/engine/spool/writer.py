"""Adds pages to one shard's folder, each on the disk before it counts. What counts stands in folder."""

import logging
import os
from pathlib import Path

from whimbrel_worker.engine.shard_ports import Page, ShardRef
from whimbrel_worker.engine.shards.lineage import number
from whimbrel_worker.engine.spool.folder import ENDED, NAMES, Begin, Segment, claim, holds, seal, segment_name, standing
from whimbrel_worker.engine.spool.frames import BEGIN, CLOSE, PAGE, frame
from whimbrel_worker.engine.spool.pages import packed
from whimbrel_worker.engine.spool.volume import Volume, make_folder, sync_folder, write_file
from whimbrel_worker.errors import FencedOut, WorkerError

_LOG = logging.getLogger(__name__)


class Writer:
    """The one that may write. `position`: the shard is to be read on after it. One thread at a time.

    `holder` is told in the files, for a reader of them. Raises ConfigurationError where the volume is full or cannot be
    used, SourceLogLost where what it holds is damaged, FencedOut once another writer has taken the shard.
    """

    def __init__(
        self, volume: Volume, folder: Path, ref: ShardRef, *, since: str, holder: str, segment_bytes: int
    ) -> None:
        self._volume, self._folder, self._ref, self._holder = volume, folder, ref, holder
        self._segment_bytes = segment_bytes
        self._handle, self._size, self._segments = -1, 0, 0
        self._broken = False
        with volume.guarded(folder):
            make_folder(folder)
            if not (folder / NAMES).exists():
                write_file(folder / NAMES, Begin(since, "").payload(ref, holder) + b"\n")
            self._generation = claim(folder)
            known = seal(folder, self._generation, standing(folder))
        self.collected, self.ended = known.collected, known.ended
        self.position = since if number(since) > number(known.collected) else known.collected
        self._since = self.position

    def append(self, page: Page) -> None:
        """Keep a page: it is on the disk when this returns, and it counts."""
        if self._broken or self.ended:
            raise WorkerError("a writer was used again that had failed or ended", where=str(self._folder))
        self._broken = True
        with self._volume.guarded(self._folder):
            if self._handle < 0 or self._size >= self._segment_bytes:
                self._begin_segment()
            self._write(PAGE, packed(page))
            self._require_hold()
            if page.ended:
                self._write(CLOSE, b"")
                write_file(self._folder / ENDED, b"%d\n" % self._generation)
        self.collected = page.changes[-1].sequence if page.changes else self.collected
        self.ended, self._broken = page.ended, False

    def close(self) -> None:
        """Say that the newest segment is whole, so that damage in its last frame is told from a torn one."""
        handle, self._handle = self._handle, -1
        if handle < 0:
            return
        try:
            if not self._broken and not self.ended and holds(self._folder, self._generation):
                self._put(handle, frame(CLOSE, b"", self._size))
            os.close(handle)
        except OSError as error:
            _LOG.warning("%s was not closed in order, which loses nothing: %s", self._folder, error.strerror)
        self._broken = True

    def _begin_segment(self) -> None:
        before = Segment(segment_name(self._generation, self._segments), self._size) if self._segments else None
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._segments += 1
        name = segment_name(self._generation, self._segments)
        self._handle = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._size = 0
        self._write(BEGIN, Begin(self._since, self.collected, before).payload(self._ref, self._holder))
        sync_folder(self._folder)

    def _write(self, kind: int, payload: bytes) -> None:
        self._put(self._handle, frame(kind, payload, self._size))

    def _put(self, handle: int, content: bytes) -> None:
        """All of it, durable; a part of it is a torn tail."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
        self._size += len(content)

    def _require_hold(self) -> None:
        if not holds(self._folder, self._generation):
            raise FencedOut(
                "another worker keeps this shard's changes now",
                where=f"{self._ref.table}, shard {self._ref.shard}",
                why=f"{self._folder} has a later writer than number {self._generation}",
                todo="nothing: it goes on from the last page that counted",
            )
