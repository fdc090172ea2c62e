"""`whimbrel diff`: shows the rows that the last comparison found different. It compares nothing itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from whimbrel_api.migration import CheckResult
from whimbrel_cli.differences import Comparison, last_comparison
from whimbrel_cli.drawing import LABEL, hidden_line
from whimbrel_cli.exits import EXIT_CODES, Exit
from whimbrel_cli.figures import ago, count, one_line, span
from whimbrel_cli.naming import name_argument
from whimbrel_cli.output import SCRIPTS, dump
from whimbrel_cli.places import Where, find

_TABLES = 20


@click.command(epilog=EXIT_CODES)
@name_argument("Migration", "Validation")
@click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
@click.option("--table", default="", metavar="TABLE", help="In text, the rows of this table alone.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="ROWS", help="In text, how many rows."
)
@click.option("-o", "--output", type=click.Choice(["text", *SCRIPTS]), default="text", show_default=True)
@click.pass_obj
def diff(where: Where, *, name: str, namespace: str | None, table: str, limit: int, output: str) -> int:
    """Shows the rows in which the last comparison found source and target of NAME different.

    NAME is a Migration or a Validation. On this machine the comparison keeps a file of the rows with what differs; on
    a cluster its worker keeps examples, and tells which rows, not what stands in them. Exit code 4 where something
    differs or could not be decided, 0 where both are equal.

    \b
    Examples:
      whimbrel diff shop
      whimbrel diff shop --table shop.orders --limit 100
      whimbrel diff shop -o json | jq '.rows[] | [.table, .kind, .key]'
      kubectl whimbrel diff validation/weekly
    """
    place = where.open()
    key = find(place, name, namespace)
    found = last_comparison(place, key)
    code = Exit.DONE if found.result is CheckResult.EQUAL else Exit.DIFFERENT
    if output in SCRIPTS:
        dump(found.document(), output)
        return code
    console = Console()
    for text in lines(found, datetime.now(UTC), table=table, limit=limit):
        console.print(text, soft_wrap=True, highlight=False)
    for line in where_the_rest_is(found):
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    return code


def lines(found: Comparison, now: datetime, *, table: str = "", limit: int = 20) -> Iterator[Text]:
    """The comparison as lines: what it found, in which tables, and up to `limit` rows."""
    yield _head(found, now)
    named = [each for each in found.tables if table in ("", each[0])]
    for number, (name, rows) in enumerate(named[:_TABLES]):
        yield _labelled("Tables" if number == 0 else "", f"{one_line(name)}: {count(rows)} rows differ")
    if len(named) > _TABLES:
        yield _labelled("", f"and {len(named) - _TABLES} more tables")
    rows_there = [row for row in found.rows if table in ("", row.get("table"))]
    for row in rows_there[:limit]:
        yield from _row(row)
    if len(rows_there) > limit:
        yield Text(f"and {count(len(rows_there) - limit)} more rows; --limit shows more")
    examples = [each for each in found.examples if not table or each.startswith(f"{table} ")]
    for number, example in enumerate(examples[:limit]):
        yield _labelled("Examples" if number == 0 else "", one_line(example))


def _head(found: Comparison, now: datetime) -> Text:
    kinds = ", ".join(f"{count(number)} {kind}" for kind, number in found.differences.model_dump().items() if number)
    parts = [
        found.result.value,
        f"{count(found.rows_compared)} rows compared",
        found.compared,
        f"{count(found.differences.total)} differences" + (f" ({kinds})" if kinds else ""),
        f"{count(found.inconclusive)} inconclusive" if found.inconclusive else "",
        f"{span(ago(found.completed_at, now))} ago" if found.completed_at else "",
    ]
    style = "green" if found.result is CheckResult.EQUAL else "bold red"
    return _labelled("Check", ", ".join(part for part in parts if part), style)


def _labelled(label: str, text: str, style: str = "") -> Text:
    return Text.assemble((label.ljust(LABEL), "bold cyan"), (text, style))


def _row(row: Mapping[str, Any]) -> Iterator[Text]:
    """One row: which, and below it what each side has."""
    key = ", ".join(f"{one_line(name)}={_value(value)}" for name, value in (row.get("key") or {}).items())
    reason = f" ({row['reason']})" if row.get("reason") else ""
    told = f"{row.get('kind', '?')}{reason}"
    yield Text(f"{one_line(row.get('table', '?'))} {key}: {one_line(told)}", "bold")
    for name, sides in (row.get("columns") or row.get("attributes") or {}).items():
        for side, style, sign in (("source", "red", "-"), ("target", "green", "+")):
            if side in sides:
                yield Text(f"  {sign} {one_line(name)}: {_value(sides[side])}", style)
    for side, style, sign in (("source", "red", "-"), ("target", "green", "+")):
        if side in row:
            yield Text(f"  {sign} {_value(row[side])}", style)


def _value(value: object) -> str:
    """A value on one line; as JSON where two that differ would look alike, such as by a blank at their ends."""
    if value is None:
        return "NULL"
    if isinstance(value, str) and value not in ("", "NULL") and value == one_line(value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def where_the_rest_is(found: Comparison) -> Sequence[str]:
    """How to see all of it; nothing where there is nothing to see."""
    if found.result is CheckResult.EQUAL:
        return ()
    if found.files:
        return [f"{'Files' if number == 0 else '':<{LABEL}}{path}" for number, path in enumerate(found.files)]
    again = (
        "To have them with what differs: `whimbrel run` on a machine that reaches both, with a Validation of its own."
    )
    if found.hidden and not found.examples:
        return [hidden_line(found.hidden)]
    if not found.examples:
        gone = "Which rows differ is not kept any more: it went with the comparison's worker."
        return [f"{'Rows':<{LABEL}}{gone} {again}"]
    return [f"{'Rows':<{LABEL}}These are examples. {again}"]
