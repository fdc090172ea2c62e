"""What is drawn of: signs, labelled lines, tables, and how wide they may be. What they say stands elsewhere."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from whimbrel_cli.figures import one_line
from whimbrel_cli.sparkline import ASCII_BARS, BARS

LABEL: Final = 9
ENDLESS: Final = 100_000
"""Columns where nothing is to be cut off."""


@dataclass(frozen=True)
class Glyphs:
    """The signs of a view; `PLAIN` where the terminal has ASCII alone."""

    done: str = "✔"
    now: str = "▶"
    shut: str = "✘"
    between: str = "·"
    arrow: str = "→"
    bars: str = BARS


PLAIN: Final = Glyphs(done="+", now=">", shut="-", between="|", arrow="->", bars=ASCII_BARS)


def row(label: str, text: str | Text, width: int, style: str = "") -> Text:
    """A labelled line; its continuation lines stand under its first one."""
    body = text if isinstance(text, Text) else Text(one_line(text), style=style)
    whole = Text()
    for number, line in enumerate(_wrapped(body, max(20, width - LABEL))):
        whole.append("\n" if number else "")
        whole.append((label if number == 0 else "").ljust(LABEL), style="bold cyan")
        whole.append_text(line)
    return whole


def _wrapped(body: Text, width: int) -> list[Text]:
    """The lines of a text: broken at blanks, and inside a word only where it is longer than a line."""
    lines: list[Text] = []
    rest = body
    while rest.cell_len > width:
        at = rest.plain.rfind(" ", 1, width + 1)
        cut = at if at > 0 else width
        lines.append(rest[:cut])
        rest = rest[cut + (1 if at > 0 else 0) :]
    return [*lines, rest]


def joined(parts: Iterable[str], signs: Glyphs) -> str:
    """What is not empty, with the sign between."""
    return f" {signs.between} ".join(part for part in parts if part)


def hidden_line(what: Iterable[str]) -> str:
    """The line that names what was left out because it may not be read; empty where nothing was."""
    named = ", ".join(sorted({*what}))
    return f"{'Hidden':<{LABEL}}you may not read here: {named}" if named else ""


def canvas(*, uncut: bool = False) -> Console:
    """Where a command draws. Nothing is cut off where that is no terminal, unless COLUMNS says how wide it is."""
    console = Console()
    if uncut or not (console.is_terminal or os.environ.get("COLUMNS")):
        console.width = ENDLESS
    return console


class Trimmed:
    """A table without blanks at the ends of its lines: a terminal would wrap them, a file would keep them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        for segments in console.render_lines(self._table, options, pad=False):
            line = Text(no_wrap=True, end="\n")
            for each in segments:
                line.append(each.text, each.style)
            line.rstrip()
            yield line
