"""The demo's DynamoDB, and a server that behaves as PolarDB's DynamoDB endpoint does. What is played: elsewhere."""

import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console

from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.stage import Done, Side, Stage, step, write_secrets
from whimbrel_cli.figures import count
from whimbrel_cli.tools import psql_arguments, write_script
from whimbrel_testbed.dynamodb.compare import independent_compare
from whimbrel_testbed.dynamodb.flights import load_flights
from whimbrel_testbed.dynamodb.traffic import Traffic, TrafficCounts
from whimbrel_testbed.polardb.server import PolarDBServer, polardb_server
from whimbrel_testbed.provision import postgres_bin
from whimbrel_testbed.streams.server import StreamServer, stream_server

ROWS: Final = 20_000
"""Items of a table unless more are asked for: DynamoDB Local takes minutes for all of them."""


def set_dynamodb_stage(stack: ExitStack, console: Console, options: Options) -> "DynamoDBStage":
    """Starts both servers and fills the source, with the first `rows` rows of each table. Raises TestbedError."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-demo-")))
    with step(console, "Starting DynamoDB Local (the first time its programs are fetched)"):
        dynamodb = stack.enter_context(stream_server())
    with step(console, "Starting a server that behaves as PolarDB's DynamoDB endpoint does"):
        polardb = stack.enter_context(polardb_server())
    rows = options.rows or ROWS
    with step(console, f"Loading flights of 2013 from New York into DynamoDB, the first {count(rows)} of each table"):
        loaded = load_flights(dynamodb.facts(), rows=rows)
    console.print(f"  {count(sum(loaded.values()))} items in {len(loaded)} tables", highlight=False)
    return DynamoDBStage(folder, tuple(loaded), dynamodb, polardb, options.way_back)


@dataclass(frozen=True)
class DynamoDBStage(Stage):
    """DynamoDB Local behind the stream server, which shows streams as AWS does, and the PolarDB stand-in."""

    dynamodb: StreamServer
    polardb: PolarDBServer
    way_back: bool = False

    @property
    def source(self) -> str:
        """What the source is called."""
        return "DynamoDB"

    @property
    def target(self) -> str:
        """What the target is called."""
        return "the PolarDB stand-in"

    def application(self, side: Side, *, rate: float, seed: int) -> Traffic:
        """Puts, updates, removed attributes and deletes."""
        server = self.dynamodb if side is Side.SOURCE else self.polardb
        return Traffic(server.facts(), seed=seed, rate=rate)

    def told(self, done: Done) -> str:
        """What the application did, for a reader."""
        if not isinstance(done, TrafficCounts):
            raise TypeError(f"{type(done).__name__} is not what this application tells")
        return (
            f"{count(done.puts)} puts, {count(done.updates)} updates, {count(done.removes)} removals of attributes "
            f"and {count(done.deletes)} deletes."
        )

    def secrets(self) -> dict[str, dict[str, str]]:
        """The Secrets that the example names, by name and key."""
        server = self.polardb.postgres
        found = {"dynamodb-source": _keys(self.dynamodb), "polardb-target": _keys(self.polardb)}
        if self.way_back:
            found["polardb-replication"] = {"username": server.user, "password": server.password}
        return found

    def patch(self) -> dict[str, Any]:
        """Where the servers are, and the way back."""
        source = {"endpoint": self.dynamodb.endpoint, "region": self.dynamodb.region}
        target = {"endpoint": self.polardb.endpoint, "region": self.polardb.region}
        return {"spec": {"source": {"dynamodb": source}, "target": {"dynamodb": target}, **self._back()}}

    def _back(self) -> dict[str, Any]:
        if not self.way_back:
            return {}
        server = self.polardb.postgres
        polardb = {
            "host": server.host, "port": server.port, "database": server.database,
            "credentialsSecretRef": {"name": "polardb-replication"}, "tls": {"mode": "Disabled"},
        }  # fmt: skip
        return {"reverseSync": {"enabled": True, "polardb": polardb}}

    @property
    def must_rest(self) -> bool:
        """Neither endpoint offers a snapshot."""
        return True

    def as_they_are(self) -> Callable[[], list[str]]:
        """botocore's own client on both servers."""
        return functools.partial(independent_compare, self.dynamodb, self.polardb, self.tables)

    def left_behind(self) -> list[str]:
        """Slots and publications of the server behind the target, by plain SQL."""
        with psycopg.connect(self.polardb.backend.conninfo_for(self.polardb.postgres.database)) as connection:
            slots = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
            publications = connection.execute("SELECT pubname FROM pg_publication").fetchall()
        named = [("replication slot", slots), ("publication", publications)]
        return [f"{what} {name}" for what, rows in named for (name,) in rows]

    def places(self) -> Sequence[tuple[str, str]]:
        """`psql` in the demo's folder for the server behind the target, and where both endpoints are."""
        self._write_tools()
        return (
            ("the target's items", f"{self.folder}/psql -c '\\dt'"),
            ("both endpoints and their keys", f"cat {self.folder}/endpoints.json"),
        )

    def _write_tools(self) -> None:
        facts = {"source": dict(self.dynamodb.facts()), "target": dict(self.polardb.facts())}
        file = self.folder / "endpoints.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(facts, indent=2), encoding="utf-8")
        server = self.polardb.postgres
        write_secrets(self.folder / "own", {"postgres": {"password": server.password}})
        parameters = {"host": server.host, "port": server.port, "dbname": server.database, "user": server.user}
        command = psql_arguments(postgres_bin() / "psql", parameters)
        write_script(self.folder / "psql", command, {"PGPASSWORD": self.folder / "own" / "postgres" / "password"})


def _keys(server: StreamServer | PolarDBServer) -> dict[str, str]:
    return {"accessKeyId": server.access_key_id, "secretAccessKey": server.secret_access_key}
