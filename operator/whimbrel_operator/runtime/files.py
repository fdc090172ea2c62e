"""Small files written whole or not at all, and locks on them. What they mean stands in store and instances."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from whimbrel_operator.errors import StateUnreadable

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def make_folder(path: Path) -> Path:
    """A folder that only its owner may enter; so are the parents that are made on the way."""
    for missing in reversed([each for each in path.parents if not each.exists()]):
        missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once; a reader sees the old content or the new one. Mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON text."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False).encode())


def read_json(path: Path, todo: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file. Raises StateUnreadable with what to do."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StateUnreadable("a state file is damaged", where=str(path), why=str(error), todo=todo) from error
    if not isinstance(value, dict):
        raise StateUnreadable("a state file is damaged", where=str(path), why="it holds no JSON object", todo=todo)
    return value


def _private(path: Path) -> TextIO:
    """A file to append to, made with mode 0600."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE), "a+")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file for as long as the block runs; waits for it."""
    with _private(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class HeldLock:
    """A lock file held until release; `taken` is False when another process has it."""

    def __init__(self, path: Path) -> None:
        self._file = _private(path)
        self.owner = ""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.owner = path.read_text().strip() or "unknown"
            self._file.close()
            return
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    @property
    def taken(self) -> bool:
        """Whether this process holds it."""
        return not self._file.closed

    def release(self) -> None:
        """Let it go; may be called twice."""
        self._file.close()
