"""How a value is written for a script, and how a moment stands in a document. What the values are stands elsewhere."""

import json
import sys
from datetime import UTC, datetime
from typing import Any, Final

import click
import yaml

from whimbrel_cli.exits import Exit

SCRIPTS: Final = ("json", "yaml")


def dump(value: Any, output: str) -> Exit:
    """Writes a value of plain JSON types as json or yaml; where the output has no Unicode, by escapes."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=not unicode))
    else:
        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=unicode), nl=False)
    return Exit.DONE


def stamp(moment: datetime | None) -> str | None:
    """A moment for a document: UTC, to the second, such as 2026-11-21T12:00:30Z; None where there is none."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
