"""DynamoDB-typed JSON as bytes: cutting replies into items unopened, keys, canonical forms. No call is made here.

Numbers are strings in this JSON, so nothing is lost where orjson opens it. Types: Amazon DynamoDB API reference,
"AttributeValue"; numbers have up to 38 digits (Developer Guide, "Data types").
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, overload

import orjson

from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Row

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NESTED_BRACES = 5
"""How deep objects may lie in each other for the regular expression: an item, its attributes and two maps deep."""


def _object(depth: int) -> bytes:
    """Matches an object with at most this many levels of braces; lists need no level, for brackets tell nothing."""
    inner = _STRING if depth == 1 else rb"(?:%b|%b)" % (_STRING, _object(depth - 1))
    return rb'\{[^{}"]*+(?:%b[^{}"]*+)*+\}' % inner


_ITEM = re.compile(rb"\s*+(%b)\s*+,?+" % _object(_NESTED_BRACES), re.DOTALL)
_NAME = re.compile(rb"\s*+(%b)\s*+:\s*+" % _STRING, re.DOTALL)
_TOKEN = re.compile(rb'[^{}\[\]"]*+(%b|[{}\[\]])' % _STRING, re.DOTALL)
_SCALAR = re.compile(rb"%b|[^,\]}\s]++" % _STRING, re.DOTALL)
_GAP = re.compile(rb"\s*+,?+\s*+")
_OPENING, _CLOSING = b"{[", b"}]"
_BORDER = b'}},{"'
_AFTER_STRING = frozenset({b",", b"]", b"}", b":", b" ", b"\t", b"\n", b"\r", b""})


# --- cutting ---


@dataclass(frozen=True, slots=True)
class PageBody:
    """A page of Scan or Query: the items' bytes, and what else the reply said, opened."""

    items: list[bytes]
    rest: Mapping[str, Any]

    @property
    def last_key(self) -> dict[str, Any] | None:
        """LastEvaluatedKey: where to read on; None on the last page."""
        return self.rest.get("LastEvaluatedKey") or None

    @property
    def scanned(self) -> int:
        """How many items were read before the filter."""
        return int(self.rest.get("ScannedCount", len(self.items)))

    @property
    def units(self) -> float:
        """Capacity units consumed; 0 where the service does not say."""
        return float((self.rest.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0))


def cut_page(body: bytes) -> PageBody:
    """A reply of Scan or Query. Raises Incompatible for what is none."""
    if b'"L"' not in body:
        page = _page(body, _flat_items_at)
        if page.rest.get("Count") == len(page.items):
            return page
    return _page(body, _items_at)


def _page(body: bytes, cut: Callable[[bytes, int], tuple[list[bytes], int]]) -> PageBody:
    items: list[bytes] = []
    rest: list[bytes] = []
    position = _opened(body)
    while (name := _NAME.match(body, position)) is not None:
        start = name.end()
        if name[1] == b'"Items"':
            items, position = cut(body, start)
        else:
            position = _value_end(body, start)
            rest.append(name[1] + b":" + body[start:position])
        position = _next(body, position)
    _closed(body, position)
    return PageBody(items, _loads(b"{" + b",".join(rest) + b"}"))


def open_batch(body: bytes) -> tuple[dict[str, list[bytes]], Mapping[str, Any]]:
    """A reply of BatchGetItem: the items by table, each written anew, and the rest of it (UnprocessedKeys), opened.

    A reply has its items three objects deep, where cutting costs ten times as much as opening.
    """
    rest = _loads(body)
    responses = rest.pop("Responses", {})
    return {table: [_trimmed(orjson.dumps(item)) for item in items] for table, items in responses.items()}, rest


def _trimmed(written: bytes) -> bytes:
    """A copy that takes no more room than it has bytes: what orjson returns keeps the 4 KB that it was written into."""
    return bytes(memoryview(written))


def _flat_items_at(text: bytes, position: int) -> tuple[list[bytes], int]:
    """The same as `_items_at` at a quarter of the cost, by splitting: for items without lists or spaces.

    A quote behind _BORDER either closes a string, and then one of _AFTER_STRING follows, or opens a name; and before an
    opening quote all is structure, where only an array of objects has such a border. What has spaces between its items
    is left in one piece: the caller must compare the count.
    """
    if text[position : position + 3] != b'[{"':
        return _items_at(text, position)
    pieces = text[position + 3 :].split(_BORDER)
    if not {piece[:1] for piece in pieces}.isdisjoint(_AFTER_STRING):
        return _items_at(text, position)
    last = b'[{"' + pieces.pop()
    items = [b'{"' + piece + b"}}" for piece in pieces]
    rest, used = _items_at(last, 0)
    return items + rest, len(text) - len(last) + used


def _items_at(text: bytes, position: int) -> tuple[list[bytes], int]:
    """The items of the array at a position, and where it ends."""
    if text[position : position + 1] != b"[":
        raise _unreadable("an array of items was expected")
    position += 1
    items: list[bytes] = []
    add, match = items.append, _ITEM.match
    while True:
        while (found := match(text, position)) is not None:
            add(found[1])
            position = found.end()
        position = _skip(text, position)
        if text[position : position + 1] == b"]":
            return items, position + 1
        end = _nested_end(text, position)  # deeper than the expression sees, or no item
        add(text[position:end])
        position = _next(text, end)


def _value_end(text: bytes, position: int) -> int:
    if text[position : position + 1] in (b"{", b"["):
        return _nested_end(text, position)
    scalar = _SCALAR.match(text, position)
    if scalar is None:
        raise _unreadable("a value is missing")
    return scalar.end()


def _nested_end(text: bytes, position: int) -> int:
    """The end of the object or list at a position, counting how deep it is: right for any depth."""
    if text[position : position + 1] not in (b"{", b"["):
        raise _unreadable("an object was expected")
    depth, token = 0, _TOKEN.match
    while (found := token(text, position)) is not None:
        position = found.end()
        mark = text[position - 1]
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if not depth:
            return position
    raise _unreadable("it ends in the middle")


def _skip(text: bytes, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _next(text: bytes, position: int) -> int:
    """Over the comma behind a value."""
    gap = _GAP.match(text, position)
    return position if gap is None else gap.end()


def _opened(text: bytes) -> int:
    position = _skip(text, 0)
    if text[position : position + 1] != b"{":
        raise _unreadable("an object was expected")
    return position + 1


def _closed(text: bytes, position: int) -> None:
    if text[_skip(text, position) :].rstrip() != b"}":
        raise _unreadable("an object does not end where it should")


def _unreadable(why: str) -> Incompatible:
    return Incompatible(
        "a reply or an item is not the JSON that it should be",
        why=why,
        todo="check that the endpoint speaks DynamoDB's protocol, and its version; report it if so",
    )


def _loads(text: bytes) -> dict[str, Any]:
    try:
        opened = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _unreadable("JSON cannot be read") from None
    if not isinstance(opened, dict):
        raise _unreadable("an object was expected")
    return opened


# --- making requests ---


def batch_write_body(table: str, items: Sequence[bytes], keys: Sequence[bytes] = ()) -> bytes:
    """The body of a BatchWriteItem for one table: items put as they stand, keys (objects as JSON) deleted."""
    puts = [b'{"PutRequest":{"Item":' + item + b"}}" for item in items]
    deletes = [b'{"DeleteRequest":{"Key":' + key + b"}}" for key in keys]
    return b'{"RequestItems":{' + orjson.dumps(table) + b":[" + b",".join(puts + deletes) + b"]}}"


def key_json(names: Sequence[str], cells: Row) -> dict[str, Any]:
    """A key as a request wants it: {"pk": {"S": "a"}}."""
    return {name: orjson.loads(_bytes(cell)) for name, cell in zip(names, cells, strict=True)}


def key_bytes(names: Sequence[str], cells: Row) -> bytes:
    """The same as JSON, put together without opening the cells."""
    members = (orjson.dumps(name) + b":" + _bytes(cell) for name, cell in zip(names, cells, strict=True))
    return b"{" + b",".join(members) + b"}"


def _bytes(cell: object) -> bytes:
    if not isinstance(cell, bytes):
        raise TypeError("a key's cell is an attribute as JSON bytes")
    return cell


def key_cells(item: bytes, names: Sequence[str]) -> tuple[bytes, ...]:
    """The item's key attributes as canonical cells. Raises Incompatible where one is missing."""
    opened = _loads(item)
    try:
        return tuple(_trimmed(orjson.dumps(_canonical(opened[name]))) for name in names)
    except KeyError as missing:
        raise _unreadable(f"an item lacks its key attribute {missing}") from None


# --- canonical forms ---


def canonical_attribute(attribute: bytes) -> bytes:
    """An attribute such as {"N":"1.0"} in the form in which equal bytes mean the same value.

    Numbers by value, sets sorted, maps by name, lists in order, binary as standard base64, strings by their characters.
    """
    return orjson.dumps(_canonical(_loads(attribute)), option=orjson.OPT_SORT_KEYS)


def canonical_item(item: bytes) -> bytes:
    """A whole item likewise: its attributes by name."""
    return orjson.dumps(_canonical_map(_loads(item)), option=orjson.OPT_SORT_KEYS)


def differing_attributes(one: bytes, other: bytes) -> tuple[str, ...]:
    """The names of the attributes in which two items differ, sorted; one that only one of them has differs."""
    mine, theirs = _canonical_map(_loads(one)), _canonical_map(_loads(other))
    return tuple(sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)))


def _canonical_map(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _canonical(value) for name, value in attributes.items()}


def _canonical(attribute: Any) -> dict[str, Any]:
    """What is no attribute, or of a type that DynamoDB may add, stays as it is and is compared as that."""
    if not isinstance(attribute, dict) or len(attribute) != 1:
        return {"": attribute}
    ((kind, value),) = attribute.items()
    form = _FORMS.get(kind)
    try:
        return attribute if form is None else {kind: form(value)}
    except (TypeError, AttributeError):
        raise _unreadable(f"an attribute of type {kind} holds something else") from None


_PLAIN_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_LARGEST_EXPONENT = 200
"""DynamoDB's numbers end at 126 digits before the point and 130 after it; beyond, digits are not written out."""


def canonical_number(text: str) -> str:
    """A number's digits without an exponent, a plus or zeros that say nothing; what is no number stays as it is."""
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    try:
        value = Decimal(text)
    except InvalidOperation:
        return text
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return text
    significant = "".join(map(str, digits)).strip("0")
    if not significant:
        return "0"
    exponent += len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return ("-" if sign else "") + _written_out(significant, exponent)


def _written_out(digits: str, exponent: int) -> str:
    if abs(exponent) > _LARGEST_EXPONENT:
        return f"{digits}E{exponent}"
    if exponent >= 0:
        return digits + "0" * exponent
    padded = digits.rjust(1 - exponent, "0")
    return f"{padded[:exponent]}.{padded[exponent:]}"


def _canonical_binary(text: str) -> str:
    try:
        return b64encode(b64decode(text, validate=True)).decode()
    except (binascii.Error, ValueError):
        return text


def _set_of(member: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda members: sorted(set(map(member, members)))


def _canonical_list(members: Any) -> Any:
    return [_canonical(member) for member in members]


_FORMS: dict[str, Callable[[Any], Any]] = {
    "N": canonical_number,
    "B": _canonical_binary,
    "SS": _set_of(str),
    "NS": _set_of(canonical_number),
    "BS": _set_of(_canonical_binary),
    "L": _canonical_list,
    "M": _canonical_map,
}


# --- rows ---


class ItemBlock(Sequence[Row]):
    """Items of one table that were read together, as rows: canonical key cells, then the item's bytes.

    Rows are made when first asked for; a copy needs only `items`. `bookmark`: where to read on after it, None for the
    end of what can be told; a part of a block has the bookmark of its own last item. Bookmarks are a segment, such as
    "0/4", and a key as JSON.
    """

    __slots__ = ("__dict__", "bookmark", "items", "names")

    def __init__(self, items: list[bytes], names: Sequence[str], bookmark: tuple[str, ...] | None = None) -> None:
        self.items, self.names, self.bookmark = items, tuple(names), bookmark

    @cached_property
    def size(self) -> int:
        """The items' bytes."""
        return sum(map(len, self.items))

    @cached_property
    def rows(self) -> list[tuple[bytes, ...]]:
        """All rows."""
        return [(*key_cells(item, self.names), item) for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "ItemBlock": ...
    def __getitem__(self, index: int | slice) -> "Row | ItemBlock":
        return self._part(index) if isinstance(index, slice) else self.rows[index]

    def _part(self, index: slice) -> "ItemBlock":
        if index.step not in (None, 1):
            raise ValueError("a block's items lie one after the other: no step can be taken")
        _, stop, _ = index.indices(len(self.items))
        items = self.items[index]
        bookmark = self.bookmark if stop == len(self.items) else self._after(items)
        return ItemBlock(items, self.names, bookmark)

    def _after(self, items: Sequence[bytes]) -> tuple[str, ...] | None:
        """A Scan may go on after any key of its segment."""
        if self.bookmark is None or not items:
            return None
        return self.bookmark[0], key_bytes(self.names, key_cells(items[-1], self.names)).decode()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by content
