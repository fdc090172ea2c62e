"""The change stream from MySQL to PostgreSQL, end to end: rate, CPU, memory, the lag of a trickle; beside a peer.

The worker is the real process. Its CPU is user and system time as the kernel counted it, start-up included; servers are
not counted. The rate is over the time from the worker's start until the target holds the last change.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import UpdateRowsEvent

from whimbrel_api.tasks import Orders, TaskFile
from whimbrel_testbed.bench_table import load_bench_rows
from whimbrel_testbed.mysql import MySQLServer, mysql_server
from whimbrel_testbed.postgres import PostgresServer, postgres_server
from whimbrel_worker.tasks.targets import build_target

_DATABASE = "stream_bench"
_TABLE = f"{_DATABASE}.changed"
_UPDATES = f"""
CREATE PROCEDURE {_DATABASE}.change_each(IN last INT)
BEGIN
  DECLARE i INT DEFAULT 1;
  WHILE i <= last DO
    UPDATE {_TABLE} SET c_int = c_int + 1, c_decimal = c_decimal + 1 WHERE id = i;
    SET i = i + 1;
  END WHILE;
END"""
_PEER_BATCH = 1000
_WAIT_SECONDS = 600.0
_RATE = 100


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way of following the log. `memory` is the process's peak in MB, 0 where it was not a process of its own."""

    name: str
    changes: int
    cpu_seconds: float
    wall_seconds: float
    memory: float = 0.0

    @property
    def rate(self) -> float:
        """Changes a second."""
        return self.changes / self.wall_seconds

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds a million changes."""
        return self.cpu_seconds / self.changes * 1e6


@dataclass(frozen=True, slots=True)
class Result:
    """All of one run. Lags in seconds, from the source's commit until a reader of the target sees the row."""

    ways: list[Measurement]
    trickle_lags: list[float] = field(repr=False)

    @property
    def p50(self) -> float:
        """The median lag of the trickle."""
        return statistics.median(self.trickle_lags)

    @property
    def p95(self) -> float:
        """The lag that one change in twenty exceeds."""
        return statistics.quantiles(self.trickle_lags, n=20)[-1]


def measure(
    mysql: MySQLServer,
    postgres: PostgresServer,
    changes: int = 100_000,
    peer_changes: int = 10_000,
    seconds: float = 15,
) -> Result:
    """Follow one-row updates of the 16-column bench table, each a transaction, then a trickle of inserts."""
    load_bench_rows(mysql, _TABLE, changes)
    with closing(mysql.connect(_DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE trickle (id INT PRIMARY KEY, made_at DATETIME(6))")
        cursor.execute(_UPDATES)
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name), mysql, postgres)
        start = bench.prepare()
        with closing(mysql.connect(_DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute("CALL change_each(%s)", (changes,))
        own = bench.follow(changes)
        with bench.worker():
            lags = bench.trickle(seconds)
    return Result([own, _peer(mysql, postgres, start, min(changes, peer_changes))], lags)


@dataclass(frozen=True, slots=True)
class _Bench:
    directory: Path
    mysql: MySQLServer
    postgres: PostgresServer

    def prepare(self) -> str:
        """Make the target's tables; returns the position from which the stream starts."""
        subprocess.run([*_WORKER, str(self._task("schema"))], check=True)
        with closing(self.mysql.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.gtid_executed")
            position = "".join(str(row[0]).replace("\n", "") for row in cursor.fetchall())
        file = TaskFile.model_validate_json(self._task("inspect").read_bytes())
        return build_target(file, threading.Event()).control().fix_start_position(position)

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A stream worker, retired at the end of the block."""
        orders = self.directory / "orders"
        orders.unlink(missing_ok=True)
        process = subprocess.Popen([*_WORKER, str(self._task("stream"))])
        try:
            yield process
        finally:
            orders.write_text(Orders(retire=True).model_dump_json(by_alias=True))
            process.wait(_WAIT_SECONDS)

    def follow(self, changes: int) -> Measurement:
        """Run a worker until the target holds every changed row."""
        began = time.perf_counter()
        with self.worker() as process, self.postgres.connect() as target:
            while _count(target) < changes:
                _check(process, began)
                time.sleep(0.1)
            wall = time.perf_counter() - began
            cpu, memory = _usage(process.pid)
        return Measurement("whimbrel", changes, cpu, wall, memory)

    def trickle(self, seconds: float) -> list[float]:
        """Insert a row every hundredth of a second; how long each took to be seen in the target."""
        made: dict[int, float] = {}
        source = threading.Thread(target=_insert, args=(self.mysql, round(seconds * _RATE), made))
        source.start()
        seen: dict[int, float] = {}
        with self.postgres.connect() as target:
            while source.is_alive() or len(seen) < len(made):
                statement = f"SELECT id FROM {_DATABASE}.trickle WHERE id > %s"
                rows = target.execute(statement, (len(seen) - 200,)).fetchall()
                now = time.time()
                for (number,) in rows:
                    seen.setdefault(number, now)
                time.sleep(0.01)
        warm = [number for number in made if number > _RATE]
        return [seen[number] - made[number] for number in warm]

    def _task(self, kind: str) -> Path:
        account = {"username": self.mysql.migration.user, "password": self.mysql.migration.password}
        secrets = {
            "mysql": self._secret("mysql", account | {"ca.crt": Path(self.mysql.ca_file).read_text()}),
            "postgres": self._secret("postgres", {"username": self.postgres.user, "password": self.postgres.password}),
        }
        source = {"credentialsSecretRef": {"name": "mysql"}, "tls": {"caSecretRef": {"name": "mysql"}}}
        target = {"credentialsSecretRef": {"name": "postgres"}, "tls": {"mode": "Disabled"}, "database": "postgres"}
        document = {
            "task": kind, "taskId": kind, "migration": "bench/stream", "epoch": int(kind == "stream"),
            "source": {"mysql": {"host": self.mysql.host, "port": self.mysql.port, **source}},
            "target": {"postgresql": {"host": self.postgres.host, "port": self.postgres.port, **target}},
            "tables": {"include": [f"{_DATABASE}.*"]}, "secrets": secrets,
            "reportFile": str(self.directory / "report"), "ordersFile": str(self.directory / "orders"),
        }  # fmt: skip
        path = self.directory / f"{kind}.json"
        path.write_text(TaskFile.model_validate(document).model_dump_json(by_alias=True))
        return path

    def _secret(self, name: str, values: dict[str, str]) -> str:
        (self.directory / name).mkdir(exist_ok=True)
        for key, value in values.items():
            (self.directory / name / key).write_text(value)
        return str(self.directory / name)


_WORKER = (sys.executable, "-m", "whimbrel_worker")


def _count(target: psycopg.Connection[tuple[object, ...]]) -> int:
    rows = target.execute(f"SELECT count(*) FROM {_TABLE}").fetchall()
    return int(str(rows[0][0]))


def _check(process: subprocess.Popen[bytes], began: float) -> None:
    if process.poll() is not None or time.perf_counter() - began > _WAIT_SECONDS:
        raise RuntimeError(f"the worker did not bring all changes (exit code {process.returncode})")


def _usage(pid: int) -> tuple[float, float]:
    """CPU seconds so far and peak memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def _insert(mysql: MySQLServer, rows: int, made: dict[int, float]) -> None:
    with closing(mysql.connect(_DATABASE)) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        for number in range(1, rows + 1):
            time.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            cursor.execute("INSERT INTO trickle VALUES (%s, NOW(6))", (number,))
            made[number] = time.time()


def _peer(mysql: MySQLServer, postgres: PostgresServer, start: str, changes: int) -> Measurement:
    """The mysql-replication package and psycopg's executemany, as its users write it; on the log's first changes."""
    settings = {
        "host": mysql.host, "port": mysql.port, "user": mysql.user, "passwd": mysql.password,
        "ssl_ca": mysql.ca_file, "ssl_verify_cert": True, "ssl_verify_identity": True,
    }  # fmt: skip
    stream = BinLogStreamReader(
        connection_settings=settings, server_id=4003, blocking=True, only_events=[UpdateRowsEvent],
        auto_position=start, enable_logging=False,
    )  # fmt: skip
    cpu, wall, seen = time.process_time(), time.perf_counter(), 0
    batch: list[dict[str, object]] = []
    with closing(stream), postgres.connect(autocommit=False) as target, target.cursor() as cursor:
        for event in stream:
            batch += [row["after_values"] for row in event.rows]
            if len(batch) >= _PEER_BATCH:
                cursor.executemany(_upsert(list(batch[0])), batch)
                target.commit()
                seen, batch = seen + len(batch), []
            if seen >= changes:
                break
    name = "mysql-replication + executemany"
    return Measurement(name, seen, time.process_time() - cpu, time.perf_counter() - wall)


def _upsert(columns: list[str]) -> bytes:
    names = ", ".join(columns)
    values = ", ".join(f"%({name})s" for name in columns)
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "id")
    return f"INSERT INTO {_TABLE} ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {updates}".encode()


def table(result: Result) -> str:
    """The result as lines of text."""
    base = result.ways[0].cpu_per_million
    lines = [f"{'stream':<32} {'changes':>8} {'changes/s':>10} {'CPU s/M':>8} {'ratio':>6} {'MB':>5}"]
    for way in result.ways:
        ratio = way.cpu_per_million / base
        lines.append(
            f"{way.name:<32} {way.changes:>8} {way.rate:>10,.0f} {way.cpu_per_million:>8.1f} {ratio:>6.1f}"
            f" {f'{way.memory:.0f}' if way.memory else '–':>5}"
        )
    lines.append(f"a trickle of {_RATE} changes/s: lag p50 {result.p50:.2f} s, p95 {result.p95:.2f} s")
    return "\n".join(lines)


def main() -> None:
    """Run against servers of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100_000)
    arguments = parser.parse_args()
    with mysql_server() as mysql, postgres_server() as postgres:
        print(table(measure(mysql, postgres, arguments.changes)))


if __name__ == "__main__":
    main()
