"""How two items differ, as a line of a table's file of differences has it, and that file's name. Writes nothing.

A line has `key` and, as DynamoDB's own typed JSON, what differs: `attributes` with `source` and `target` by attribute
where both sides have the item (a side without the attribute is left out, so that absent is not NULL), else the whole
`source` or `target`. `digest` is what a log names the key by, because values belong into the file alone.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from whimbrel_worker.engine.compare.merge import Key
from whimbrel_worker.values.columns import Cell, Row, Table
from whimbrel_worker.values.items import differing_attributes

_LONGEST: Final = 16_384
"""Bytes of an attribute that are still listed; longer ones are named by digest and size."""
_NAME_LENGTH: Final = 100
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NUMBER: Final = "N"


@dataclass(frozen=True, slots=True)
class ItemDifference:
    """What a line of the file says, and what may be said elsewhere: attributes that differ and the key's digest."""

    entry: dict[str, Any]
    attributes: list[str]
    digest: str


def item_file(path: str, table: str) -> Path:
    """The file of one table's differences beside `path`: `differences.jsonl` → `differences-orders.jsonl`.

    A name that is no plain file name is made one, with a digest that tells it from others made alike.
    """
    main = Path(path)
    plain = _UNSAFE.sub("_", table)[:_NAME_LENGTH]
    if plain != table:
        plain += "-" + hashlib.sha256(table.encode(errors="surrogatepass")).hexdigest()[:8]
    return main.with_name(f"{main.stem}-{plain}.jsonl")


def every_item_file(path: str) -> str:
    """A pattern for the files of all tables."""
    main = Path(path)
    return str(main.with_name(f"{main.stem}-*.jsonl"))


def item_difference(table: Table, key: Key, source: Row | None, target: Row | None, *, redact: bool) -> ItemDifference:
    """How two items differ, of which one may be missing. With `redact` values and textual keys become digests."""
    ours, theirs = _opened(source), _opened(target)
    names: list[str] = []
    if source is not None and target is not None:
        names = [*differing_attributes(_bytes(source[-1]), _bytes(target[-1]))]
    digest = _digest(b",".join(_bytes(cell) for cell in key))
    entry: dict[str, Any] = {"key": _key(table, key, redact=redact), "digest": digest}
    if names:
        entry["attributes"] = {
            name: {
                side: _shown(item[name], redact=redact)
                for side, item in (("source", ours), ("target", theirs))
                if name in item
            }
            for name in names
        }
    elif source is None or target is None:
        side, item = ("target", theirs) if source is None else ("source", ours)
        entry[side] = {name: _shown(value, redact=redact) for name, value in item.items()}
    return ItemDifference(entry, names, digest)


def _opened(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {}
    item: dict[str, Any] = orjson.loads(_bytes(row[-1]))
    return item


def _key(table: Table, key: Key, *, redact: bool) -> dict[str, Any]:
    """Numbers stay readable: without them nobody finds the item."""
    cells = zip(table.key_columns, key, strict=True)
    return {
        column.name: _shown(orjson.loads(_bytes(cell)), redact=redact and column.source_type != _NUMBER)
        for column, cell in cells
    }


def _shown(attribute: object, *, redact: bool) -> object:
    text = orjson.dumps(attribute, option=orjson.OPT_SORT_KEYS)
    if redact:
        return _digest(text)
    return attribute if len(text) <= _LONGEST else f"{_digest(text)} ({len(text)} bytes)"


def _digest(text: bytes) -> str:
    return f"sha256:{hashlib.sha256(text).hexdigest()[:16]}"


def _bytes(cell: Cell) -> bytes:
    if not isinstance(cell, bytes):
        raise TypeError("an item and its key are bytes of JSON")
    return cell
