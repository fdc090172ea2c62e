"""Where a DynamoDB Local keeps its SQLite database, and the indexes that keep its streams fast.

It looks for the records of a shard and of a stream in a table that has no index for them, so that each write to a table
with a stream takes longer with every record that any stream ever had. A database in a file can be given those indexes
from outside; one in the server's own memory cannot. Only a file system in memory makes a file as fast as that, because
a write to disk is waited for. How the server is started is not said here.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from whimbrel_testbed.cache import TestbedError

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108
ROOM_BYTES: Final = 1 << 30
"""Free bytes that are asked of a file system in memory. Containers often have 64 MiB there, which a test run fills."""
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
_FILE: Final = "shared-local-instance.db"
"""The name that the server gives to the one database for all keys and regions."""
_INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS whimbrel_shard ON us(ShardID, SequenceNumber)",
    "CREATE INDEX IF NOT EXISTS whimbrel_stream ON us(StreamID, SequenceNumber)",
)
_LOCK_SECONDS: Final = 10.0


def memory_directory(place: Path = SHARED_MEMORY, room: int = ROOM_BYTES) -> Path | None:
    """Return `place` where it is in memory, may be written to and has `room` bytes free; else None."""
    try:
        free = os.statvfs(place)
        kind = file_system(place, Path("/proc/self/mounts").read_text(encoding="utf-8"))
    except OSError:
        return None
    fits = kind in _MEMORY_FILE_SYSTEMS and free.f_bavail * free.f_frsize >= room
    return place if fits and os.access(place, os.W_OK | os.X_OK) else None


def file_system(place: Path, mounts: str) -> str:
    """Return the type of the file system that holds a path, by the lines of /proc/self/mounts (proc(5)); "" if none."""
    held = [line.split(" ") for line in mounts.splitlines()]
    # The later of two mounts on one point hides the earlier one, hence the `reversed`; `max` takes the first of equals.
    over = [(fields[1], fields[2]) for fields in reversed(held) if place.is_relative_to(fields[1])]
    return max(over, key=lambda mount: len(mount[0]), default=("", ""))[1]


def remove_database(directory: Path) -> None:
    """Remove a stopped server's database with its journal, so that the next start finds none."""
    for path in directory.glob(f"{_FILE}*"):
        path.unlink()


def index_streams(directory: Path) -> None:
    """Give the stream records of a server that has answered a call their indexes, unless they have them.

    Raises TestbedError where the database is not as this release's is.
    """
    try:
        with closing(sqlite3.connect(f"file:{directory / _FILE}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as database:
            for statement in _INDEXES:
                database.execute(statement)
    except sqlite3.Error as error:
        raise TestbedError(
            f"DynamoDB Local's database in {directory} takes no indexes for its stream records ({error}). Another "
            "release than the pinned one may have other tables: adapt whimbrel_testbed/dynamodb/database.py to it."
        ) from error
