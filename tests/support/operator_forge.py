"""Operator processes that cost no time to start: forked from one that has its imports behind it.

What runs in the fork is `whimbrel_operator.__main__.main`, with an environment and a log of its own; it is killed and
told to stop like any process. What is done to it stands elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.cluster_run import WAIT_SECONDS, OperatorProcess
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

_SERVER = Path(__file__).with_name("fork_server.py")
_POLL = 0.01


class Forge:
    """The process that forks; one for many operators."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fork(self, environment: dict[str, str], log: Path) -> int:
        """Start an operator; its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([environment, str(log)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)


@contextmanager
def forge() -> Iterator[Forge]:
    made = Forge()
    try:
        yield made
    finally:
        made.end()


class ForkedOperator(OperatorProcess):
    """As OperatorProcess, and cheap enough to start a hundred times."""

    def __init__(
        self, maker: Forge, cluster: KubernetesCluster, namespace: str, log_file: Path, environment: dict[str, str]
    ) -> None:
        super().__init__(cluster, namespace, log_file, environment)
        self._maker = maker
        self.pid = 0

    def start(self) -> None:
        self.pid = self._maker.fork(self.variables(), self.log_file)

    @property
    def alive(self) -> bool:
        return self.pid > 0 and _is_there(self.pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.pid > 0:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _end(self, number: signal.Signals) -> None:
        self.send(number)
        self.until_gone()

    def until_gone(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for its end."""
        deadline = time.monotonic() + seconds
        while self.alive:
            assert time.monotonic() < deadline, f"the operator {self.pid} did not end\n{self.log()}"
            time.sleep(_POLL)
        self.pid = 0


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
