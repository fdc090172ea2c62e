"""A ReverseSync by `whimbrel run`: changes flow back, Ctrl-C leaves the slot, `whimbrel delete` takes it away."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg import sql

from support.patience import eventually
from support.reverse_moves import ReverseMove, reverse_move
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.exits import Exit
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.store import LocalStore
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = pytest.mark.timeout(180)
KEY = Key("default", "ReverseSync", "back")
SLOT, PUBLICATION = "whimbrel_run", "whimbrel_run"


class Runs:
    """`whimbrel run` over one manifest, and a look at the state directory."""

    def __init__(self, folder: Path, move: ReverseMove) -> None:
        self.folder, self.move, self.store = folder, move, LocalStore(folder / "state")
        self.manifest = folder / "back.yaml"
        self.apply()

    def apply(self, **spec: Any) -> None:
        """Write the manifest anew."""
        secrets = {
            name: {path.name: path.read_text() for path in Path(self.move.secrets[name]).iterdir()}
            for name in ("polardb", "dynamodb")
        }
        target = {name: value for name, value in self.move.target["dynamodb"].items() if name != "dialect"}
        whole = {
            "source": self.move.source(),
            "target": {"dynamodb": target},
            "tables": {"include": [f"{self.move.prefix}*"]},
            "slotName": SLOT,
            "publicationName": PUBLICATION,
            "checkpointInterval": "500ms",
            **spec,
        }
        made: list[dict[str, Any]] = [
            {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "ReverseSync", "metadata": {"name": "back"}, "spec": whole}
        ]
        made += [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
            for name, data in secrets.items()
        ]
        self.manifest.write_text(yaml.safe_dump_all(made))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "whimbrel_cli", "--state", str(self.store.root), *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        """`whimbrel run`, told to stop at the end of the block as by Ctrl-C."""
        process = self.start("run", str(self.manifest))
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            self.output = process.communicate(timeout=60)[0]

    def command(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output = process.communicate(timeout=90)[0]
        return process.returncode, output

    @property
    def back(self) -> ReverseSync:
        found = self.store.get(KEY)
        assert isinstance(found, ReverseSync)
        return found

    def ready(self) -> tuple[str, str]:
        found = find(self.back.status.conditions, "Ready") if KEY in self.store.list() else None
        return (found.status, found.reason) if found is not None else ("", "")

    def until(self, holds: Callable[[], Any]) -> None:
        eventually(holds, lambda: [self.ready(), self.store.log_tail(KEY, 20) if KEY in self.store.list() else ""])


@pytest.fixture
def runs(tmp_path: Path, polardb: PolarDBServer, dynamodb: DynamoDBServer) -> Iterator[Runs]:
    names = {"slotName": SLOT, "publicationName": PUBLICATION}
    with reverse_move(tmp_path, polardb, dynamodb, reverse=names) as move:
        move.source()
        yield Runs(tmp_path, move)


def test_changes_flow_back_over_an_interruption_and_its_end_leaves_nothing(runs: Runs) -> None:
    move, rng = runs.move, random.Random(7)
    table = move.table()
    application = move.application(table, rng)
    with runs.running():
        runs.until(lambda: runs.ready() == ("True", "Streaming"))
        application.change(100)
        runs.until(lambda: move.differences(table) == [])
        runs.until(lambda: runs.back.status.lag_seconds is not None and runs.back.status.changes_applied > 0)
        runs.until(lambda: runs.back.status.slot.wal_status == "reserved" and runs.back.status.slot.active)
    assert "Interrupted" in runs.output
    assert move.slots() == [SLOT]
    application.change(100)
    with runs.running():
        runs.until(lambda: move.differences(table) == [])
        runs.until(lambda: runs.ready() == ("True", "Streaming"))
    code, output = runs.command("delete", "back")
    assert (code, move.slots()) == (0, []), output
    assert PUBLICATION not in move.publications()
    assert KEY not in runs.store.list()


def test_its_end_reaches_the_run_that_works_on_it(runs: Runs) -> None:
    move = runs.move
    table = move.table()
    with runs.running() as process:
        runs.until(lambda: runs.ready() == ("True", "Streaming"))
        assert runs.command("pause", "back")[0] == 0
        runs.until(lambda: runs.ready() == ("False", "Paused"))
        move.application(table, random.Random(3)).change(30)
        code, output = runs.command("status", "back")
        assert (code, SLOT in output, "whimbrel resume back" in output) == (0, True, True), output
        assert runs.command("resume", "back")[0] == 0
        runs.until(lambda: move.differences(table) == [])
        code, output = runs.command("delete", "back")
        assert (code, move.slots()) == (0, []), output
        assert process.wait(30) == 0
    reasons = [line for line in runs.output.splitlines() if "Disarmed" in line]
    assert reasons, runs.output


@contextmanager
def closed(move: ReverseMove) -> Iterator[None]:
    """The server takes nobody into the database."""
    with move.server.backend.connect("postgres") as connection:
        name = sql.Identifier(move.server.postgres.database)
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def test_a_server_that_is_away_is_waited_for(runs: Runs) -> None:
    runs.move.table()
    with runs.running():
        runs.until(lambda: runs.ready() == ("True", "Streaming"))
    with closed(runs.move):
        code, output = runs.command("delete", "back", "--timeout", "8s")
        assert code == Exit.TIMED_OUT, output
    assert (runs.ready(), runs.move.slots()) == (("False", "NotDisarmed"), [SLOT]), output
    assert f"SELECT pg_drop_replication_slot('{SLOT}')" in output
    code, output = runs.command("delete", "back")
    assert (code, runs.move.slots(), runs.store.list()) == (0, [], []), output
