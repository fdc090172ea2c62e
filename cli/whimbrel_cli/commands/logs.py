"""`whimbrel logs`: shows what the workers of a resource write, once or as it comes. It changes nothing."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from whimbrel_cli.commands.run import length
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.guidance import finished
from whimbrel_cli.logbook import Following, Line, LogSource, Since, Speaker, printable
from whimbrel_cli.naming import name_argument
from whimbrel_cli.places import Place, Where, find
from whimbrel_operator.errors import ClusterAway, NotFound
from whimbrel_operator.runtime.port import Key

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "red")
_LINES: Final = 100


@click.command(epilog=EXIT_CODES)
@name_argument()
@click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
@click.option("--task", default="", metavar="TASK", help="A task's kind or id, or one worker: stream, check, stream-0.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the resource is at its end (or Ctrl-C).")
@click.option("--since", metavar="DURATION", callback=length, help="Only what was written since, such as 10m.")
@click.option(
    "--tail", type=click.IntRange(min=-1), metavar="LINES",
    help=f"How many lines of each worker, -1 for all; by default {_LINES}, with --since all.",
)  # fmt: skip
@click.option("--prefix/--no-prefix", default=True, show_default=True, help="Name the worker before each line.")
@click.pass_obj
def logs(
    where: Where,
    *,
    name: str,
    namespace: str | None,
    task: str,
    follow: bool,
    since: float | None,
    tail: int | None,
    prefix: bool,
) -> int:
    """Shows what the workers of the resource NAME write, in the order of time.

    On a cluster these are the logs of its pods, as long as the pods are there; on this machine files. Tasks are
    preflight, schema, snapshot, stream, check, freeze, fence, inspect, unfreeze, reverse, disarm, retire.

    \b
    Examples:
      whimbrel logs shop
      whimbrel logs shop --task stream -f
      whimbrel logs shop --since 10m | grep WARNING
      kubectl whimbrel logs reversesync/shop -f
    """  # fmt: skip
    place = where.open()
    key = find(place, name, namespace)
    source = place.logs(key)
    lines = (None if since is not None else _LINES) if tail is None else None if tail < 0 else tail
    begin = datetime.now(UTC) - timedelta(seconds=since) if since is not None else None
    shown = Shown(Console(), Since(begin, source.zone), prefix=prefix)
    following = Following(source, task, lines)
    if follow:
        if not any(each.does(task) for each in source.speakers()):
            click.echo(f"No worker of {key.name}{f' does {task!r}' if task else ' is there'} yet; waiting.", err=True)
        return _followed(place, key, following, shown)
    found, silent = following.look()
    for line in found:
        shown.print(line)
    for each in silent:
        click.echo(each, err=True)
    _explain_silence(place, key, source, task)
    return Exit.DONE


def _explain_silence(place: Place, key: Key, source: LogSource, task: str) -> None:
    """Raises CliError where there is no worker whose log could have been shown."""
    there = source.speakers()
    _refuse_hidden(place)
    if any(each.does(task) for each in there):
        return
    todo, name = f"To look what there is: {place.caller.line('tree', place.store.get(key))}", key.name
    if not there:
        raise CliError(f"No worker of {name} is there whose log could be read.", todo)
    tasks = ", ".join(sorted({each.task for each in there}))
    raise CliError(f"No worker of {name} does {task!r}; there are: {tasks}.", todo, Exit.USAGE)


def _refuse_hidden(place: Place) -> None:
    """Raises CliError where logs may not be looked for: they would be waited for in vain."""
    if hidden := place.hidden():
        raise CliError(f"You may not read here: {', '.join(hidden)}.", "To see your rights: kubectl auth can-i --list")


def _followed(place: Place, key: Key, following: Following, shown: "Shown") -> Exit:
    """Shows lines until the resource is at its end; what was written before that is shown for sure."""
    said: set[str] = set()
    try:
        while not _look(place, key, following, shown, said):
            time.sleep(place.every)
    except KeyboardInterrupt:
        raise CliError("Stopped following; the work itself was not touched.", code=Exit.INTERRUPTED) from None
    return Exit.DONE


def _look(place: Place, key: Key, following: Following, shown: "Shown", said: set[str]) -> bool:
    """Shows what has come; whether that was all. What cannot be read is said once, a server that is away waited for."""
    try:
        over = _at_its_end(place, key)
        found, troubles = following.look()
        _refuse_hidden(place)
    except ClusterAway as error:
        over, found, troubles = False, [], [f"whimbrel: {error}"]
    for line in found:
        shown.print(line)
    for each in troubles:
        if each not in said:
            click.echo(each, err=True)
    said.update(troubles)
    return over


def _at_its_end(place: Place, key: Key) -> bool:
    try:
        return finished(place.store.get(key))
    except NotFound:
        return True


class Shown:
    """Prints lines, each worker's in a colour of its own where the terminal has colours."""

    def __init__(self, console: Console, since: Since, *, prefix: bool) -> None:
        self._console = console
        self._since = since
        self._prefix = prefix
        self._seen: dict[Speaker, str] = {}

    def print(self, line: Line) -> None:
        """One line, if it is wanted."""
        if not self._since.wants(line):
            return
        colour = self._seen.setdefault(line.speaker, _COLOURS[len(self._seen) % len(_COLOURS)])
        before = (f"[{line.speaker.name}] ", colour) if self._prefix else ("", "")
        self._console.print(Text.assemble(before, printable(line.text)), soft_wrap=True, highlight=False)
