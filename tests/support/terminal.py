"""A terminal of a given size: a command runs on a pseudo-terminal of the system, and what it writes is put on a screen.

The screen knows the few control sequences that the command line uses. One that it does not know is an error, so that
nothing can be drawn in a way that the test does not see.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.cells import get_character_cell_size

_CONTROL = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b(.)", re.DOTALL)
_COLOURS = {*range(30, 38), *range(40, 48), *range(90, 98), *range(100, 108), 38, 48}


@dataclass
class Screen:
    """Cells of `columns` by `rows`; what scrolls out at the top is kept in `above`."""

    columns: int
    rows: int
    above: list[str] = field(default_factory=list)
    coloured: bool = False
    cursor_shown: bool = True
    _cells: list[list[str]] = field(default_factory=list)
    _row: int = 0
    _column: int = 0

    def __post_init__(self) -> None:
        self._cells = [self._blank() for _ in range(self.rows)]

    @property
    def lines(self) -> list[str]:
        """All that was written, without blanks at the ends of lines and without empty lines at the end."""
        shown = [*self.above, *("".join(row).rstrip() for row in self._cells)]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def feed(self, text: str) -> None:
        """Write a text that ends with no half of a control sequence."""
        at = 0
        while at < len(text):
            found = _CONTROL.match(text, at)
            if found:
                self._obey(found)
                at = found.end()
            else:
                self._put(text[at])
                at += 1

    def _blank(self) -> list[str]:
        return [" "] * self.columns

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._line_feed()
        elif char.isprintable():
            self._print(char)
        else:
            raise AssertionError(f"the screen knows no {char!r}")

    def _print(self, char: str) -> None:
        width = get_character_cell_size(char)
        if self._column + width > self.columns:
            self._column = 0
            self._line_feed()
        self._cells[self._row][self._column : self._column + width] = [char, *[""] * (width - 1)]
        self._column += width

    def _line_feed(self) -> None:
        if self._row < self.rows - 1:
            self._row += 1
            return
        self.above.append("".join(self._cells.pop(0)).rstrip())
        self._cells.append(self._blank())

    def _obey(self, found: re.Match[str]) -> None:
        private, numbers, letter, _ = found.groups()
        values = [int(each or 0) for each in (numbers or "").split(";")]
        match (private, letter):
            case ("", "m"):
                self.coloured = self.coloured or bool(_COLOURS & {*values})
            case ("", "A"):
                self._row = max(0, self._row - (values[0] or 1))
            case ("", "K") if values[0] == 2:
                self._cells[self._row] = self._blank()
            case ("?", "h" | "l") if values == [25]:
                self.cursor_shown = letter == "h"
            case _:
                raise AssertionError(f"the screen knows no {found[0]!r}")


class Terminal:
    """A context in which a command runs on a terminal of that size; its screen can be looked at meanwhile."""

    def __init__(self, command: Sequence[str], columns: int, rows: int, environment: Mapping[str, str]) -> None:
        self.screen = Screen(columns, rows)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environment))
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def look(self) -> list[str]:
        """The lines on the screen, with what has been written by now."""
        while select.select([self._ours], [], [], 0)[0] and self._read():
            pass
        return self.screen.lines

    def end(self, timeout: float = 60) -> int:
        """The exit code, once the command has ended and all of it is on the screen."""
        while self._read():
            pass
        return self._process.wait(timeout)

    def _read(self) -> bool:
        """Puts what comes next on the screen; False once the other side is closed, which Linux tells by an error."""
        try:
            chunk = os.read(self._ours, 1 << 16)
        except OSError:
            chunk = b""
        text = self._rest + self._decoder.decode(chunk, final=not chunk)
        # The half of a control sequence waits for the other one.
        cut = text.rfind("\x1b") if chunk else -1
        whole = cut < 0 or _CONTROL.match(text, cut) is not None
        self._rest = "" if whole else text[cut:]
        self.screen.feed(text if whole else text[:cut])
        return bool(chunk)


def run(command: Sequence[str], columns: int, rows: int, environment: Mapping[str, str]) -> tuple[Screen, int]:
    """Run a command to its end on a terminal of that size: the screen as it is left, and the exit code."""
    with Terminal(command, columns, rows, environment) as terminal:
        code = terminal.end()
        return terminal.screen, code
