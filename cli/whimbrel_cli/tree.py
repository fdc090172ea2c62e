"""A tree of pieces as lines with columns, on wide and narrow terminals. What belongs together stands in family."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from whimbrel_cli.drawing import Trimmed
from whimbrel_cli.figures import ago, span
from whimbrel_cli.pieces import Piece

LINES: Final = ("├─ ", "└─ ", "│  ")
ASCII_LINES: Final = ("|- ", "`- ", "|  ")
_STYLE: Final = {True: "green", False: "bold red", None: "yellow"}
_HEADS: Final = ("NAME", "STATE", "AGE", "SAYS")
_GAP: Final = 2
_LEAST: Final = 12
"""Columns that the last column needs to be of use; where there are fewer it is left out."""


def drawn(root: Piece, now: datetime, *, width: int, ascii_only: bool = False) -> Trimmed:
    """The tree for a terminal of that width: name, state, age; where there is room, what each says too."""
    rows = [_row(lead, piece, now) for lead, piece in _walk(root, "", "", ASCII_LINES if ascii_only else LINES)]
    room = width - _width(rows)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for head in _HEADS[:-1]:
        table.add_column(head, no_wrap=True, overflow="ellipsis", justify="right" if head == "AGE" else "left")
    if room >= _LEAST:
        table.add_column(_HEADS[-1], no_wrap=True, overflow="ellipsis", max_width=room)
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    return Trimmed(table)


def _row(lead: str, piece: Piece, now: datetime) -> tuple[Text, ...]:
    name = Text.assemble((f"{lead}{piece.kind}/", "dim"), piece.name)
    age = "" if piece.since is None else span(ago(piece.since, now))
    return name, Text(piece.state, _STYLE[piece.well]), Text(age), Text(piece.says)


def _width(rows: Sequence[tuple[Text, ...]]) -> int:
    """How many columns all but the last cells take, with the gaps behind them."""
    return sum(
        max(len(head), *(row[number].cell_len for row in rows)) + _GAP for number, head in enumerate(_HEADS[:-1])
    )


def _walk(piece: Piece, lead: str, below: str, lines: tuple[str, str, str]) -> Iterator[tuple[str, Piece]]:
    """Every piece with what stands before it; `below` is what stands before its children."""
    yield lead, piece
    for number, child in enumerate(piece.children, start=1):
        last = number == len(piece.children)
        yield from _walk(child, below + lines[last], below + ("   " if last else lines[2]), lines)
