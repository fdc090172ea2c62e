"""Runs Go and says all the while how far it is; which Go, and what is built, is decided elsewhere."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from whimbrel_testbed import cache
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.golang import Toolchain

LINE_SECONDS = 3.0
"""How long a person waits at most for a word."""

_ENOUGH_SECONDS = 3600.0
_BYPASS = "Or set WHIMBREL_CONTROLPLANE to a control plane built elsewhere."
_REASONS = (
    (("no space left on device", "disk quota exceeded"), "The disk is full: 4 GB are needed for a first build. "
     "GOCACHE, GOMODCACHE and WHIMBREL_CACHE name other places."),
    (("checksum mismatch", "security error"), "A module is not what go.sum says: do not use it; check GOPROXY."),
    (("dial tcp", "no such host", "i/o timeout", "tls handshake", "connection refused", "proxyconnect",
      "unexpected eof", "module lookup disabled", "404 not found", "502 bad gateway", "503 service"),
     "The Go modules could not be fetched: check the network and GOPROXY, then start it again."),
    (("signal: killed", "cannot allocate memory"), "The machine ran out of memory: 2 GB are needed."),
)  # fmt: skip


def advice(output: str) -> str:
    """Return what a person can do about a failed build, told by what Go printed.

    >>> advice("write /x: no space left on device").partition(":")[0]
    'The disk is full'
    """
    lower = output.lower()
    for signs, todo in _REASONS:
        if any(sign in lower for sign in signs):
            return f"{todo} {_BYPASS}"
    return _BYPASS


class Compiler:
    """One Go module's way to a program, reported line by line."""

    def __init__(self, toolchain: Toolchain, source: Path, progress: Callable[[str], None]) -> None:
        self._toolchain = toolchain
        self._source = source
        self._progress = progress

    def fetch(self) -> int:
        """Fetch every module that the program needs; return the number of packages to compile at most."""
        meter = _Meter("fetching", "modules", self._progress)
        return self._run(["list", "-deps", "-f", "{{.ImportPath}}", "."], meter)

    def build(self, packages: int, flags: list[str], program: Path) -> None:
        """Compile and link."""
        meter = _Meter("compiling", f"packages of at most {packages}", self._progress)
        self._run(["build", "-v", *flags, "-o", str(program), "."], meter)

    def _run(self, arguments: list[str], meter: _Meter) -> int:
        """Run Go; return how many lines it printed on standard output."""
        with tempfile.TemporaryFile("w+", dir=self._toolchain.environment["GOTMPDIR"]) as printed:
            process = subprocess.Popen(
                [str(self._toolchain.go), *arguments], cwd=self._source, env=self._toolchain.environment,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            try:
                _follow(process, meter)
            finally:
                _end(process)
            if process.returncode != 0:
                tail = "\n  ".join(meter.lines[-12:])
                raise TestbedError(f"The control plane was not built: {advice(tail)}\n  {tail}")
            printed.seek(0)
            return sum(1 for _ in printed)


class _Meter:
    """What Go said so far, and the line about it."""

    def __init__(self, doing: str, unit: str, progress: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._doing = doing
        self._progress = progress
        self._unit = unit
        self._started = self._told = time.monotonic()

    def take(self, line: str) -> None:
        self.lines.append(line)

    @property
    def wait(self) -> float:
        return max(0.0, self._told + LINE_SECONDS - time.monotonic())

    @property
    def spent(self) -> float:
        return time.monotonic() - self._started

    def tell(self) -> None:
        self._told = time.monotonic()
        self._progress(f"{self._doing}, {self.spent:.0f} s so far: {len(self.lines)} {self._unit}{self._now()}")

    def _now(self) -> str:
        if not self.lines:
            return ""
        last = self.lines[-1].removeprefix("go: downloading ")
        # Go names a package when it begins with it; the program itself is the last, and only linking takes it long.
        return ", now linking" if last.endswith("/controlplane") else f", now {last}"


def _follow(process: subprocess.Popen[bytes], meter: _Meter) -> None:
    stream = process.stderr
    if stream is None:
        raise TestbedError("Go was started without a way to hear it.")
    for line in _lines(stream, meter):
        meter.take(line)
    process.wait()


def _lines(stream: IO[bytes], meter: _Meter) -> Iterator[str]:
    """Yield the lines as they come, and have the meter speak in between."""
    rest = b""
    while True:
        if meter.wait == 0.0:
            meter.tell()
        if meter.spent > _ENOUGH_SECONDS:
            raise TestbedError(f"Go did not end within {_ENOUGH_SECONDS / 60:.0f} minutes. {_BYPASS}")
        if not select.select([stream], [], [], meter.wait)[0]:
            continue
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole if line)
    if rest:
        yield rest.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Go and the compilers it started, where they still run."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stderr is not None:
        process.stderr.close()


def said(program: Path, *arguments: str) -> str:
    """Return what a program that was just built prints; it shows that it runs here."""
    return cache.run([str(program), *arguments], what="Starting the control plane that was built", timeout=60)
