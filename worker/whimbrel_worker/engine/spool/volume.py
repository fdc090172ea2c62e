"""The volume: files that are on the disk when a call returns, and what its failures mean. No format here."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whimbrel_worker.errors import ConfigurationError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_FOLDER_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)
"""Some network file systems write folders through and refuse to be asked for it."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """`name`: what a person knows it by. `folder`: where this migration's changes lie on it."""

    folder: Path
    name: str

    @contextlib.contextmanager
    def guarded(self, path: Path) -> Iterator[None]:
        """Turn the operating system's refusals into what a person must do. Raises ConfigurationError."""
        try:
            yield
        except OSError as error:
            raise self._full(path) if error.errno in _FULL else self._unusable(path, error) from error

    def _full(self, path: Path) -> ConfigurationError:
        return ConfigurationError(
            f"the spool's volume is full: {self.name}",
            where=str(path),
            why=self._figures(),
            todo=f"make the volume larger (kubectl patch pvc {self.name} where its storage class allows it) or remove "
            "what else lies on it; reading goes on where it stopped, if the streams still hold what follows: they keep "
            "24 hours",
        )

    def _figures(self) -> str:
        try:
            usage, own = shutil.disk_usage(self.folder), size_of(self.folder)
        except OSError as error:
            return f"its size cannot be read: {error.strerror}"
        return (
            f"it holds {usage.total / _MIB:,.0f} MiB, {usage.free / _MIB:,.0f} MiB are free, and this migration's "
            f"changes take {own / _MIB:,.1f} MiB"
        )

    def _unusable(self, path: Path, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"the spool's volume cannot be used: {self.name}",
            where=str(path),
            why=error.strerror or type(error).__name__,
            todo="see that the volume is mounted, writable by user and group 65532, and shared by all stream workers "
            "(ReadWriteMany) where there is more than one",
        )


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what goes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def sync_folder(folder: Path) -> None:
    """Names made or removed in a folder stay so after a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """The folder and its parents, durable."""
    for missing in [each for each in (*reversed(folder.parents), folder) if not each.exists()]:
        missing.mkdir(exist_ok=True)
        sync_folder(missing.parent)


def write_file(path: Path, content: bytes) -> None:
    """A small file as a whole or not at all, durable."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)
