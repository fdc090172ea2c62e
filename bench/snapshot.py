"""How much CPU a snapshot from MySQL to PostgreSQL costs: ours beside its peers, one run, one table.

CPU is user and system time of the client processes as the kernel counted it, start-up included; servers are not
counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import mysqlclient
from bench.usage import Usage, run
from whimbrel_api.tasks import TaskFile
from whimbrel_testbed.bench_table import load_bench_rows
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.mysql import MySQLServer, mysql_server
from whimbrel_testbed.postgres import PostgresServer, postgres_server
from whimbrel_testbed.provision import mysql_client_command, postgres_bin

OWN_COPY = "whimbrel, COPY"
OWN_UPSERTS = "whimbrel, upserts of 2,999"
_SOURCE = "bench.rows"
_COLUMNS = (
    "id, c_int, c_uint, c_small, c_ubig, c_decimal, c_double, CAST(c_float AS DOUBLE), c_varchar, c_text,"
    " CONCAT('\\\\x', HEX(c_binary)), c_date, c_datetime, c_timestamp, c_time, c_year"
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way of copying. `memory` is the peak of the largest process in MB."""

    name: str
    rows: int
    cpu_seconds: float
    wall_seconds: float
    memory: float
    ratio: float = 1.0
    """Its CPU over that of our own COPY path."""

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds a million rows."""
        return self.cpu_seconds / self.rows * 1e6


@dataclass(frozen=True, slots=True)
class Result:
    """All of one run: the ways measured, and for each left out a line that says why."""

    ways: list[Measurement]
    left_out: list[str]


def measure(mysql: MySQLServer, postgres: PostgresServer, rows: int = 2_000_000) -> Result:
    """Load the bench table and copy it once each way; every way must copy all rows."""
    peers, left_out = _drivers(mysql, postgres)
    ways: dict[str, Callable[[], Usage]] = {
        OWN_COPY: lambda: _whimbrel(mysql, postgres, "whimbrel_worker"),
        OWN_UPSERTS: lambda: _whimbrel(mysql, postgres, "bench.capped_worker"),
        "mysql | psql (NULLs by luck)": lambda: _pipe(mysql, postgres),
        **peers,
    }
    load_bench_rows(mysql, _SOURCE, rows)
    usages = {name: _checked(way, postgres, rows, name) for name, way in ways.items()}
    own = usages[OWN_COPY].cpu
    measured = [Measurement(name, rows, use.cpu, use.wall, use.memory, use.cpu / own) for name, use in usages.items()]
    return Result(measured, left_out)


def _drivers(mysql: MySQLServer, postgres: PostgresServer) -> tuple[dict[str, Callable[[], Usage]], list[str]]:
    """The peer made of a Python driver and COPY, or why it is not there."""
    try:
        variables = mysqlclient.environment()
    except TestbedError as error:
        return {}, [f"mysqlclient → COPY is left out: {error}"]
    return {"mysqlclient → COPY": lambda: _peer(mysql, postgres, variables)}, []


def _checked(way: Callable[[], Usage], postgres: PostgresServer, rows: int, name: str) -> Usage:
    with postgres.connect() as connection:
        connection.execute("DROP SCHEMA IF EXISTS whimbrel, bench CASCADE")
    usage = way()
    with postgres.connect() as connection:
        found = connection.execute("SELECT count(*) FROM bench.rows").fetchone()
    if found != (rows,):
        raise RuntimeError(f"{name} copied {found} rows of {rows}")
    return usage


# --- ours ---


def _whimbrel(mysql: MySQLServer, postgres: PostgresServer, module: str) -> Usage:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for kind in ("preflight", "schema"):
            run([[sys.executable, "-m", "whimbrel_worker", str(_task(directory, mysql, postgres, kind))]])
        return run([[sys.executable, "-m", module, str(_task(directory, mysql, postgres, "snapshot"))]])


def _task(directory: Path, mysql: MySQLServer, postgres: PostgresServer, kind: str) -> Path:
    account = {"username": mysql.migration.user, "password": mysql.migration.password}
    secrets = {
        "mysql": _secret(directory / "mysql", account | {"ca.crt": Path(mysql.ca_file).read_text()}),
        "postgres": _secret(directory / "postgres", {"username": postgres.user, "password": postgres.password}),
    }
    document = {
        "task": kind,
        "taskId": kind,
        "migration": "bench/snapshot",
        "epoch": int(kind == "snapshot"),
        "source": {
            "mysql": {
                "host": mysql.host,
                "port": mysql.port,
                "credentialsSecretRef": {"name": "mysql"},
                "tls": {"caSecretRef": {"name": "mysql"}},
            }
        },
        "target": {
            "postgresql": {
                "host": postgres.host,
                "port": postgres.port,
                "database": "postgres",
                "credentialsSecretRef": {"name": "postgres"},
                "tls": {"mode": "Disabled"},
            }
        },
        "tables": {"include": [_SOURCE]},
        "secrets": secrets,
        "reportFile": str(directory / "report"),
        "ordersFile": str(directory / "orders"),
    }
    path = directory / f"{kind}.json"
    path.write_text(TaskFile.model_validate(document).model_dump_json(by_alias=True))
    return path


def _secret(directory: Path, values: Mapping[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for key, value in values.items():
        (directory / key).write_text(value)
    return str(directory)


# --- peers ---


def _make_target(postgres: PostgresServer) -> None:
    columns = (
        "id bigint PRIMARY KEY, c_int integer NOT NULL, c_uint bigint NOT NULL, c_small smallint, c_ubig numeric(20,0)"
        " NOT NULL, c_decimal numeric(18,4) NOT NULL, c_double double precision NOT NULL, c_float real, c_varchar"
        " varchar(64) NOT NULL, c_text text, c_binary bytea NOT NULL, c_date date NOT NULL, c_datetime timestamp(6) NOT"
        " NULL, c_timestamp timestamp(0) with time zone, c_time time(0) NOT NULL, c_year smallint"
    )
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA bench")
        connection.execute(f"CREATE TABLE bench.rows ({columns})".encode())


def _pipe(mysql: MySQLServer, postgres: PostgresServer) -> Usage:
    _make_target(postgres)
    reader = [
        *mysql_client_command(), f"--host={mysql.host}", f"--port={mysql.port}", f"--user={mysql.user}", "--quick",
        "--batch", "--skip-column-names", "--default-character-set=utf8mb4", f"--ssl-ca={mysql.ca_file}",
        "--ssl-mode=VERIFY_CA", f"--execute=SELECT {_COLUMNS} FROM {_SOURCE}",
    ]  # fmt: skip
    writer = [
        str(postgres_bin() / "psql"), "--no-psqlrc", "--quiet", f"--host={postgres.host}", f"--port={postgres.port}",
        f"--username={postgres.user}", "--dbname=postgres", "--set=ON_ERROR_STOP=1",
        "--command=\\copy bench.rows from stdin with (null 'NULL')",
    ]  # fmt: skip
    environment = {
        "MYSQL_PWD": mysql.password, "PGPASSWORD": postgres.password, "PGSSLMODE": "disable", "PGTZ": "UTC",
        "PGCLIENTENCODING": "UTF8",
    }  # fmt: skip
    return run([reader, writer], environment)


def _peer(mysql: MySQLServer, postgres: PostgresServer, variables: Mapping[str, str]) -> Usage:
    _make_target(postgres)
    environment = {
        **variables,
        "BENCH_MYSQL": f"{mysql.host} {mysql.port} {mysql.user} {mysql.password} {mysql.ca_file}",
        "BENCH_POSTGRES": postgres.conninfo,
        "BENCH_SELECT": f"SELECT {_COLUMNS} FROM {_SOURCE}",
    }
    return run([[sys.executable, "-m", "bench.peer_copy"]], environment)


def table(result: Result) -> str:
    """The result as lines of text."""
    lines = [f"{'way':<30} {'CPU s / M rows':>14} {'ratio':>6} {'krows/s':>8} {'memory MB':>10}"]
    for one in result.ways:
        rate = one.rows / one.wall_seconds / 1000
        lines.append(f"{one.name:<30} {one.cpu_per_million:>14.2f} {one.ratio:>6.2f} {rate:>8.0f} {one.memory:>10.0f}")
    return "\n".join([*lines, *result.left_out])


@contextmanager
def servers() -> Iterator[tuple[MySQLServer, PostgresServer]]:
    """The two servers of this bench, until the context ends."""
    settings = {"max_wal_size": "4GB", "shared_buffers": "256MB"}
    with mysql_server(buffer_pool="1G") as mysql, postgres_server(settings=settings) as postgres:
        yield mysql, postgres


def main() -> None:
    """Run against servers of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    with servers() as (mysql, postgres):
        print(table(measure(mysql, postgres, rows)))


if __name__ == "__main__":
    main()
