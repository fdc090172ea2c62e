"""The tables of a copy as rows with bars that fit the terminal: figures are never cut, bars and rates go first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from whimbrel_api.migration import TableStatus
from whimbrel_cli.drawing import LABEL
from whimbrel_cli.figures import count, one_line, percent, span

_GAP: Final = 1
_NAME: Final = 16
"""So many columns of a name are worth more than a bar, a rate and the time left."""
_BAR: Final = (5, 30)
_RATE: Final = 9


@dataclass(frozen=True)
class _Told:
    """What a row says. `rate` and `left` only while the table is copied and moves."""

    table: TableStatus
    name: str
    part: str
    rows: str
    rate: str = ""
    left: str = ""

    @property
    def done(self) -> bool:
        """Whether all of it is there."""
        return self.table.state in _DONE


_DONE: Final = ("Copied", "Following")


@dataclass(frozen=True)
class _Widths:
    """How many columns each part of a row has. `bar` is 0 for none, `rate` and `left` where neither is shown."""

    name: int
    bar: int
    part: int
    rows: int
    rate: int
    left: int


def rows(tables: Sequence[TableStatus], rates: Mapping[str, float], width: int) -> Table:
    """One row for each table, at least one: bar, share, rows, rows per second, time left, state."""
    told = [_told(each, rates.get(each.name, 0.0)) for each in tables]
    widths = _widths(told, width)
    grid = Table.grid()
    grid.add_column(width=LABEL)
    grid.add_column(width=widths.name, no_wrap=True)
    if widths.bar:
        grid.add_column(width=_GAP)
        grid.add_column(width=widths.bar)
    grid.add_column(no_wrap=True)
    for each in told:
        grid.add_row("", Text(_end(each.name, widths.name)), *_bar(each, widths), _figures(each, widths))
    return grid


def _told(table: TableStatus, rate: float) -> _Told:
    name = one_line(table.name)
    if table.state in _DONE:
        return _Told(table, name, "100%", count(table.rows_copied))
    part, found = percent(table.rows_copied, table.rows_total), f"{count(table.rows_copied)}/{count(table.rows_total)}"
    if table.state != "Copying" or rate <= 0:
        return _Told(table, name, f"{part}%", found)
    left = table.rows_total - table.rows_copied
    return _Told(table, name, f"{part}%", found, f"{count(rate)}/s", f"ETA {span(left / rate)}" if left > 0 else "")


def _end(name: str, width: int) -> str:
    """The end of a name, in which tables of one database differ."""
    if cell_len(name) <= width:
        return name
    while name and cell_len(name) >= width:
        name = name[1:]
    return f"…{name}"


def _bar(told: _Told, widths: _Widths) -> list[RenderableType]:
    total = max(1, told.table.rows_total)
    completed = total if told.done else told.table.rows_copied
    return ["", ProgressBar(total=total, completed=completed)] if widths.bar else []


def _figures(told: _Told, widths: _Widths) -> Text:
    """What stands behind name and bar, a gap before each."""
    cells = [told.part.rjust(widths.part), told.rows.rjust(widths.rows)]
    cells += [told.rate.rjust(widths.rate), told.left.ljust(widths.left)] if widths.rate else []
    style = "red" if told.table.state == "Stopped" else "green" if told.done else ""
    return Text.assemble(*(f" {each}" for each in cells), " ", (told.table.state, style))


def _widths(told: Sequence[_Told], width: int) -> _Widths:
    """What the figures leave is shared: a name that can be read, then rates with times left, then bars."""
    names, states = _widest(each.name for each in told), _widest(each.table.state for each in told)
    part, copied = _widest(each.part for each in told), _widest(each.rows for each in told)
    room, rate, left = width - LABEL - part - copied - states - 3 * _GAP, 0, 0
    if any(each.table.state == "Copying" for each in told):
        rate, left = max(_RATE, _widest(each.rate for each in told)), _widest(each.left for each in told)
        if room - rate - left - 2 * _GAP < min(names, _NAME):
            return _Widths(max(1, min(names, room)), 0, part, copied, 0, 0)
        room -= rate + left + 2 * _GAP
    least, most = _BAR
    bar = min(most, room - _GAP - min(names, max(_NAME, room - _GAP - most)))
    if bar < least:
        return _Widths(max(1, min(names, room)), 0, part, copied, rate, left)
    return _Widths(min(names, room - _GAP - bar), bar, part, copied, rate, left)


def _widest(texts: Iterable[str]) -> int:
    return max(cell_len(each) for each in texts)
