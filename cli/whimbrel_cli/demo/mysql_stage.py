"""The demo's MySQL server, and one that behaves as Aurora DSQL does. What is played there stands elsewhere."""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console

from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.stage import Application, Done, Side, Stage, step, write_secrets
from whimbrel_cli.figures import count
from whimbrel_cli.overlay import addresses
from whimbrel_cli.tools import psql_arguments, write_script
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.dsql import DSQLServer, dsql_server
from whimbrel_testbed.dsql.traffic import Traffic as DSQLTraffic
from whimbrel_testbed.flights import load_flights
from whimbrel_testbed.mysql import MySQLServer, mysql_server
from whimbrel_testbed.provision import mysql_client_command, postgres_bin
from whimbrel_testbed.traffic import Traffic, TrafficCounts

DATABASE: Final = "flights"


def set_mysql_stage(stack: ExitStack, console: Console, options: Options) -> "MySQLStage":
    """Starts both servers and fills the source, with the first `rows` rows of each table. Raises TestbedError."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-demo-")))
    with step(console, "Starting MySQL (the first time its programs are fetched)"):
        mysql = stack.enter_context(mysql_server())
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load_flights, mysql, DATABASE, rows=options.rows)
        with step(console, "Starting a server that behaves as Aurora DSQL does"):
            dsql = stack.enter_context(dsql_server())
        with step(console, "Loading the flights of 2013 from New York into MySQL"):
            loaded = loading.result()
    console.print(f"  {count(sum(loaded.values()))} rows in {len(loaded)} tables", highlight=False)
    return MySQLStage(folder, tuple(f"{DATABASE}.{table}" for table in loaded), mysql, dsql)


@dataclass(frozen=True)
class MySQLStage(Stage):
    """A MySQL server and the Aurora DSQL stand-in."""

    mysql: MySQLServer
    dsql: DSQLServer

    @property
    def source(self) -> str:
        """What the source is called."""
        return "MySQL"

    @property
    def target(self) -> str:
        """What the target is called."""
        return "the Aurora DSQL stand-in"

    def application(self, side: Side, *, rate: float, seed: int) -> AbstractContextManager[Application]:
        """Inserts, updates, deletes and key changes in transactions."""
        if side is Side.TARGET:
            return DSQLTraffic(self.dsql, schema=DATABASE, seed=seed, rate=rate)
        return Traffic(self.mysql.admin, database=DATABASE, seed=seed, rate=rate)

    def told(self, done: Done) -> str:
        """What the application did, for a reader."""
        if not isinstance(done, TrafficCounts):
            raise TypeError(f"{type(done).__name__} is not what this application tells")
        return (
            f"{count(done.inserts)} inserts, {count(done.updates)} updates, "
            f"{count(done.deletes)} deletes and {count(done.key_changes)} key changes "
            f"in {count(done.transactions)} transactions; {count(done.rolled_back)} more were rolled back."
        )

    def secrets(self) -> dict[str, dict[str, str]]:
        """The Secrets that the example names, by name and key."""
        mysql, dsql = self.mysql.migration, self.dsql
        authority = Path(mysql.ca_file).read_text(encoding="utf-8") if mysql.ca_file else ""
        return {
            "mysql-source": {"username": mysql.user, "password": mysql.password},
            "mysql-ca": {"ca.crt": authority},
            "dsql-target": {"accessKeyId": dsql.access_key_id, "secretAccessKey": dsql.secret_access_key},
            "dsql-ca": {"ca.crt": Path(dsql.ca_file).read_text(encoding="utf-8")},
        }

    def patch(self) -> dict[str, Any]:
        """Where the servers are."""
        mysql, dsql = self.mysql.migration, self.dsql
        return addresses(mysql.host, mysql.port, dsql.endpoint, dsql.port, dsql.region)

    @property
    def must_rest(self) -> bool:
        """The target is read by a snapshot."""
        return False

    def as_they_are(self) -> Callable[[], list[str]]:
        """Plain SQL on both servers, in the target by a snapshot that is held from now on until it was read."""
        holder = psycopg.connect(self.dsql.backend_conninfo)
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        ((snapshot,),) = holder.execute("SELECT pg_export_snapshot()").fetchall()

        def compare() -> list[str]:
            with holder:
                conninfo = self.dsql.backend_conninfo
                return independent_compare(self.mysql.admin, conninfo, self.tables, snapshot=str(snapshot))

        return compare

    def places(self) -> Sequence[tuple[str, str]]:
        """`mysql` and `psql` in the demo's folder, each connected to its server."""
        self._write_tools()
        return (
            ("the source", f"{self.folder}/mysql -e 'SELECT count(*) FROM flights'"),
            ("the target", f"{self.folder}/psql -c 'SELECT count(*) FROM flights.flights'"),
            ("the control tables", f"{self.folder}/psql -c '\\dt whimbrel.*'"),
        )

    def _write_tools(self) -> None:
        mysql, secrets = self.mysql, self.folder / "own"
        write_secrets(secrets, {"mysql-admin": {"password": mysql.password}})
        options = ["-h", mysql.host, "-P", str(mysql.port), "-u", mysql.user, DATABASE]
        passwords = {"MYSQL_PWD": secrets / "mysql-admin" / "password"}
        write_script(self.folder / "mysql", [*mysql_client_command(), *options], passwords)
        parameters = conninfo_to_dict(self.dsql.backend_conninfo)
        write_secrets(secrets, {"dsql-admin": {"password": str(parameters.get("password", ""))}})
        command = psql_arguments(postgres_bin() / "psql", parameters)
        write_script(self.folder / "psql", command, {"PGPASSWORD": secrets / "dsql-admin" / "password"})
