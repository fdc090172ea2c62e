"""Runs workers as real processes between a real MySQL and a real target, and compares the ends by plain SQL."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from whimbrel_api.base import SecretKeyRef, SecretRef, Tls, TlsMode
from whimbrel_api.endpoints import AuroraDSQLTarget, MySQLSource, PostgreSQLTarget, Source, Target
from whimbrel_api.migration import Snapshot, Stream, Tables
from whimbrel_api.reports import Counters, StreamResult, WorkerReport
from whimbrel_api.tasks import Orders, TaskFile, TaskKind
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.dsql import DSQLServer
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer
from whimbrel_worker.tasks.targets import build_target

WAIT_SECONDS = 60.0
_NUMBERS = itertools.count(1)


@dataclass
class WorkerProcess:
    """One worker under way."""

    process: subprocess.Popen[bytes]
    report_file: Path
    orders_file: Path
    log_file: Path

    def report(self) -> WorkerReport | None:
        try:
            return WorkerReport.model_validate_json(self.report_file.read_bytes())
        except FileNotFoundError:
            return None

    def stream(self) -> StreamResult:
        report = self.report()
        return (report and report.stream) or StreamResult()

    def counters(self) -> Counters:
        report = self.report()
        return (report and report.counters) or Counters()

    def order(self, **orders: Any) -> None:
        fresh = self.orders_file.with_suffix(".new")
        fresh.write_text(Orders(**orders).model_dump_json(by_alias=True))
        fresh.replace(self.orders_file)

    def wait_for(self, reached: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, f"the worker ended ({self.process.returncode}): {self.log()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; {self.stream()}\n{self.log()}"
            time.sleep(0.02)

    def ended(self, seconds: float = WAIT_SECONDS) -> int:
        return self.process.wait(seconds)

    def retire(self) -> WorkerReport:
        self.order(retire=True)
        assert self.ended() == 0, self.log()
        report = self.report()
        assert report is not None
        return report

    def terminate(self) -> int:
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        return self.log_file.read_text()[-4000:]


@dataclass
class Lab:
    """One migration of one database."""

    directory: Path
    mysql: MySQLServer
    database: str
    target_spec: Target
    target_secret: dict[str, str]
    target_conninfo: str
    migration: str = "default/lab"
    interval: float = 0.1
    epoch: int = 1
    workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._secret("mysql", username=self.mysql.migration.user, password=self.mysql.migration.password)
        (self.directory / "mysql" / "ca.crt").write_bytes(Path(self.mysql.ca_file).read_bytes())
        self._secret("target", **self.target_secret)

    def _secret(self, name: str, **values: str) -> None:
        (self.directory / name).mkdir()
        for key, value in values.items():
            (self.directory / name / key).write_text(value)

    def file(self, task: TaskKind, *, index: int = 0, workers: int = 1, **fields: Any) -> TaskFile:
        name = f"{task.value}-{next(_NUMBERS)}"
        credentials, authority = SecretRef(name="mysql"), SecretKeyRef(name="mysql")
        source = MySQLSource(
            host=self.mysql.host, port=self.mysql.port, credentials_secret_ref=credentials,
            tls=Tls(ca_secret_ref=authority),
        )  # fmt: skip
        return TaskFile(
            task=task, task_id=name, migration=self.migration, index=index, workers=workers, epoch=self.epoch,
            source=Source(mysql=source), target=self.target_spec, tables=Tables(include=[f"{self.database}.*"]),
            secrets={name: str(self.directory / name) for name in ("mysql", "target")},
            report_file=str(self.directory / f"{name}.report"), orders_file=str(self.directory / f"{name}.orders"),
            report_interval=self.interval, **fields,
        )  # fmt: skip

    def start(self, file: TaskFile, environment: Mapping[str, str] | None = None) -> WorkerProcess:
        task_file = self.directory / f"{file.task_id}.task"
        task_file.write_text(file.model_dump_json(by_alias=True))
        log_file = self.directory / f"{file.task_id}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "whimbrel_worker", str(task_file)], stderr=log, stdout=log,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        worker = WorkerProcess(process, Path(file.report_file), Path(file.orders_file), log_file)
        self.workers.append(worker)
        return worker

    def stream(
        self,
        *,
        lanes: int = 4,
        flush: str = "50ms",
        checkpoint: str = "6s",
        environment: Mapping[str, str] | None = None,
    ) -> WorkerProcess:
        options = Stream(apply_connections=lanes, flush_interval=flush, checkpoint_interval=checkpoint)
        return self.start(self.file(TaskKind.STREAM, stream=options), environment)

    def snapshot(self, *, index: int = 0, workers: int = 1, chunk_rows: int = 1000) -> WorkerProcess:
        return self.start(
            self.file(TaskKind.SNAPSHOT, index=index, workers=workers, snapshot=Snapshot(chunk_rows=chunk_rows))
        )

    def prepare(self, *, start: bool = True) -> None:
        """Make the target's tables; with `start` fix the start position as a snapshot of nothing would."""
        self.epoch = 0
        file = self.file(TaskKind.SCHEMA)
        worker = self.start(file)
        assert worker.ended() == 0, worker.log()
        self.epoch = 1
        if start:
            build_target(file, threading.Event()).control().fix_start_position(self.position())

    def positions(self) -> dict[int, str]:
        return build_target(self.file(TaskKind.INSPECT), threading.Event()).control().positions("stream")

    def position(self) -> str:
        return str(self.query("SELECT @@GLOBAL.gtid_executed")[0][0]).replace("\n", "")

    def drain(self, worker: WorkerProcess, seconds: float = WAIT_SECONDS) -> str:
        position = self.position()
        worker.order(drain_to=position)
        worker.wait_for(lambda: worker.stream().drained_to == position, f"drained to {position}", seconds)
        worker.order()
        return position

    def execute(self, *statements: str) -> None:
        with closing(self.mysql.connect(self.database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def query(self, statement: str) -> list[Any]:
        with closing(self.mysql.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def look(self, statement: str) -> list[Any]:
        with psycopg.connect(self.target_conninfo, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def differences(self, tables: Sequence[str]) -> list[str]:
        names = [f"{self.database}.{table}" for table in tables]
        return independent_compare(self.mysql.admin, self.target_conninfo, names)

    def end(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()


@contextmanager
def postgres_lab(
    directory: Path, mysql: MySQLServer, database: str, server: PostgresServer, name: str
) -> Iterator[Lab]:
    """A lab with plain PostgreSQL's database `name` as its target."""
    spec = PostgreSQLTarget(
        host=server.host, port=server.port, database=name, credentials_secret_ref=SecretRef(name="target"),
        tls=Tls(mode=TlsMode.DISABLED),
    )  # fmt: skip
    secret = {"username": server.user, "password": server.password}
    lab = Lab(directory, mysql, database, Target(postgresql=spec), secret, server.conninfo_for(name))
    try:
        yield lab
    finally:
        lab.end()


@contextmanager
def dsql_lab(directory: Path, mysql: MySQLServer, database: str, server: DSQLServer) -> Iterator[Lab]:
    """A lab with the Aurora DSQL stand-in as its target."""
    spec = AuroraDSQLTarget(
        endpoint=server.endpoint, port=server.port, region=server.region, database=server.database, user=server.user,
        credentials_secret_ref=SecretRef(name="target"), tls=Tls(ca_secret_ref=SecretKeyRef(name="target")),
    )  # fmt: skip
    secret = {
        "accessKeyId": server.access_key_id, "secretAccessKey": server.secret_access_key,
        "ca.crt": Path(server.ca_file).read_text(),
    }  # fmt: skip
    migration = f"default/{database.replace('_', '-')}"
    lab = Lab(directory, mysql, database, Target(auroraDSQL=spec), secret, server.backend_conninfo, migration)
    try:
        yield lab
    finally:
        lab.end()
