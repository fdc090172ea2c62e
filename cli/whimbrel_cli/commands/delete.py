"""`whimbrel delete`: ends a way back on this machine, and takes away what it made. On a cluster kubectl does it."""

import contextlib
import time

import click
from rich.console import Console

from whimbrel_cli.commands.run import length
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.naming import name_argument
from whimbrel_cli.places import LocalPlace, Where, find
from whimbrel_cli.screen import Screen
from whimbrel_cli.watcher import Watcher
from whimbrel_operator import loop
from whimbrel_operator.errors import NotFound
from whimbrel_operator.runtime.store import Key, LocalStore

_LOOK = 0.2


@click.command(epilog=EXIT_CODES)
@name_argument("ReverseSync")
@click.option("-n", "--namespace", help="Its namespace; by default `default`.")
@click.option("--timeout", metavar="DURATION", callback=length, help="Stop after this time, such as 5m; exit code 5.")
@click.pass_obj
def delete(where: Where, name: str, namespace: str | None, timeout: float | None) -> int:
    """Ends the ReverseSync NAME: the replication slot and the publication that it made are dropped, and nothing else.

    A slot that nobody reads keeps PolarDB's log until the disk is full, so Ctrl-C alone does not end a way back. Where
    the server is away this goes on trying, until Ctrl-C; run it again then.

    \b
    Example:
      whimbrel delete back
    """
    store = where.folder(f"There the operator does it: kubectl delete reversesync {name}")
    key = find(LocalPlace(store), name, namespace, "ReverseSync")
    store.mark_deleted(key)
    ended = _wait(store, key, timeout) if store.worked_on(key) else _work(store, key, timeout)
    if not ended:
        todo = f"Run it again; to see why: whimbrel status {name}"
        raise CliError(f"{name} is not gone yet, its slot may still be there.", todo, Exit.TIMED_OUT)
    said = ""
    with contextlib.suppress(NotFound):  # the run that worked on a Migration's own has forgotten it already
        said = next((each.message for each in store.get(key).status.conditions if each.type == "Ready"), "")
        store.delete(key)
    click.echo(f"{name} is gone. {said}".rstrip())
    return Exit.DONE


def _work(store: LocalStore, key: Key, timeout: float | None) -> bool:
    """Work on its end here; whether it came to it."""
    with Screen(Console(), [Watcher(store, key)]):
        result = loop.run(store, [key], timeout=timeout)
    if result.interrupted:
        raise CliError("Interrupted; the slot may still be there.", "Run the same command again.", Exit.INTERRUPTED)
    return result.finished


def _wait(store: LocalStore, key: Key, timeout: float | None) -> bool:
    """Wait for the `whimbrel run` that works on it; whether it came to its end."""
    end = time.monotonic() + timeout if timeout is not None else float("inf")
    while time.monotonic() < end and store.worked_on(key):
        time.sleep(_LOOK)
    try:
        return loop.at_end(store.get(key))
    except NotFound:
        return True
