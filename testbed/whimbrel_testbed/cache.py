"""The user's cache of fetched binaries and prepared data directories: where it is, and how an entry is made.

What goes into an entry is the caller's business.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class TestbedError(RuntimeError):
    """The test bed cannot give what was asked for; the message says why and what to do."""

    __test__ = False


@dataclass(frozen=True)
class Account:
    """A system account that a program runs as."""

    uid: int
    gid: int

    def identity(self) -> dict[str, Any]:
        """Return the arguments of the subprocess module that make a program run as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def announce(message: str) -> None:
    """Tell the person at the terminal what takes time (standard error, because standard output carries data)."""
    print(f"testbed: {message}", file=sys.stderr, flush=True)


def cache_directory() -> Path:
    """Return the cache's directory, made where it is missing (root has the machine's, others their own)."""
    chosen = os.environ.get("WHIMBREL_CACHE")
    if chosen:
        path = Path(chosen).expanduser().absolute()
    elif os.geteuid() == 0:
        path = Path("/var/cache/whimbrel")
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whimbrel"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TestbedError(
            f"The cache directory {path} cannot be made ({error.strerror}). "
            "Set WHIMBREL_CACHE to a directory of your own."
        ) from error
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name, so that two processes do not make the same entry at once."""
    with (cache_directory() / f"{name}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce(f"waiting for another process that prepares {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def entry(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cache entry `name`; where it is missing, `make` fills an empty directory, renamed at the end."""
    path = cache_directory() / name
    if path.exists():
        return path
    with locked(name):
        if not path.exists():
            _make_entry(path, make)
    return path


def _make_entry(path: Path, make: Callable[[Path], None]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        scratch.chmod(0o755)
        make(scratch)
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def copy_tree(source: Path, destination: Path) -> None:
    """Copy a directory with owners and modes, to a destination that does not exist yet."""
    run(["cp", "-a", "--reflink=auto", str(source), str(destination)], what=f"Copying {source}", timeout=120)


def run(command: list[str], *, what: str, timeout: float, advice: str = "", account: Account | None = None) -> str:
    """Run a command and return its output; a failure is raised with the end of what it printed, and `advice`.

    `account` is the system account to run as, else this process's own.
    """
    started = time.monotonic()
    identity = {} if account is None else account.identity()
    try:
        done = subprocess.run(
            command, check=False, timeout=timeout, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd="/", stdin=subprocess.DEVNULL, **identity,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise TestbedError(f"{what} failed: the command {command[0]} is not there. {advice}".strip()) from error
    except subprocess.TimeoutExpired as error:
        spent = time.monotonic() - started
        raise TestbedError(f"{what} did not end within {spent:.0f} s. {advice}".strip()) from error
    output = str(done.stdout)
    if done.returncode != 0:
        tail = "\n  ".join(output.strip().splitlines()[-8:])
        raise TestbedError(f"{what} failed (exit code {done.returncode}). {advice}\n  {tail}".strip())
    return output
