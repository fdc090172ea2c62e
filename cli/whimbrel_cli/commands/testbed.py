"""`whimbrel testbed` and `whimbrel traffic`: the test bed's servers, and changes in them, from the command line."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click
from click.core import ParameterSource

from whimbrel_cli.commands.dynamodb_traffic import drive_dynamodb, endpoint_facts, prepare_dynamodb, refuse_foreign
from whimbrel_cli.commands.run import length
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import count


@click.command(epilog=EXIT_CODES, short_help="Starts a server on this machine to try things out.")
@click.argument(
    "kind", type=click.Choice(["mysql", "postgres", "dsql", "kubernetes", "dynamodb", "polardb", "streams"])
)
def testbed(kind: str) -> int:
    """Starts one server on this machine, prints one line of JSON, and runs until Ctrl-C; nothing is left behind.

    The line holds all that a client needs: host, port, user, password or token, caFile. `dsql` behaves as Aurora DSQL
    does: IAM tokens, TLS, its limits and refusals. Meant for trying things out; the data go with the server.

    `kubernetes` prints a kubeconfig's path. It is the real control plane, built from its Go modules on the first use
    (some minutes; kept in the cache), and a node that runs pods as processes of this machine, without containers.

    `dynamodb` is DynamoDB Local, fetched on the first use. `polardb` behaves as PolarDB for PostgreSQL's DynamoDB
    endpoint does and keeps the items in a PostgreSQL of its own. `streams` is DynamoDB Local with streams that can be
    split, trimmed, expired and made anew. All three speak HTTP and take signed calls.

    \b
    Examples:
      whimbrel testbed mysql
      whimbrel testbed dsql > dsql.json &
      whimbrel testbed dynamodb > dynamodb.json &
      whimbrel testbed kubernetes > cluster.json &
      whimbrel testbed mysql > mysql.json & sleep 5; whimbrel traffic mysql --server mysql.json --load
    """
    from whimbrel_testbed.__main__ import main

    return main([kind])


@dataclass(frozen=True)
class _Server:
    host: str
    port: int
    user: str
    password: str
    ca_file: str | None


_MYSQL_RATE = 200.0
_OWN_OPTIONS = {
    "mysql": ("host", "port", "user", "ca_file", "database"),
    "dynamodb": ("endpoint", "region", "heavy"),
}


@click.command(epilog=EXIT_CODES, short_help="Changes rows or items in a database.")
@click.argument("kind", type=click.Choice(["mysql", "dynamodb"]))
@click.option(
    "--server",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The line that `whimbrel testbed` printed; instead of the server's options below.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=3306, show_default=True)
@click.option("--user", default="root", show_default=True)
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="Checks the server's certificate by it.")
@click.option("--database", default="flights", show_default=True, help="Where the flights tables are.")
@click.option("--endpoint", metavar="URL", help="DynamoDB: the endpoint's address.")
@click.option(
    "--region", default="us-east-1", show_default=True, help="DynamoDB: the region that calls are signed for."
)
@click.option("--heavy", is_flag=True, help="DynamoDB: all kinds of changes in the flights tables, hot keys too.")
@click.option("--load", is_flag=True, help="Make the tables anew with their data first. What was in them is lost.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1),
    help="Rows or items changed per second.  [default: 200; dynamodb without --heavy: 1]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same choices.")
@click.option("--for", "duration", metavar="DURATION", callback=length, help="Stop after this time, such as 30s.")
@click.pass_context
def traffic(
    context: click.Context,
    *,
    kind: str,
    server: Path | None,
    host: str,
    port: int,
    user: str,
    ca_file: str | None,
    database: str,
    endpoint: str | None,
    region: str,
    heavy: bool,
    load: bool,
    rate: float | None,
    seed: int,
    duration: float | None,
) -> None:
    """Changes rows in a MySQL server, or items in DynamoDB, as an application does, until Ctrl-C.

    `mysql`: inserts, updates, deletes, key changes in the flights tables; the connection is made again when the server
    restarts. The password is read from the environment, MYSQL_PWD, never from the command line.

    `dynamodb`: sets `val` of one item of the table src1 after the other, once a second; the table is made where it is
    missing. With --heavy: puts, updates, removals of attributes, deletes, batches and transactions in the flights
    tables. The keys are read from the environment, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.

    \b
    Examples:
      whimbrel traffic mysql --server mysql.json --load --rate 500
      MYSQL_PWD=... whimbrel traffic mysql --host db --user app --database flights --for 1m
      whimbrel traffic dynamodb --server dynamodb.json
      whimbrel traffic dynamodb --endpoint http://127.0.0.1:8000 --heavy --load --rate 500
    """
    from whimbrel_testbed.cache import TestbedError

    refuse_foreign(kind, _OWN_OPTIONS, lambda name: context.get_parameter_source(name) is ParameterSource.COMMANDLINE)
    try:
        if kind == "dynamodb":
            facts = endpoint_facts(server, endpoint, region)
            prepare_dynamodb(facts, heavy=heavy, load=load)
            with _until_signal(duration) as stop:
                drive_dynamodb(facts, heavy=heavy, rate=rate, seed=seed, stop=stop)
            return
        found = _read(server) if server else _Server(host, port, user, os.environ.get("MYSQL_PWD", ""), ca_file)
        _drive(found, database=database, load=load, rate=rate or _MYSQL_RATE, seed=seed, duration=duration)
    except TestbedError as error:
        raise CliError(str(error)) from None


def _read(file: Path) -> _Server:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return _Server(facts["host"], facts["port"], facts["user"], facts["password"], facts.get("caFile"))
    except (ValueError, KeyError, TypeError):
        todo = f"Make it with: whimbrel testbed mysql > {file}"
        raise CliError(f"{file} is not the line that `whimbrel testbed mysql` prints.", todo, Exit.USAGE) from None


def _drive(server: _Server, *, database: str, load: bool, rate: float, seed: int, duration: float | None) -> None:
    import pymysql

    from whimbrel_testbed.flights import load_flights
    from whimbrel_testbed.mysql import MySQLAccess
    from whimbrel_testbed.traffic import TrafficCounts, run_traffic

    access = MySQLAccess(server.host, server.port, server.user, server.password, server.ca_file)

    def report(counts: TrafficCounts) -> None:
        click.echo(
            f"{count(counts.inserts)} inserts, {count(counts.updates)} updates, {count(counts.deletes)} deletes, "
            f"{count(counts.key_changes)} key changes in {count(counts.transactions)} transactions"
        )

    try:
        if load:
            loaded = load_flights(access, database)
            click.echo(f"Loaded {count(sum(loaded.values()))} rows into {len(loaded)} tables of {database}.")
        # A server that is away later is waited for; one that was never there is an error.
        access.connect(database).close()
        with _until_signal(duration) as stop:
            run_traffic(access, database=database, rate=rate, seed=seed, stop=stop, report=report)
    except pymysql.MySQLError as error:
        code = error.args[0] if error.args else "?"
        todo = "Check host, port, user, MYSQL_PWD, and that the database has the flights tables (--load makes them)."
        raise CliError(f"MySQL at {server.host}:{server.port} refused ({type(error).__name__} {code}).", todo) from None


@contextmanager
def _until_signal(duration: float | None) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or the end of the time sets."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    timer = threading.Timer(duration, stop.set) if duration is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield stop
    finally:
        if timer:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
