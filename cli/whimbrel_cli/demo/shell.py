"""kubectl as a person uses it: each command is shown, run, and its words are printed. What is run stands elsewhere."""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.kubectl import kubectl_binary

_TIMEOUT = 120.0


class Shell:
    """kubectl for one kubeconfig. `kubectl whimbrel` finds its program beside the Python that runs this."""

    def __init__(self, console: Console, kubeconfig: Path, folder: Path) -> None:
        self.console, self.kubeconfig = console, kubeconfig
        self._kubectl, self._cache = str(kubectl_binary()), folder / "kubectl-cache"
        beside = str(Path(sys.executable).parent)
        self.environment = os.environ | {
            "KUBECONFIG": str(kubeconfig), "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }  # fmt: skip

    def show(self, command: str) -> None:
        """Prints a command line."""
        self.console.print(f"$ {command}", style="bold cyan", markup=False, highlight=False, soft_wrap=True)

    def print(self, line: str, style: str | None = None) -> None:
        """Prints a line as a program wrote it."""
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def run(self, *arguments: str, given: str | None = None, shown: str = "") -> None:
        """Runs kubectl and prints what it says; `given` is its input, `shown` the line to show instead of its own.

        Raises TestbedError where it fails.
        """
        self.show(shown or shlex.join(["kubectl", *arguments]))
        try:
            done = subprocess.run(
                self._command(arguments), env=self.environment, input=given, capture_output=True, text=True,
                check=False, timeout=_TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TestbedError(f"kubectl {arguments[0]} did not end within {_TIMEOUT:.0f} s.") from None
        for line in done.stdout.splitlines():
            self.print(line)
        if done.returncode != 0:
            raise TestbedError(f"`{shlex.join(['kubectl', *arguments])}` failed: {done.stderr.strip()}")

    @contextmanager
    def following(self, *arguments: str) -> Iterator[None]:
        """Runs kubectl beside what is done inside, and prints its rows; those that differ in their age alone once."""
        self.show(shlex.join(["kubectl", *arguments]))
        process = subprocess.Popen(
            self._command(arguments), env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        reader = threading.Thread(target=self._echo, args=(process.stdout,), name="kubectl", daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            reader.join()

    def _command(self, arguments: Sequence[str]) -> list[str]:
        """A plugin takes no options of kubectl's own; for the rest nothing is to stay in the home directory."""
        own = [] if arguments[0] == "whimbrel" else [f"--cache-dir={self._cache}"]
        return [self._kubectl, *arguments, *own]

    def _echo(self, output: IO[str]) -> None:
        before: list[str] = []
        for line in output:
            cells = line.split()[:-1]
            if cells != before:
                self.print(line.rstrip())
            before = cells
