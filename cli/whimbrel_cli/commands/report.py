"""`whimbrel report`: writes the record of a whole migration as one document. It changes nothing."""

from datetime import UTC, datetime

import click

from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.family import key_of, relatives
from whimbrel_cli.history import record
from whimbrel_cli.markdown import markdown
from whimbrel_cli.naming import name_argument
from whimbrel_cli.output import SCRIPTS, dump
from whimbrel_cli.places import Where, find

_EVENTS = 500


@click.command(epilog=EXIT_CODES)
@name_argument("Migration")
@click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
@click.option("-o", "--output", type=click.Choice(["markdown", *SCRIPTS]), default="markdown", show_default=True)
@click.pass_obj
def report(where: Where, *, name: str, namespace: str | None, output: str) -> int:
    """Writes the record of the migration NAME: plan, times, rows, comparisons, cutover, write pause, events.

    It may be written at any time. Write it soon after the end: an API server keeps events for an hour by default, and
    what is not known any more is named at the record's end. It holds no Secret and no row.

    \b
    Examples:
      whimbrel report shop > shop.md
      whimbrel report shop -o json | jq .writePause
      kubectl whimbrel report shop -n stock > shop.md
    """
    place = where.open()
    key = find(place, name, namespace, "Migration")
    migration = place.store.get(key)
    if not isinstance(migration, Migration):
        raise CliError(f"{name} is a {migration.kind}, no Migration.", code=Exit.USAGE)
    others, unread = relatives(place, migration)
    events = [*place.store.events(key, _EVENTS)]
    for back in others:
        events += place.store.events(key_of(back), _EVENTS) if isinstance(back, ReverseSync) else ()
    events.sort(key=lambda event: event.at)
    hidden = [*unread, *place.hidden()]
    found = record(migration, others, events, datetime.now(UTC), caller=place.caller, hidden=hidden)
    if output in SCRIPTS:
        return dump(found, output)
    click.echo(markdown(found), nl=False)
    return Exit.DONE
