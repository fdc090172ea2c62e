"""Divides a table into chunks of about equally many rows by walking over its keys. Chunks are copied elsewhere."""

from collections.abc import Callable
from itertools import count
from typing import Final

from whimbrel_worker.engine.ports import Chunk, ControlStore, SourceReader
from whimbrel_worker.values.columns import Table

_PORTION: Final = 16
"""Chunks made known at once, so that others can begin while the rest is planned."""


def plan_chunks(
    table: Table, chunk_rows: int, reader: SourceReader, control: ControlStore, after_portion: Callable[[], None]
) -> None:
    """Add the table's chunks; goes on after those that an earlier planner left.

    Their ranges join without gap or overlap: (None, k1], (k1, k2], …, (kn, None].
    """
    known = control.chunks(table.name)
    if known and known[-1].high is None:
        control.add_chunks(table.name, [], last=True)
        return
    low = known[-1].high if known else None
    portion: list[Chunk] = []
    for number in count(known[-1].number + 1 if known else 0):
        high = reader.boundary(table, low, chunk_rows)
        portion.append(Chunk(table.name, number, low, high))
        if high is None:
            break
        low = high
        if len(portion) == _PORTION:
            control.add_chunks(table.name, portion, last=False)
            portion = []
            after_portion()
    control.add_chunks(table.name, portion, last=True)
