"""Ways back for tests: task files from PolarDB's log to a DynamoDB, and workers that follow it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from support.item_faults import Application, ended, eventually, worker
from support.item_moves import definition
from support.moves import Tasks, order
from whimbrel_api.layout import own_name
from whimbrel_api.reports import ReverseResult, WorkerReport
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_testbed.dynamodb.client import delete_tables, dynamodb_client
from whimbrel_testbed.dynamodb.compare import Endpoint, client_of, independent_compare
from whimbrel_worker.endpoints.polardb.kept import parse_kept
from whimbrel_worker.endpoints.polardb.log.lsn import parse_lsn
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.runner import run_task

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb.server import PolarDBServer

_NUMBERS = itertools.count(1)
KIND = "reverse"
CONTROL = "whimbrel-control"
ITEMS = 200


@dataclass
class ReverseMove(Tasks):
    """One way back of the tables under a prefix."""

    server: PolarDBServer = field(kw_only=True)
    origin: Endpoint = field(kw_only=True)
    goal: Endpoint = field(kw_only=True)
    prefix: str = field(kw_only=True)
    reverse: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def source(self) -> dict[str, Any]:
        access = self.server.postgres
        if "polardb" not in self.secrets:  # written once: a worker may be reading it
            self.secret("polardb", username=access.user, password=access.password)
        spec = {
            "host": access.host, "port": access.port, "database": access.database,
            "credentialsSecretRef": {"name": "polardb"}, "tls": {"mode": "Disabled"},
        }  # fmt: skip
        return {"polardb": spec}

    @property
    def owner(self) -> str:
        return f"{self.migration}/uid"

    @property
    def slot(self) -> str:
        return str(self.reverse.get("slotName") or own_name(self.owner))

    def way(self, kind: str = KIND, **fields: Any) -> TaskFile:
        """The task file, with whatever `reverse` says."""
        options = {"owner": self.owner, "checkpointInterval": "500ms", **self.reverse, **fields.pop("reverse", {})}
        return self.task(kind, reverse=options, epoch=0, reportInterval=0.1, **fields)

    def run(self, kind: str = KIND, **fields: Any) -> tuple[int, WorkerReport]:
        """Run a task here and now."""
        file = self.way(kind, **fields)
        return run_task(file), self.report(file)

    def start(self, kind: str = KIND, failpoint: str = "", **fields: Any) -> subprocess.Popen[bytes]:
        options = {"owner": self.owner, "checkpointInterval": "500ms", **self.reverse, **fields.pop("reverse", {})}
        return super().start(kind, failpoint, **{"epoch": 0, "reportInterval": 0.1, "reverse": options, **fields})

    def table(self, name: str = "orders") -> str:
        """The same empty table on both sides."""
        whole = self.prefix + name
        for end in (self.origin, self.goal):
            client_of(end).create_table(**definition(whole))
        return whole

    def application(self, table: str, rng: Any, items: int = ITEMS) -> Application:
        return Application(self.origin, table, rng, items)

    def differences(self, *tables: str | tuple[str, str]) -> list[str]:
        """What a comparison that shares no code with the product finds."""
        return independent_compare(self.origin, self.goal, tables)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.server.backend.connect(self.server.postgres.database) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def slots(self) -> list[str]:
        found = self.sql("SELECT slot_name FROM pg_replication_slots WHERE slot_name = %s", self.slot)
        return [name for (name,) in found]

    def publications(self) -> list[str]:
        return [name for (name,) in self.sql("SELECT pubname FROM pg_publication ORDER BY 1")]

    def end_of_log(self) -> str:
        return str(self.sql("SELECT pg_current_wal_lsn()::text")[0][0])

    def kept(self) -> Kept | None:
        """What stands on the DynamoDB side."""
        key = {"migration": {"S": self.migration}, "entry": {"S": "worker#reverse#00000"}}
        found = client_of(self.goal).get_item(TableName=CONTROL, Key=key).get("Item", {})
        return parse_kept(found.get("position", {}).get("S", ""))

    def reported(self, file: TaskFile | None = None) -> WorkerReport | None:
        file = file or self.way()
        return self.report(file) if Path(file.report_file).exists() else None

    def result(self) -> ReverseResult:
        report = self.reported()
        return report.reverse or ReverseResult() if report is not None else ReverseResult()

    def until(self, holds: Callable[[ReverseResult], Any]) -> ReverseResult:
        """What is reported once that holds."""

        def told() -> object:
            return f"{self.reported()}\n{self.log(KIND)[-4000:]}"

        eventually(lambda: holds(self.result()), told)
        return self.result()

    def armed(self) -> ReverseResult:
        """Until it reads."""
        return self.until(lambda result: result.armed and result.slot.active)

    def held(self) -> ReverseResult:
        """Told to hold, until it does."""
        self.order(hold=True)
        return self.until(lambda result: not result.slot.active)

    def order(self, **orders: Any) -> None:
        order(self.way(), **orders)

    def equal(self, *tables: str | tuple[str, str]) -> None:
        """Both sides are equal once everything that is in the log now was applied; the application is at rest."""
        wanted = parse_lsn(self.end_of_log())
        self.until(lambda seen: parse_lsn(seen.position or "0/0") >= wanted)
        assert self.differences(*tables) == [], self.log(KIND)[-3000:]

    def becomes_equal(self, *tables: str) -> None:
        """The same of some tables while others are stopped, which hold the position back."""

        def told() -> object:
            return "\n".join([*self.differences(*tables), self.log(KIND)[-3000:]])

        eventually(lambda: self.differences(*tables) == [], told)

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        return ended(process, self, KIND)  # type: ignore[arg-type]

    def forget_report(self) -> None:
        Path(self.way().report_file).unlink(missing_ok=True)

    @contextmanager
    def following(self, failpoint: str = "", **fields: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that is armed; retired at the end of the block, if it still runs, with exit code 0."""
        self.forget_report()
        self.order()
        with worker(self, KIND, failpoint, **fields) as process:  # type: ignore[arg-type]
            self.armed()
            yield process
            if process.poll() is None:
                self.order(retire=True)
                assert self.ended(process) == ExitCode.DONE, self.log(KIND)[-4000:]
                self.order()

    def close(self) -> None:
        """Take away whatever is left on the server."""
        active = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active"
        self.sql(active, self.slot)
        for _ in range(100):
            try:
                self.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                         self.slot)  # fmt: skip
                break
            except psycopg.errors.ObjectInUse:
                continue
        name = self.reverse.get("publicationName") or own_name(self.owner)
        self.sql(f'DROP PUBLICATION IF EXISTS "{name}"')


@contextmanager
def reverse_move(
    directory: Path, polardb: PolarDBServer, dynamodb: DynamoDBServer, **more: Any
) -> Iterator[ReverseMove]:
    """A way back with names of its own; nothing of it is left on either server."""
    number = next(_NUMBERS)
    prefix = f"r{os.getpid()}-{number}-"
    target = {
        "dialect": "AWS", "endpoint": dynamodb.endpoint, "region": dynamodb.region,
        "credentialsSecretRef": {"name": "dynamodb"},
    }  # fmt: skip
    name = f"default/back-{os.getpid()}-{number}"
    move = ReverseMove(
        directory, {"dynamodb": target}, {}, {"include": [f"{prefix}*"]}, migration=name,
        server=polardb, origin=polardb, goal=dynamodb, prefix=prefix, **more,
    )  # fmt: skip
    move.secret("dynamodb", accessKeyId=dynamodb.access_key_id, secretAccessKey=dynamodb.secret_access_key)
    try:
        yield move
    finally:
        move.close()
        delete_tables(dynamodb_client(polardb.facts()), prefix)
        delete_tables(dynamodb_client(dynamodb.facts()), prefix)
