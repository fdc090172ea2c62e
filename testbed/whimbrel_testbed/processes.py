"""A server as a child process: started, waited for, stopped, and nothing of it left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel_testbed import keeper
from whimbrel_testbed.cache import Account, TestbedError

LOOPBACK = "127.0.0.1"
HOST = os.environ.get("WHIMBREL_TESTBED_ADDRESS", LOOPBACK)
"""Where every server listens: loopback, or an address of this machine that the pods of a cluster reach."""

START_SECONDS = 90.0
STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class Child:
    """One server process with a temporary directory of its own, watched over by a keeper.

    `end_signal` is the signal after which the server ends at once, used when its starter died.
    """

    name: str
    account: Account | None = None
    end_signal: int = signal.SIGKILL
    directory: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _keeper: subprocess.Popen[str] = field(init=False)
    _others: list[Path] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"whimbrel-{self.name}-"))
        if self.account is not None:
            os.chown(self.directory, self.account.uid, self.account.gid)
        command = [sys.executable, "-I", "-S", str(keeper.__file__), str(self.directory), str(int(self.end_signal))]
        self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd="/", start_new_session=True)

    def directory_in(self, place: Path) -> Path:
        """Make one more directory of the server's own in another file system, removed as and when `directory` is.

        It has the name of `directory`, which is unique, so that the keeper knows of it before it is there.
        """
        other = place / self.directory.name
        self._tell(f"also {other}")
        other.mkdir(mode=0o700)
        if self.account is not None:
            os.chown(other, self.account.uid, self.account.gid)
        self._others.append(other)
        return other

    @property
    def log(self) -> Path:
        """The file that takes what the server prints."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The process id of the running server (for SIGSTOP and the like)."""
        if self._process is None:
            raise TestbedError(f"the {self.name} server does not run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Say whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(
        self, command: Sequence[str], ready: Callable[[], bool], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the server and return once `ready` is true; or raise with the end of its log."""
        identity = {} if self.account is None else self.account.identity()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                env={**os.environ, **(environment or {})}, start_new_session=True, **identity,
            )  # fmt: skip
        self._tell(f"pid {self.pid}")
        self._wait_until(ready)

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise TestbedError(f"The {self.name} server ended while it started:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TestbedError(
                    f"The {self.name} server was not ready within {START_SECONDS:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the server's log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the server to end by a signal (and kill it where it does not in time); a stopped server stays stopped."""
        if self._process is None:
            return
        for sent in (number, signal.SIGCONT):
            self._process.send_signal(sent)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """End the server and remove its directory; may be called again."""
        self.stop(self.end_signal)
        for directory in (self.directory, *self._others):
            shutil.rmtree(directory, ignore_errors=True)
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._tell("done")
            self._keeper.stdin.close()
        self._keeper.wait()

    def _tell(self, line: str) -> None:
        stdin = self._keeper.stdin
        if stdin is None:
            raise TestbedError(f"the keeper of the {self.name} server takes no orders")
        stdin.write(line + "\n")
        stdin.flush()


class Served(ABC):
    """What a server of the test bed can do to its process; each says itself how it starts and stops."""

    _child: Child

    @property
    def pid(self) -> int:
        """The server's process id (for MySQL its name is that of the loader)."""
        return self._child.pid

    @abstractmethod
    def stop(self) -> None:
        """Shut down; the data stays until the context ends."""

    @abstractmethod
    def start(self) -> None:
        """Start again on the same port and data."""

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop the process where it is (SIGSTOP): new connections hang, and with MySQL those that are open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)
