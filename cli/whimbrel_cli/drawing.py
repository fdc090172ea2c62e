"""What views are drawn of: signs, and labelled lines that fit the terminal. What they say stands in live."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from whimbrel_cli.figures import one_line
from whimbrel_cli.sparkline import ASCII_BARS, BARS

NARROW: Final = 80
LABEL: Final = 9


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
