"""`whimbrel status`: shows resources, once or while they change. It changes nothing."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.table import Table

from whimbrel_api.migration import Migration, Phase
from whimbrel_cli.commands.run import outcome
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import span
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.screen import Screen, picture
from whimbrel_cli.store import Watcher, find, open_store
from whimbrel_operator.runtime.store import Key, LocalStore

_POLL = 0.4
_CUTOVER_MATTERS = (Phase.FOLLOWING, Phase.CUTTING_OVER, Phase.COMPLETED)


@click.command(epilog=EXIT_CODES)
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="The resource's namespace.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing until it is at its end (or Ctrl-C).")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
    help="json and yaml give the whole resource, for scripts.",
)  # fmt: skip
@click.pass_obj
def status(state: Path | None, name: str | None, namespace: str, watch: bool, output: str) -> int:
    """Shows one resource, or all of them in a table.

    \b
    Examples:
      whimbrel status                        all resources
      whimbrel status shop                   phase, tables, lag, gates, and what to do next
      whimbrel status shop -w                the same, live
      whimbrel status shop -o json | jq .status.stream.lagSeconds
    """
    store = open_store(state)
    if watch and (name is None or output != "table"):
        raise click.UsageError("--watch shows one resource in words: whimbrel status NAME -w")
    if watch and name:
        return _watch(store, find(store, name, namespace))
    keys = [find(store, name, namespace)] if name else store.list()
    if output != "table":
        _dump([store.get(key) for key in keys], output, single=name is not None)
    elif name:
        console = Console()
        console.print(picture(console, [Watcher(store, keys[0]).look()]))
        for line in _whereabouts(store, keys[0]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        _list(store, keys)
    return Exit.DONE


def _whereabouts(store: LocalStore, key: Key) -> Iterator[str]:
    """Where the workers' logs are, and whether anybody works on it at all."""
    if instances := store.instances(key):
        yield f"Logs     {instances[0].folder.parent}/*/log"
    if not finished(store.get(key)) and not store.worked_on(key):
        yield "Idle     no `whimbrel run` works on it now; to go on: whimbrel run FILE"


def _watch(store: LocalStore, key: Key) -> Exit:
    try:
        with Screen(Console(), [Watcher(store, key)]):
            while not finished(resource := store.get(key)):
                time.sleep(_POLL)
    except KeyboardInterrupt:
        raise CliError("Stopped watching; the work itself was not touched.", code=Exit.INTERRUPTED) from None
    return outcome([resource])


def _dump(resources: list[Resource], output: str, *, single: bool) -> None:
    dumped = [resource.model_dump(mode="json", by_alias=True, exclude_none=True) for resource in resources]
    value = dumped[0] if single else {"apiVersion": "v1", "kind": "List", "items": dumped}
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def _list(store: LocalStore, keys: Sequence[Key]) -> None:
    if not keys:
        click.echo("There is no resource yet. Start one with: whimbrel run FILE")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAMESPACE", "NAME", "KIND", "PHASE", "PROGRESS", "LAG", "STATE"):
        table.add_column(heading, no_wrap=heading in ("NAME", "KIND", "PHASE"))
    for key in keys:
        resource = store.get(key)
        table.add_row(
            key.namespace, key.name, key.kind, resource.status.phase.value, resource.status.progress, *_rest(resource)
        )
    Console().print(table)


def _rest(resource: Resource) -> tuple[str, str]:
    """Lag, and the one thing to know: a condition that holds it up, else the cutover's or the comparison's state."""
    held = next((kind for kind in ("Stalled", "Paused") if condition(resource.status, kind)), "")
    if isinstance(resource, Migration):
        cutover = resource.status.cutover.state.value if resource.status.phase in _CUTOVER_MATTERS else ""
        return span(resource.status.stream.lag_seconds), held or cutover
    return "–", held or (resource.status.result.value if resource.status.result else "")
