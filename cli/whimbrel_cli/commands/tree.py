"""`whimbrel tree`: shows what belongs to a resource and how it is. It changes nothing."""

from datetime import UTC, datetime

import click

from whimbrel_cli import tree as trees
from whimbrel_cli.drawing import canvas, hidden_line
from whimbrel_cli.exits import EXIT_CODES, Exit
from whimbrel_cli.family import family
from whimbrel_cli.naming import name_argument
from whimbrel_cli.output import SCRIPTS, dump
from whimbrel_cli.places import Where, find


@click.command(epilog=EXIT_CODES)
@name_argument()
@click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", *SCRIPTS]), default="table", show_default=True,
    help="`wide` cuts nothing off.",
)  # fmt: skip
@click.pass_obj
def tree(where: Where, *, name: str, namespace: str | None, output: str) -> int:
    """Shows what belongs to the resource NAME, with the state of each: Jobs, pods and what their workers report.

    To a Migration belong its ReverseSync and every Validation that names it, with their own. On this machine a worker
    is a process.

    \b
    Examples:
      whimbrel tree shop
      whimbrel tree reversesync/shop
      whimbrel tree shop -o json | jq '.. | select(.well? == false) | .name'
      kubectl whimbrel tree shop -o wide
    """
    place = where.open()
    found, hidden = family(place, find(place, name, namespace))
    if output in SCRIPTS:
        return dump(found.document(), output)
    console = canvas(uncut=output == "wide")
    plain = not console.encoding.lower().startswith("utf")
    console.print(trees.drawn(found, datetime.now(UTC), width=console.width, ascii_only=plain))
    if line := hidden_line(hidden):
        console.print(line, markup=False, highlight=False)
    return Exit.DONE
