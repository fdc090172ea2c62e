"""Writes and compiles the Python function that decodes one table's rows for one pattern of NULLs. No I/O.

Fixed-width neighbours share one struct.unpack_from; the length of a string that follows them comes along with it. Names
of columns never enter the source, only their numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from whimbrel_worker.endpoints.mysql.binlog.fields import Field
from whimbrel_worker.endpoints.mysql.binlog.model import Row

RowDecoder: TypeAlias = Callable[[bytes, int], tuple[Row, int]]
"""Buffer and position of an image's NULL bitmap → row and the position after it."""
RunDecoder: TypeAlias = Callable[[bytes, int, int, Callable[[Row], None]], int]
"""The same for as many rows as have the same NULLs: buffer, position, end, append → the position after them."""


class _Writer:
    """Collects the statements and constants of one function."""

    def __init__(self, indent: str) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.values: dict[int, str] = {}
        self._indent = indent

    def emit(self, line: str) -> None:
        self.lines.append(self._indent + line)

    def constant(self, value: Any) -> str:
        name = f"K{len(self.constants)}"
        self.constants[name] = value
        return name

    def unpack(self, codes: Sequence[str], skip: int, names: Sequence[str], base: str) -> None:
        layout = struct.Struct("<" + f"{skip}x" * bool(skip) + "".join(codes))
        self.emit(f"{', '.join(names)}, = {self.constant(layout.unpack_from)}(buf, {base})")

    def image(self, columns: Sequence[tuple[int, Field]], base: str, skip: int) -> str:
        """Decode these columns, which lie one after the other ``skip`` bytes behind ``base``; the end's expression."""
        codes: list[str] = []
        names: list[str] = []
        for index, layout in columns:
            own = [f"r{index}_{part}" for part in range(len(layout.codes))]
            if layout.length_bytes and layout.length_bytes <= 2 and not codes:
                base, skip = self._lone_string(index, layout, base, skip), 0
                continue
            codes += layout.codes
            names += own
            if layout.length_bytes:
                self.unpack(codes, skip, names, base)
                start = skip + struct.calcsize("<" + "".join(codes))
                length = own[0] if len(own) == 1 else f"({own[0]} | {own[1]} << 16)"
                base, skip = self._string(index, layout, f"{base} + {start}", length), 0
                codes, names = [], []
            else:
                self.values[index] = self._value(layout, own)
        if codes:
            self.unpack(codes, skip, names, base)
            skip += struct.calcsize("<" + "".join(codes))
        return f"{base} + {skip}" if skip else base

    def _lone_string(self, index: int, layout: Field, base: str, skip: int) -> str:
        """A short string with nothing fixed before it: its length is read by indexing, which is cheaper."""
        at = f"{base} + {skip}" if skip else base
        length = f"buf[{at}]"
        if layout.length_bytes == 2:
            length = f"(buf[{at}] | buf[{base} + {skip + 1}] << 8)"
        return self._string(index, layout, f"{base} + {skip + layout.length_bytes}", length)

    def _string(self, index: int, layout: Field, start: str, length: str) -> str:
        self.emit(f"s{index} = {start}; e{index} = s{index} + {length}")
        self.values[index] = self._value(layout, [f"buf[s{index}:e{index}]"])
        return f"e{index}"

    def _value(self, layout: Field, names: Sequence[str]) -> str:
        constants = {f"k{n}": self.constant(value) for n, value in enumerate(layout.constants)}
        return layout.value.format(*names, **constants)

    def row(self, count: int) -> str:
        """The row as a tuple's source; a column without a value is NULL."""
        return "(" + "".join(self.values.get(index, "None") + ", " for index in range(count)) + ")"


def _compile(source: Sequence[str], constants: dict[str, Any]) -> Any:
    space = dict(constants)
    exec(compile("\n".join(source), "<row decoder>", "exec"), space)  # noqa: S102  # made above, of numbers only
    return space["decode"]


def _present(fields: Sequence[Field], nulls: bytes) -> list[tuple[int, Field]]:
    return [(i, layout) for i, layout in enumerate(fields) if not nulls[i >> 3] >> (i & 7) & 1]


def row_decoder(fields: Sequence[Field], nulls: bytes) -> RowDecoder:
    """A function for one image with this NULL bitmap."""
    writer = _Writer("    ")
    end = writer.image(_present(fields, nulls), "p", len(nulls))
    head = ["def decode(buf, p):"]
    decoder: RowDecoder = _compile(
        [*head, *writer.lines, f"    return {writer.row(len(fields))}, {end}"], writer.constants
    )
    return decoder


def run_decoder(fields: Sequence[Field], nulls: bytes) -> RunDecoder:
    """A function for all rows in a row that have this NULL bitmap."""
    writer = _Writer("        ")
    end = writer.image(_present(fields, nulls), "p", len(nulls))
    same = writer.constant(nulls)
    head = [
        "def decode(buf, p, stop, append):",
        "    same = buf.startswith",
        f"    while p < stop and same({same}, p):",
    ]
    tail = [f"        append({writer.row(len(fields))})", f"        p = {end}", "    return p"]
    decoder: RunDecoder = _compile([*head, *writer.lines, *tail], writer.constants)
    return decoder


def general_decoder(fields: Sequence[Field], nullable: Sequence[bool]) -> RowDecoder:
    """A function for one image with any NULLs: it asks for each column that can be NULL."""
    writer = _Writer("    ")
    size = (len(fields) + 7) // 8
    writer.emit(f"m = int.from_bytes(buf[p:p + {size}], 'little'); p = p + {size}")
    fixed: list[tuple[int, Field]] = []
    for index, layout in enumerate(fields):
        if not nullable[index]:
            fixed.append((index, layout))
            continue
        _flush(writer, fixed)
        fixed = []
        _nullable_column(writer, index, layout)
    _flush(writer, fixed)
    source = ["def decode(buf, p):", *writer.lines, f"    return {writer.row(len(fields))}, p"]
    decoder: RowDecoder = _compile(source, writer.constants)
    return decoder


def _flush(writer: _Writer, columns: Sequence[tuple[int, Field]]) -> None:
    if columns:
        writer.emit(f"p = {writer.image(columns, 'p', 0)}")


def _nullable_column(writer: _Writer, index: int, layout: Field) -> None:
    writer.emit(f"if m >> {index} & 1: v{index} = None")
    writer.emit("else:")
    start = len(writer.lines)
    end = writer.image([(index, layout)], "p", 0)
    writer.emit(f"v{index} = {writer.values[index]}; p = {end}")
    writer.lines[start:] = ["    " + line for line in writer.lines[start:]]
    writer.values[index] = f"v{index}"
