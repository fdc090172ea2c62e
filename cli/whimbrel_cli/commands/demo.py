"""`whimbrel demo`: a MySQL server under traffic moves to a server that behaves as Aurora DSQL does, on this machine.

The servers, the data, the traffic and the last comparison are the test bed's; the migration is the product's own.
"""

import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

import click
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import CutoverState, Migration, Phase
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import count, span
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.inputs import put
from whimbrel_cli.overlay import addresses, applied
from whimbrel_cli.screen import Screen
from whimbrel_cli.store import Watcher
from whimbrel_cli.tools import psql_arguments, write_script
from whimbrel_operator import loop
from whimbrel_operator.runtime.store import Key, LocalStore

if TYPE_CHECKING:
    from whimbrel_testbed.dsql import DSQLServer
    from whimbrel_testbed.mysql import MySQLServer
    from whimbrel_testbed.traffic import Traffic, TrafficCounts

EXAMPLE: Final = Path(__file__).resolve().parents[3] / "examples" / "mysql-to-aurora-dsql.yaml"
_DATABASE: Final = "flights"
_FOLLOW_FOR: Final = 2.0


@click.command(epilog=EXIT_CODES, short_help="Shows a whole migration on this machine.")
@click.option("--keep", is_flag=True, help="Leave the servers running at the end, to look around, until Ctrl-C.")
@click.option("--rate", type=click.FloatRange(min=1), default=200.0, show_default=True, help="Rows changed per second.")
@click.option("--rows", type=click.IntRange(min=1), help="Load only the first rows of each table.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the traffic.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Give up after so many seconds.")
@click.option(
    "--example", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=EXAMPLE, metavar="FILE",
    help="The manifest to run; by default examples/mysql-to-aurora-dsql.yaml.",
)  # fmt: skip
def demo(*, keep: bool, rate: float, rows: int | None, seed: int, timeout: float, example: Path) -> int:
    """Shows a whole migration on this machine: nothing to set up, nothing left behind, no root.

    A MySQL server gets the flights of 2013 from New York and an application that goes on writing. The manifest
    examples/mysql-to-aurora-dsql.yaml moves it to a server that behaves as Aurora DSQL does. At the end plain SQL,
    which shares no code with Whimbrel, compares both. Exit code 0 only when it finds nothing.

    \b
    Examples:
      whimbrel demo
      whimbrel demo --keep            look at both servers afterwards
      whimbrel demo | tee demo.log    lines instead of the live view
    """
    from whimbrel_testbed.cache import TestbedError

    console = Console()
    try:
        with _interruptible(), ExitStack() as stack:
            stage = _stage(stack, console, rows)
            return _play(stage, console, example=example, rate=rate, seed=seed, timeout=timeout, keep=keep)
    except TestbedError as error:
        raise CliError(f"The demo's servers cannot be had: {error}") from None


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP all end the demo in one way: what it started goes, and its exit code is 130."""
    before = {number: signal.signal(number, _leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """Ends the demo. A second signal must not break off the cleaning up."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@dataclass(frozen=True)
class _Stage:
    """What the demo plays on: both servers, and a private folder for Secrets and state."""

    folder: Path
    mysql: "MySQLServer"
    dsql: "DSQLServer"
    tables: tuple[str, ...]


def _stage(stack: ExitStack, console: Console, rows: int | None) -> _Stage:
    from whimbrel_testbed.dsql import dsql_server
    from whimbrel_testbed.flights import load_flights
    from whimbrel_testbed.mysql import mysql_server

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-demo-")))
    with _step(console, "Starting MySQL (the first time its programs are fetched)"):
        mysql = stack.enter_context(mysql_server())
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load_flights, mysql, _DATABASE, rows=rows)
        with _step(console, "Starting a server that behaves as Aurora DSQL does"):
            dsql = stack.enter_context(dsql_server())
        with _step(console, "Loading the flights of 2013 from New York into MySQL"):
            loaded = loading.result()
    console.print(f"  {count(sum(loaded.values()))} rows in {len(loaded)} tables", highlight=False)
    return _Stage(folder, mysql, dsql, tuple(f"{_DATABASE}.{table}" for table in loaded))


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    started = time.monotonic()
    console.print(f"{what} …", highlight=False)
    yield
    console.print(f"  done in {span(time.monotonic() - started)}", style="dim", highlight=False)


def _play(
    stage: _Stage, console: Console, *, example: Path, rate: float, seed: int, timeout: float, keep: bool
) -> Exit:
    from whimbrel_testbed.traffic import Traffic

    store = LocalStore(stage.folder / "state")
    key = _prepared(stage, store, console, example)
    console.print(
        f"\nAn application now writes to MySQL, {count(rate)} rows a second (seed {seed}).\n", highlight=False
    )
    with Traffic(stage.mysql.admin, database=_DATABASE, seed=seed, rate=rate) as traffic:
        director = _Director(store, key, traffic, console)
        with Screen(console, [Watcher(store, key)]):
            result = loop.run(store, [key], timeout=timeout, until=_over, on_change=director.on_change)
        director.freeze()
    if result.interrupted:
        _leave()
    _times(console, director)
    migration = store.get(key)
    if not isinstance(migration, Migration) or migration.status.phase is not Phase.COMPLETED:
        return _failed(store, key, console, timed_out=result.timed_out)
    code = _compare(stage, console)
    _around(stage, console, keep=keep)
    if keep:
        _wait_for_interrupt()
    return code


def _over(resources: Sequence[Resource]) -> bool:
    return all(finished(resource) or condition(resource.status, "Stalled") is not None for resource in resources)


def _prepared(stage: _Stage, store: LocalStore, console: Console, example: Path) -> Key:
    """Writes the Secrets, puts the servers' addresses into the example, shows it, and puts it into the store."""
    secrets = stage.folder / "secrets"
    _write_secrets(secrets, _secrets(stage))
    mysql, dsql = stage.mysql.migration, stage.dsql
    patch = addresses(mysql.host, mysql.port, dsql.endpoint, dsql.port, dsql.region)
    text = applied(example.read_text(encoding="utf-8"), patch)
    manifest = stage.folder / "migration.yaml"
    manifest.write_text(text, encoding="utf-8")
    console.print(f"\n{example.name}, with the addresses of these two servers:\n", highlight=False)
    console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, highlight=False)
    console.print(f"whimbrel run {manifest} --secrets {secrets}", style="bold", highlight=False, soft_wrap=True)
    console.print(f"In a second terminal: {_whimbrel(stage)} status flights -w", highlight=False, soft_wrap=True)
    (key,) = put(store, load_manifests(text, example.name), secrets)
    return key


def _whimbrel(stage: _Stage) -> str:
    return f"{shlex.quote(sys.executable)} -m whimbrel_cli --state {shlex.quote(str(stage.folder / 'state'))}"


def _secrets(stage: _Stage) -> dict[str, dict[str, str]]:
    mysql, dsql = stage.mysql.migration, stage.dsql
    authority = Path(mysql.ca_file).read_text(encoding="utf-8") if mysql.ca_file else ""
    return {
        "mysql-source": {"username": mysql.user, "password": mysql.password},
        "mysql-ca": {"ca.crt": authority},
        "dsql-target": {"accessKeyId": dsql.access_key_id, "secretAccessKey": dsql.secret_access_key},
        "dsql-ca": {"ca.crt": Path(dsql.ca_file).read_text(encoding="utf-8")},
        "mysql-admin": {"password": stage.mysql.password},
    }


def _write_secrets(folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
    for name, keys in secrets.items():
        (folder / name).mkdir(mode=0o700, parents=True)
        for key, value in keys.items():
            file = folder / name / key
            file.touch(mode=0o600)
            file.write_text(value, encoding="utf-8")


@dataclass
class _Director:
    """Does what people do in a real migration: approves the plan, and stops the application when it is time.

    It is called with each new status, in the thread of the loop. `entered` holds when each phase began.
    """

    store: LocalStore
    key: Key
    traffic: "Traffic"
    console: Console
    entered: dict[str, float] = field(default_factory=dict)
    ended: float = 0.0
    counts: "TrafficCounts | None" = None
    _approved: str = ""

    def on_change(self, resource: Resource) -> None:
        if not isinstance(resource, Migration):
            return
        now, status = time.monotonic(), resource.status
        self.entered.setdefault(status.phase.value, now)
        if finished(resource):
            self.ended = self.ended or now
        if status.cutover.state is CutoverState.AWAITING_APPROVAL and status.phase is Phase.FOLLOWING:
            self._approve(status.plan.hash, now)
        if status.cutover.state is CutoverState.FREEZING:
            self.freeze()

    def _approve(self, plan: str, now: float) -> None:
        """Approves after a while of following, so that a watcher sees the gates open."""
        if plan == self._approved or now - self.entered[Phase.FOLLOWING.value] < _FOLLOW_FOR:
            return
        self._approved = plan
        self._say(
            f"The gates are open. A person would now read the plan and say: whimbrel approve flights --plan {plan}"
        )
        self._say("The demo does that for you.")
        self.store.patch_spec(self.key, {"cutover": {"approvedPlan": plan}})

    def freeze(self) -> None:
        """Stops the application, once."""
        if self.counts is not None:
            return
        self.counts = self.traffic.stop()
        self._say(f"The application has stopped writing, after {count(self.counts.changes)} changed rows.")

    def _say(self, text: str) -> None:
        self.console.print(f"» {text}", style="bold magenta", highlight=False, soft_wrap=True)


def _times(console: Console, director: _Director) -> None:
    """How long each phase took."""
    moments = sorted(director.entered.items(), key=lambda item: item[1])
    table = Table(box=None, pad_edge=False, header_style="bold", title="Times", title_justify="left")
    table.add_column("Phase")
    table.add_column("Time", justify="right")
    ends = [moment for _, moment in moments[1:]] + [director.ended or time.monotonic()]
    for (phase, begun), end in zip(moments, ends, strict=True):
        if phase != Phase.COMPLETED.value:
            table.add_row(phase, span(end - begun))
    if moments:
        table.add_row("all", span(ends[-1] - moments[0][1]), style="bold")
    console.print()
    console.print(table)
    if done := director.counts:
        console.print(
            f"Meanwhile the application made {count(done.inserts)} inserts, {count(done.updates)} updates, "
            f"{count(done.deletes)} deletes and {count(done.key_changes)} key changes "
            f"in {count(done.transactions)} transactions; {count(done.rolled_back)} more were rolled back.",
            highlight=False,
        )


def _compare(stage: _Stage, console: Console) -> Exit:
    """The comparison that shares no code with the product: plain SQL on both servers."""
    from whimbrel_testbed.compare import independent_compare

    console.print()
    with _step(console, "Comparing every row of both servers by plain SQL, without Whimbrel's code"):
        found = independent_compare(stage.mysql.admin, stage.dsql.backend_conninfo, stage.tables)
    if found:
        for line in found:
            console.print(f"  {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print("The servers differ.", style="bold red")
        return Exit.FAILED
    console.print(
        f"No difference in {len(stage.tables)} tables. Nothing was lost.", style="bold green", highlight=False
    )
    return Exit.DONE


def _failed(store: LocalStore, key: Key, console: Console, *, timed_out: bool) -> Exit:
    """Shows what the workers said last. Gives the exit code."""
    for worker, lines in store.log_tail(key, 15).items():
        console.print(f"\nlast lines of {worker}:", style="bold", highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nThe migration did not come to its end; above is what stopped it.", style="bold red")
    stalled = condition(store.get(key).status, "Stalled")
    return Exit.STALLED if stalled else Exit.TIMED_OUT if timed_out else Exit.FAILED


def _around(stage: _Stage, console: Console, *, keep: bool) -> None:
    """How to look at both servers and the control tables."""
    if not keep:
        console.print("\nTo look around in both servers afterwards: whimbrel demo --keep", highlight=False)
        return
    _write_tools(stage)
    folder = stage.folder
    lines = (
        ("the source", f"{folder}/mysql -e 'SELECT count(*) FROM flights'"),
        ("the target", f"{folder}/psql -c 'SELECT count(*) FROM flights.flights'"),
        ("the control tables", f"{folder}/psql -c '\\dt whimbrel.*'"),
        ("the migration", f"{_whimbrel(stage)} status flights -o yaml"),
    )
    console.print("\nBoth servers go on running. Look around from a second terminal:", style="bold", highlight=False)
    for what, command in lines:
        console.print(f"  # {what}\n  {command}", markup=False, highlight=False, soft_wrap=True)
    console.print("Ctrl-C ends them and removes everything.", highlight=False)


def _write_tools(stage: _Stage) -> None:
    """`mysql` and `psql` in the demo's folder, each connected to its server."""
    from psycopg.conninfo import conninfo_to_dict

    from whimbrel_testbed.provision import mysql_client_command, postgres_bin

    mysql, secrets = stage.mysql, stage.folder / "secrets"
    options = ["-h", mysql.host, "-P", str(mysql.port), "-u", mysql.user, _DATABASE]
    write_script(
        stage.folder / "mysql", [*mysql_client_command(), *options], {"MYSQL_PWD": secrets / "mysql-admin" / "password"}
    )
    parameters = conninfo_to_dict(stage.dsql.backend_conninfo)
    _write_secrets(secrets, {"dsql-admin": {"password": str(parameters.get("password", ""))}})
    command = psql_arguments(postgres_bin() / "psql", parameters)
    write_script(stage.folder / "psql", command, {"PGPASSWORD": secrets / "dsql-admin" / "password"})


def _wait_for_interrupt() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
