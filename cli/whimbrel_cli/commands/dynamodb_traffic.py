"""`whimbrel traffic dynamodb`: which endpoint it is, and what is said about it; the changes are the test bed's."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whimbrel_cli.exits import CliError, Exit
from whimbrel_cli.figures import count

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.traffic import TrafficCounts

_FACTS = ("endpoint", "region", "accessKeyId", "secretAccessKey")
_ENVIRONMENT = {"accessKeyId": "AWS_ACCESS_KEY_ID", "secretAccessKey": "AWS_SECRET_ACCESS_KEY"}
_RATES = {False: 1.0, True: 200.0}


def endpoint_facts(server: Path | None, endpoint: str | None, region: str) -> Mapping[str, str]:
    """Return the endpoint's facts out of a test bed's line, or the options and the environment's keys; or CliError."""
    if server is not None:
        return _read(server)
    if endpoint is None:
        todo = "Name one: --server FILE, or --endpoint URL with keys in the environment."
        raise CliError("No DynamoDB endpoint is named.", todo, Exit.USAGE)
    missing = [name for name in _ENVIRONMENT.values() if not os.environ.get(name)]
    if missing:
        raise CliError(f"The environment has no {' and no '.join(missing)}.", "Set both.", Exit.USAGE)
    keys = {fact: os.environ[name] for fact, name in _ENVIRONMENT.items()}
    token = os.environ.get("AWS_SESSION_TOKEN")
    return {"endpoint": endpoint, "region": region, **keys, **({"sessionToken": token} if token else {})}


def _read(file: Path) -> Mapping[str, str]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(facts[name]) for name in _FACTS}
    except (ValueError, KeyError, TypeError):
        todo = f"Make it with: whimbrel testbed dynamodb > {file}"
        raise CliError(f"{file} is not the line that `whimbrel testbed dynamodb` prints.", todo, Exit.USAGE) from None


def prepare_dynamodb(facts: Mapping[str, str], *, heavy: bool, load: bool) -> None:
    """Make the tables that the traffic changes, where that is asked for; CliError as `drive_dynamodb`."""
    from whimbrel_testbed.dynamodb.flights import load_flights
    from whimbrel_testbed.dynamodb.traffic import ARTICLE_KEYS, ARTICLE_TABLE, make_article_table

    with _refusals(facts):
        if heavy:
            loaded = load_flights(facts) if load else {}
            if loaded:
                click.echo(f"Loaded {count(sum(loaded.values()))} items into {len(loaded)} tables.")
        elif make_article_table(facts, anew=load):
            click.echo(f"Made the table {ARTICLE_TABLE} with {ARTICLE_KEYS} items.")


def drive_dynamodb(
    facts: Mapping[str, str], *, heavy: bool, rate: float | None, seed: int, stop: threading.Event
) -> None:
    """Change items until `stop` is set and say how many; CliError where the endpoint refuses or is not there."""
    from whimbrel_testbed.dynamodb.traffic import run_article, run_heavy

    run = run_heavy if heavy else run_article
    with _refusals(facts):
        run(facts, rate=rate or _RATES[heavy], seed=seed, stop=stop, report=_report)


@contextmanager
def _refusals(facts: Mapping[str, str]) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        told = error.response["Error"]
        todo = "Check the keys, the region, and that the tables are there (--load makes them)."
        reason = f"{told['Code']} at {error.operation_name}: {told['Message']}"
        raise CliError(f"DynamoDB at {facts['endpoint']} refused ({reason}).", todo) from None
    except BotoCoreError as error:
        todo = "Check that the server runs and that its address is right."
        raise CliError(f"DynamoDB at {facts['endpoint']} cannot be reached ({type(error).__name__}).", todo) from None


def _report(counts: TrafficCounts) -> None:
    click.echo(
        f"{count(counts.puts)} puts, {count(counts.updates)} updates, {count(counts.removes)} removals of attributes, "
        f"{count(counts.deletes)} deletes in {count(counts.calls)} calls, {count(counts.retried)} retried"
    )


def refuse_foreign(kind: str, own: Mapping[str, tuple[str, ...]], given: Callable[[str], bool]) -> None:
    """Raise CliError where an option of another kind of server was given; `own`: kind → its options' names."""
    for other, names in own.items():
        for name in names:
            if other != kind and given(name):
                option = "--" + name.replace("_", "-")
                raise CliError(f"{option} is an option of `traffic {other}`, not of `traffic {kind}`.", "", Exit.USAGE)
