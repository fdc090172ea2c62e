"""`whimbrel status`: shows resources, once or while they change. It changes nothing."""

import time
from collections.abc import Sequence
from typing import Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from whimbrel_api.migration import Migration, Phase
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.commands.run import outcome
from whimbrel_cli.drawing import Trimmed, canvas
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import span
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.naming import name_argument
from whimbrel_cli.output import dump
from whimbrel_cli.places import Place, Where, find
from whimbrel_cli.screen import Screen, picture
from whimbrel_cli.watcher import Watcher
from whimbrel_operator.errors import ClusterAway, NotFound
from whimbrel_operator.runtime.port import Key

_CUTOVER_MATTERS = (Phase.FOLLOWING, Phase.CUTTING_OVER, Phase.COMPLETED)


@click.command(epilog=EXIT_CODES)
@name_argument(required=False)
@click.option(
    "-n", "--namespace",
    help="The resource's namespace; by default `default`, or the context's own. Without NAME: the one to list.",
)  # fmt: skip
@click.option("-A", "--all-namespaces", is_flag=True, help="List the resources of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing until it is at its end (or Ctrl-C).")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
    help="json and yaml give the whole resource, for scripts.",
)  # fmt: skip
@click.pass_obj
def status(
    where: Where, *, name: str | None, namespace: str | None, all_namespaces: bool, watch: bool, output: str
) -> int:
    """Shows one resource, or all of them in a table.

    Without NAME the table holds the resources of all namespaces; on a cluster those of the context's namespace.

    \b
    Examples:
      whimbrel status                        all resources
      whimbrel status shop                   phase, tables, lag, gates, and what to do next
      whimbrel status shop -w                the same, live
      whimbrel status shop -o json | jq .status.stream.lagSeconds
      kubectl whimbrel status -A             the resources of a cluster
    """
    if watch and (name is None or output != "table"):
        raise click.UsageError("--watch shows one resource in words: whimbrel status NAME -w")
    if name and all_namespaces:
        raise click.UsageError("--all-namespaces lists resources; a NAME is looked for in one namespace.")
    place = where.open()
    if name is None:
        return _listed(place, place.all(namespace, everywhere=all_namespaces), output)
    key = find(place, name, namespace)
    if watch:
        return _watch(place, key)
    if output != "table":
        return dump(place.document(key), output)
    console = canvas()
    console.print(picture(console, [Watcher(place.store, key, place.caller).look()]))
    for line in place.whereabouts(key):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return Exit.DONE


def _watch(place: Place, key: Key) -> Exit:
    """Shows it until it is at its end. A server that is away is waited for."""
    try:
        with Screen(Console(), [Watcher(place.store, key, place.caller)], place.every):
            while not (resource := _seen(place, key)) or not finished(resource):
                time.sleep(place.every)
    except KeyboardInterrupt:
        raise CliError("Stopped watching; the work itself was not touched.", code=Exit.INTERRUPTED) from None
    except NotFound:
        # The end of a way back is that it goes.
        code = Exit.DONE if key.kind == "ReverseSync" else Exit.FAILED
        raise CliError(f"{key.kind} {key.name} is gone: it was deleted.", code=code) from None
    return outcome([resource])


def _seen(place: Place, key: Key) -> Resource | None:
    """The resource; None while nobody answers, which the screen says."""
    try:
        return place.store.get(key)
    except ClusterAway:
        return None


def _listed(place: Place, resources: Sequence[Resource], output: str) -> Exit:
    if output == "table":
        _list(place, resources)
        return Exit.DONE
    keys = [Key(each.metadata.namespace, each.kind, each.metadata.name) for each in resources]
    return dump({"apiVersion": "v1", "kind": "List", "items": [place.document(key) for key in keys]}, output)


def _list(place: Place, resources: Sequence[Resource]) -> None:
    if not resources:
        click.echo(f"There is no resource here yet. Start one with: {place.start}")
        return
    console = canvas()
    columns = [*zip(_HEADINGS, *map(_cells, resources), strict=True)]
    for heading in _FIRST_TO_GO:
        if sum(max(map(cell_len, column)) + _GAP for column in columns) - _GAP > console.width:
            columns = [column for column in columns if column[0] != heading]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for heading, *_ in columns:
        table.add_column(heading, no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    console.print(Trimmed(table))


_HEADINGS: Final = ("NAMESPACE", "NAME", "KIND", "PHASE", "PROGRESS", "LAG", "STATE")
_FIRST_TO_GO: Final = ("PROGRESS", "LAG", "NAMESPACE")
"""What a narrow terminal loses, in this order; `status NAME` has it."""
_GAP: Final = 2


def _cells(resource: Resource) -> tuple[str, ...]:
    meta, status = resource.metadata, resource.status
    progress = "" if isinstance(resource, ReverseSync) else resource.status.progress
    return meta.namespace, meta.name, resource.kind, status.phase.value, progress, *_rest(resource)


def _rest(resource: Resource) -> tuple[str, str]:
    """Lag, and the one thing to know: a condition that holds it up, else the cutover's or the comparison's state."""
    held = next((kind for kind in ("Stalled", "Paused") if condition(resource.status, kind)), "")
    if isinstance(resource, Migration):
        cutover = resource.status.cutover.state.value if resource.status.phase in _CUTOVER_MATTERS else ""
        return span(resource.status.stream.lag_seconds), held or cutover
    if isinstance(resource, ReverseSync):
        return span(resource.status.lag_seconds), held
    return "–", held or (resource.status.result.value if resource.status.result else "")
