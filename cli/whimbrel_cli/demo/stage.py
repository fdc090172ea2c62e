"""What a demo plays on: the servers, the data, the Secrets and the manifest. What happens there stands elsewhere."""

import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from rich.console import Console
from rich.syntax import Syntax

from whimbrel_cli.figures import count, span
from whimbrel_cli.overlay import addresses, applied

if TYPE_CHECKING:
    from whimbrel_testbed.dsql import DSQLServer
    from whimbrel_testbed.mysql import MySQLServer

DATABASE: Final = "flights"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP all end the demo in one way: what it started goes, and its exit code is 130."""
    before = {number: signal.signal(number, leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """Ends the demo. A second signal must not break off the cleaning up."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Stage:
    """What the demo plays on: both servers, and a private folder for Secrets, manifest and state."""

    folder: Path
    mysql: "MySQLServer"
    dsql: "DSQLServer"
    tables: tuple[str, ...]


def set_stage(stack: ExitStack, console: Console, rows: int | None) -> Stage:
    """Starts both servers and fills the source, with the first `rows` rows of each table. Raises TestbedError."""
    from whimbrel_testbed.dsql import dsql_server
    from whimbrel_testbed.flights import load_flights
    from whimbrel_testbed.mysql import mysql_server

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-demo-")))
    with step(console, "Starting MySQL (the first time its programs are fetched)"):
        mysql = stack.enter_context(mysql_server())
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load_flights, mysql, DATABASE, rows=rows)
        with step(console, "Starting a server that behaves as Aurora DSQL does"):
            dsql = stack.enter_context(dsql_server())
        with step(console, "Loading the flights of 2013 from New York into MySQL"):
            loaded = loading.result()
    console.print(f"  {count(sum(loaded.values()))} rows in {len(loaded)} tables", highlight=False)
    return Stage(folder, mysql, dsql, tuple(f"{DATABASE}.{table}" for table in loaded))


@contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """Says what is done now, and how long it took."""
    started = time.monotonic()
    console.print(f"{what} …", highlight=False, soft_wrap=True)
    yield
    console.print(f"  done in {span(time.monotonic() - started)}", style="dim", highlight=False)


def secrets_of(stage: Stage) -> dict[str, dict[str, str]]:
    """The Secrets that the example names, by name and key."""
    mysql, dsql = stage.mysql.migration, stage.dsql
    authority = Path(mysql.ca_file).read_text(encoding="utf-8") if mysql.ca_file else ""
    return {
        "mysql-source": {"username": mysql.user, "password": mysql.password},
        "mysql-ca": {"ca.crt": authority},
        "dsql-target": {"accessKeyId": dsql.access_key_id, "secretAccessKey": dsql.secret_access_key},
        "dsql-ca": {"ca.crt": Path(dsql.ca_file).read_text(encoding="utf-8")},
    }


def write_secrets(folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Writes Secrets as Kubernetes mounts them: FOLDER/NAME/KEY, for their owner alone."""
    for name, keys in secrets.items():
        (folder / name).mkdir(mode=0o700, parents=True)
        for key, value in keys.items():
            file = folder / name / key
            file.touch(mode=0o600)
            file.write_text(value, encoding="utf-8")


def write_manifest(stage: Stage, console: Console, example: Path) -> Path:
    """Puts the servers' addresses into the example, shows it, and writes it into the stage's folder."""
    mysql, dsql = stage.mysql.migration, stage.dsql
    patch = addresses(mysql.host, mysql.port, dsql.endpoint, dsql.port, dsql.region)
    text = applied(example.read_text(encoding="utf-8"), patch)
    manifest = stage.folder / "migration.yaml"
    manifest.write_text(text, encoding="utf-8")
    console.print(f"\n{example.name}, with the addresses of these two servers:\n", highlight=False)
    console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, highlight=False)
    return manifest


def wait_for_interrupt() -> None:
    """Returns on Ctrl-C."""
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
