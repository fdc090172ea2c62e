"""`whimbrel run` as a process over real servers, watched, steered and ended from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from support.moves import Move, Tasks
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.runtime.processes import is_alive
from whimbrel_operator.runtime.store import Key, LocalStore, RecordedEvent
from whimbrel_testbed.mysql import MySQLServer

WAIT_SECONDS = 60.0
ORDER = list(Phase)
"""The phases in the order of a life; Cancelled comes last."""


def at_least(phase: Phase) -> Callable[[MigrationStatus], bool]:
    """The migration is that far."""
    return lambda status: ORDER.index(status.phase) >= ORDER.index(phase)


class Run:
    """One migration `shop`, its state directory, and the process that works on it."""

    def __init__(self, move: Tasks, *, namespace: str = "default", **spec: Any) -> None:
        self.folder = move.directory / "live"
        self.key = Key(namespace, "Migration", "shop")
        self.processes: list[subprocess.Popen[str]] = []
        document = {"source": move.source(), "target": move.target, "tables": move.tables, **spec}
        for name, secret in move.secrets.items():
            shutil.copytree(secret, self.folder / "secrets" / name)
        self.file = self.folder / "shop.yaml"
        named = {
            "apiVersion": "whimbrel.dev/v1alpha1",
            "kind": "Migration",
            "metadata": {"name": "shop", "namespace": namespace},
        }
        self.file.write_text(yaml.safe_dump({**named, "spec": document}))
        self.store = LocalStore(self.folder / "state")

    def command(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """The command line over this state directory."""
        argv = [sys.executable, "-m", "whimbrel_cli", "--state", str(self.store.root), *map(str, arguments)]
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.processes.append(process)
        return process

    def say(self, *arguments: str | Path) -> tuple[int, str]:
        """A command that ends by itself: its exit code and all it says."""
        process = self.command(*arguments)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
        return process.returncode, output

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """The run until the block is left; its output goes to a file, so that it never waits for a reader."""
        argv = [sys.executable, "-m", "whimbrel_cli", "--state", str(self.store.root), "run", str(self.file)]
        with (self.folder / "run.log").open("a") as log:
            process = subprocess.Popen(
                [*argv, "--secrets", str(self.folder / "secrets")],
                stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(WAIT_SECONDS)

    def kill(self, process: subprocess.Popen[str]) -> int:
        """SIGKILL to the run and to all its workers at once, as a machine that loses its power; how many workers."""
        workers = self.workers()
        process.kill()
        for pid in workers.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(WAIT_SECONDS)
        return len(workers)

    def workers(self) -> dict[str, int]:
        """The process of each worker that runs, by task and index."""
        known = [(each.name, each.known()) for each in self.store.instances(self.key)]
        return {name: each.pid for name, each in known if each and each.running and is_alive(each.pid, each.birth)}

    @property
    def status_file(self) -> Path:
        return self.store.folder(self.key) / "status.json"

    def status(self) -> MigrationStatus:
        """The status now; an empty one before the first."""
        found, _ = self.store.read_status(self.key)
        assert isinstance(found, MigrationStatus)
        return found

    def until(self, holds: Callable[[MigrationStatus], bool], seconds: float = WAIT_SECONDS) -> MigrationStatus:
        """Wait for a status."""
        deadline = time.monotonic() + seconds
        while not holds(status := self.status()):
            assert time.monotonic() < deadline, f"not within {seconds} s\n{status}\n{self.log()}"
            time.sleep(0.02)
        return status

    def ended(self, process: subprocess.Popen[str], seconds: float = 2 * WAIT_SECONDS) -> int:
        """The exit code of a run that ends by itself."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end\n{self.status()}\n{self.log()}") from None

    def approve(self) -> None:
        """What `whimbrel approve` does, for the plan of this moment."""
        self.store.patch_spec(self.key, {"cutover": {"approvedPlan": self.status().plan.hash}})

    def rewrite(self, status: dict[str, Any]) -> None:
        """Another status by hand, under the next resourceVersion, as a patch of the subresource would be."""
        with self.store._locked(self.key):
            version = json.loads(self.status_file.read_text())["resourceVersion"] if self.status_file.exists() else 0
            fresh = self.status_file.with_name("by-hand")
            fresh.write_text(json.dumps({"resourceVersion": version + 1, "status": status}))
            fresh.replace(self.status_file)

    def events(self) -> list[RecordedEvent]:
        return list(self.store.events(self.key, 1000))

    def log(self) -> str:
        """The last lines of the run and of its workers."""
        lines = {name: list(tail) for name, tail in self.store.log_tail(self.key, 8).items()}
        return (self.folder / "run.log").read_text()[-3000:] + json.dumps(lines, indent=1)


class LiveRun(Run):
    """A run from a fresh MySQL database."""

    def __init__(
        self, move: Move, mysql: MySQLServer, database: str, *, namespace: str = "default", **spec: Any
    ) -> None:
        self.move, self.mysql, self.database = move, mysql, database
        super().__init__(move, namespace=namespace, **spec)

    def execute(self, *statements: str) -> None:
        with closing(self.mysql.connect(self.database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def differences(self, tables: list[str]) -> list[str]:
        """What a comparison that shares no code with the product finds."""
        return self.move.differences([f"{self.database}.{table}" for table in tables])
