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

from whimbrel_cli.commands.run import length
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import count


@click.command(epilog=EXIT_CODES, short_help="Starts a server on this machine to try things out.")
@click.argument("kind", type=click.Choice(["mysql", "postgres", "dsql", "kubernetes"]))
def testbed(kind: str) -> int:
    """Starts one server on this machine, prints one line of JSON, and runs until Ctrl-C; nothing is left behind.

    The line holds all that a client needs: host, port, user, password or token, caFile. `dsql` behaves as Aurora DSQL
    does: IAM tokens, TLS, its limits and refusals. Meant for trying things out; the data go with the server.

    `kubernetes` prints a kubeconfig's path. It is the real control plane, built from its Go modules on the first use
    (some minutes; kept in the cache), and a node that runs pods as processes of this machine, without containers.

    \b
    Examples:
      whimbrel testbed mysql
      whimbrel testbed dsql > dsql.json &
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


@click.command(epilog=EXIT_CODES, short_help="Changes rows in a MySQL server.")
@click.argument("kind", type=click.Choice(["mysql"]))
@click.option(
    "--server",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The line that `whimbrel testbed mysql` printed; instead of the four options below.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=3306, show_default=True)
@click.option("--user", default="root", show_default=True)
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="Checks the server's certificate by it.")
@click.option("--database", default="flights", show_default=True, help="Where the flights tables are.")
@click.option(
    "--load", is_flag=True, help="Make the database anew with the flights data first. What was in it is lost."
)
@click.option(
    "--rate", type=click.FloatRange(min=0.1), default=200.0, show_default=True, help="Rows changed per second."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same choices.")
@click.option("--for", "duration", metavar="DURATION", callback=length, help="Stop after this time, such as 30s.")
def traffic(
    *,
    kind: str,  # noqa: ARG001 - there is one kind so far
    server: Path | None,
    host: str,
    port: int,
    user: str,
    ca_file: str | None,
    database: str,
    load: bool,
    rate: float,
    seed: int,
    duration: float | None,
) -> None:
    """Changes rows in a MySQL server as an application does: inserts, updates, deletes, key changes.

    It works on the flights tables until Ctrl-C, and makes its connection again when the server restarts. The password
    is read from the environment, MYSQL_PWD, never from the command line.

    \b
    Examples:
      whimbrel traffic mysql --server mysql.json --load --rate 500
      MYSQL_PWD=... whimbrel traffic mysql --host db --user app --database flights --for 1m
    """
    from whimbrel_testbed.cache import TestbedError

    found = _read(server) if server else _Server(host, port, user, os.environ.get("MYSQL_PWD", ""), ca_file)
    try:
        _drive(found, database=database, load=load, rate=rate, seed=seed, duration=duration)
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
