"""Items as bytes: cutting finds what a JSON parser finds, and canonical forms are equal exactly for equal values."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values import canonical as canon
from whimbrel_worker.values.columns import Column, Kind
from whimbrel_worker.values.items import (
    ItemBlock,
    batch_write_body,
    canonical_attribute,
    canonical_item,
    canonical_number,
    cut_page,
    differing_attributes,
    key_bytes,
    key_cells,
    key_json,
    open_batch,
)

_HOSTILE = [
    '}},{"',
    "}},{",
    '"',
    "\\",
    '\\"',
    "]}",
    '"L"',
    '"L":[{',
    "\u0000",
    "\u2028",
    "é",
    "😀",
    "Items",
    "\n",
    "{}",
    ":",
]
Dump = Callable[[Any], bytes]
_DUMPS: dict[str, Dump] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")).encode(),
    "spaced": lambda value: json.dumps(value).encode(),
    "utf8": lambda value: json.dumps(value, ensure_ascii=False).encode(),
    "indented": lambda value: json.dumps(value, indent=1).encode(),
    "orjson": orjson.dumps,
}


def _texts() -> st.SearchStrategy[str]:
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    return plain | st.lists(st.sampled_from(_HOSTILE), max_size=4).map("".join)


def _numbers() -> st.SearchStrategy[str]:
    digits = st.integers(-(10**38) + 1, 10**38 - 1)
    return st.builds(lambda d, e: format(Decimal(d).scaleb(e), "f"), digits, st.integers(-60, 60)) | digits.map(str)


def _binaries() -> st.SearchStrategy[str]:
    return st.binary(max_size=9).map(lambda raw: b64encode(raw).decode())


def _flat() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.fixed_dictionaries({"S": _texts()}),
        st.fixed_dictionaries({"N": _numbers()}),
        st.fixed_dictionaries({"B": _binaries()}),
        st.fixed_dictionaries({"BOOL": st.booleans()}),
        st.just({"NULL": True}),
        st.fixed_dictionaries({"SS": st.lists(_texts(), unique=True, min_size=1, max_size=4)}),
        st.fixed_dictionaries({"NS": st.lists(st.integers().map(str), unique=True, min_size=1, max_size=4)}),
        st.fixed_dictionaries({"BS": st.lists(_binaries(), unique=True, min_size=1, max_size=4)}),
    )


def _attributes() -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        _flat(),
        lambda inner: st.one_of(
            st.fixed_dictionaries({"L": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"M": st.dictionaries(_texts(), inner, max_size=3)}),
        ),
        max_leaves=12,
    )


def _items(attributes: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    rest = st.dictionaries(_texts().filter(lambda name: name != "pk"), attributes, max_size=4)
    return st.builds(lambda key, rest: {"pk": {"S": key}, **rest}, _texts(), rest)


ITEMS = st.lists(_items(_attributes()), max_size=6)
FLAT_ITEMS = st.lists(_items(_flat()), max_size=6)
DUMPS = st.sampled_from(sorted(_DUMPS))


# --- cutting ---


def cut_array(array: bytes) -> list[bytes]:
    return cut_page(b'{"Items":' + array + b"}").items


@given(ITEMS | FLAT_ITEMS, DUMPS)
def test_a_page_is_cut_into_what_a_parser_finds(items: list[dict[str, Any]], style: str) -> None:
    rest = {"Count": len(items), "ScannedCount": 9, "ConsumedCapacity": {"TableName": 'x"}},{"', "CapacityUnits": 2.5}}
    rest |= {"LastEvaluatedKey": {"pk": {"S": '}},{"a'}}}
    names = list({"Items": items, **rest}.items())
    for order in (names, names[::-1]):
        page = cut_page(_DUMPS[style](dict(order)))
        assert [json.loads(item) for item in page.items] == items
        assert page.rest == rest
        assert (page.last_key, page.scanned, page.units) == (rest["LastEvaluatedKey"], 9, 2.5)


@given(ITEMS | FLAT_ITEMS, st.sampled_from(["compact", "spaced", "utf8", "orjson"]))
def test_the_pieces_are_the_very_bytes(items: list[dict[str, Any]], style: str) -> None:
    dump = _DUMPS[style]
    texts = [dump(item) for item in items]
    assert cut_array(dump(items)) == texts
    assert cut_page(dump({"Count": len(items), "Items": items})).items == texts
    assert open_batch(dump({"Responses": {"a.b": items}, "UnprocessedKeys": {}})) == (
        {"a.b": [orjson.dumps(item) for item in items]},
        {"UnprocessedKeys": {}},
    )


@given(_items(_attributes()), DUMPS)
def test_an_item_of_a_batch_keeps_its_members(item: dict[str, Any], style: str) -> None:
    (written,) = open_batch(_DUMPS[style]({"Responses": {"t": [item]}}))[0]["t"]
    assert json.loads(written) == item


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 20])
def test_items_may_be_nested_as_deep_as_dynamodb_allows(depth: int) -> None:
    attribute: dict[str, Any] = {"S": ']}"{['}
    for level in range(depth):
        attribute = {"M": {"x": attribute}} if level % 2 else {"L": [attribute, {"N": "1"}]}
    flat = {"pk": {"S": "a"}}
    items = [flat, {"pk": {"S": "b"}, "deep": attribute}, flat]
    assert cut_array(orjson.dumps(items)) == [orjson.dumps(item) for item in items]


def test_items_with_spaces_between_some_of_them_only() -> None:
    array = b'[{"a":{"S":"1"}}, {"a":{"S":"2"}},{"a":{"S":"3"}}\n,{"a":{"S":"4"}} ]'
    page = cut_page(b'{"Count":4,"Items":' + array + b"}")
    assert [json.loads(item)["a"]["S"] for item in page.items] == list("1234")


def test_a_list_that_looks_like_items_beside_items_with_spaces_between() -> None:
    """Here a border too many and one too few would give the right count."""
    listed = b'{"a":{"L":[{"M":{"x":{"S":"1"}}},{"M":{"x":{"S":"2"}}}]}}'
    page = cut_page(b'{"Count":2,"Items":[' + listed + b', {"a":{"S":"3"}}]}')
    assert page.items == [listed, b'{"a":{"S":"3"}}']


def test_an_empty_page_has_a_place_to_go_on() -> None:
    page = cut_page(b'{"Count":0,"Items":[],"LastEvaluatedKey":{"pk":{"S":"a"}},"ScannedCount":7}')
    assert (page.items, page.last_key, page.scanned, page.units) == ([], {"pk": {"S": "a"}}, 7, 0.0)
    assert cut_page(b'{"Count":0,"Items":[],"ScannedCount":0}').last_key is None


@pytest.mark.parametrize(
    "text", [b"", b"[", b"{", b"null", b'[{"a":{"S":"1"}}', b'[{"a"', b"[1]", b"[]x", b"[}]", b'{"Items":[}', b"\xff"]
)
def test_what_is_cut_short_is_refused(text: bytes) -> None:
    for cut in (cut_array, cut_page, open_batch):
        with pytest.raises(Incompatible):
            cut(b'{"Responses":{"t":' + text if cut is open_batch else text)


@given(ITEMS)
def test_a_batch_puts_the_items_as_they_stand(items: list[dict[str, Any]]) -> None:
    body = json.loads(batch_write_body('t"', [orjson.dumps(item) for item in items], [b'{"pk":{"S":"x"}}']))
    puts = [{"PutRequest": {"Item": item}} for item in items]
    assert body == {"RequestItems": {'t"': [*puts, {"DeleteRequest": {"Key": {"pk": {"S": "x"}}}}]}}


# --- canonical forms ---


@given(_numbers())
def test_a_canonical_number_has_the_same_value_and_one_spelling(number: str) -> None:
    canonical = canonical_number(number)
    assert Decimal(canonical) == Decimal(number)
    value = Decimal(number)
    for other in (f"{value:E}", f"+{number}" if value >= 0 else number, f"{number}.0" if "." not in number else number):
        assert canonical_number(other) == canonical
    assert "E" not in canonical
    assert canonical_number(canonical) == canonical


@given(_numbers(), _numbers())
def test_numbers_are_one_exactly_when_their_values_are(one: str, other: str) -> None:
    assert (canonical_number(one) == canonical_number(other)) == (Decimal(one) == Decimal(other))


@pytest.mark.parametrize(
    ("number", "canonical"),
    [
        ("1.0", "1"),
        ("-0", "0"),
        ("0.000", "0"),
        ("1e3", "1000"),
        ("-12.340", "-12.34"),
        ("00012", "12"),
        ("1E-130", "0." + "0" * 129 + "1"),
        ("1E300", "1E300"),
        ("10E299", "1E300"),
        ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("abc", "abc"),
        ("NaN", "NaN"),
    ],
)
def test_numbers(number: str, canonical: str) -> None:
    assert canonical_number(number) == canonical


def _respelled(value: Any, rng: random.Random) -> Any:
    """The same attribute, said in another way."""
    ((kind, held),) = value.items()
    if kind == "N":
        return {"N": f"{Decimal(held):E}"}
    if kind == "NS":
        return {"NS": rng.sample([f"{number}.0" for number in held], len(held))}
    if kind in {"SS", "BS"}:
        return {kind: rng.sample(held, len(held))}
    if kind == "L":
        return {"L": [_respelled(member, rng) for member in held]}
    return {"M": _respelled_map(held, rng)} if kind == "M" else value


def _respelled_map(held: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return {name: _respelled(held[name], rng) for name in rng.sample(sorted(held), len(held))}


@given(_items(_attributes()), DUMPS, DUMPS, st.randoms(use_true_random=False))
def test_the_same_item_said_in_another_way_is_the_same(
    item: dict[str, Any], style: str, other_style: str, rng: random.Random
) -> None:
    one, other = _DUMPS[style](item), _DUMPS[other_style](_respelled_map(item, rng))
    assert canonical_item(one) == canonical_item(other)
    assert differing_attributes(one, other) == ()
    assert canonical_item(canonical_item(one)) == canonical_item(one)


@given(_attributes(), _attributes())
def test_attributes_that_differ_are_not_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = canonical_attribute(orjson.dumps(one)) == canonical_attribute(orjson.dumps(other))
    assert same == (_model(one) == _model(other))


def _model(attribute: dict[str, Any]) -> object:
    """What an attribute is, by Python's own types."""
    ((kind, held),) = attribute.items()
    if kind in {"SS", "BS"}:
        return kind, frozenset(held)
    if kind == "NS":
        return kind, frozenset(map(Decimal, held))
    if kind == "L":
        return kind, [_model(member) for member in held]
    if kind == "M":
        return kind, {name: _model(member) for name, member in held.items()}
    return kind, Decimal(held) if kind == "N" else held


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"S":""}', b'{"NULL":true}'),
        (b'{"L":[{"S":"a"},{"S":"b"}]}', b'{"L":[{"S":"b"},{"S":"a"}]}'),
        (b'{"N":"1"}', b'{"S":"1"}'),
        (b'{"SS":["1"]}', b'{"NS":["1"]}'),
        (b'{"B":"YQ=="}', b'{"B":"Yg=="}'),
        (b'{"M":{}}', b'{"L":[]}'),
        (b'{"N":"12345678901234567890123456789012345678"}', b'{"N":"12345678901234567890123456789012345679"}'),
        (b'{"S":"\xc3\xa9"}', b'{"S":"e\xcc\x81"}'),
    ],
)
def test_values_that_look_alike_are_told_apart(one: bytes, other: bytes) -> None:
    assert canonical_attribute(one) != canonical_attribute(other)
    assert differing_attributes(b'{"k":{"S":"x"},"a":' + one + b"}", b'{"a":' + other + b',"k":{"S":"x"}}') == ("a",)


def test_absent_is_neither_null_nor_empty() -> None:
    for held in (b'{"NULL":true}', b'{"S":""}'):
        assert differing_attributes(b'{"k":{"S":"x"},"a":' + held + b"}", b'{"k":{"S":"x"}}') == ("a",)


@pytest.mark.parametrize("attribute", [b'{"N":5}', b'{"M":[]}', b'{"NS":[5]}', b'{"SS":5}', b"[5]", b"{"])
def test_what_is_no_attribute_is_refused_without_its_value(attribute: bytes) -> None:
    with pytest.raises(Incompatible) as refused:
        canonical_attribute(attribute)
    assert "5" not in str(refused.value)


# --- keys and rows ---


def test_key_cells_are_canonical() -> None:
    item = b'{"x":{"S":"1"},"n":{"N":"1.00"},"s":{"S":"\\u00e9\\/"},"b":{"B":"YQ=="}}'
    cells = key_cells(item, ("s", "n", "b"))
    assert cells == (b'{"S":"\xc3\xa9/"}', b'{"N":"1"}', b'{"B":"YQ=="}')
    assert key_json(("s", "n"), cells[:2]) == {"s": {"S": "é/"}, "n": {"N": "1"}}
    assert json.loads(key_bytes(("s", "n"), cells[:2])) == key_json(("s", "n"), cells[:2])
    with pytest.raises(Incompatible, match="lacks its key attribute 'y'"):
        key_cells(item, ("y",))


def test_a_block_makes_rows_of_items() -> None:
    items = [b'{"pk":{"N":"%d.0"},"v":{"S":"a"}}' % number for number in range(5)]
    block = ItemBlock(items, ("pk",), ("1/4", '{"pk":{"N":"4"}}'))
    assert list(block) == [(b'{"N":"%d"}' % number, item) for number, item in enumerate(items)]
    assert (len(block), block[2][0], block.size) == (5, b'{"N":"2"}', sum(map(len, items)))
    assert block[3:].bookmark == block.bookmark
    assert block[:2].bookmark == ("1/4", '{"pk":{"N":"1"}}')
    assert list(block[1:3]) == list(block)[1:3]
    assert block[:0].bookmark is None


KEY = Column("pk", Kind.ATTRIBUTE, "S", "S", collated=True)
ITEM = Column("item", Kind.ITEM, "", "")


def test_the_common_comparison_knows_attributes_and_items() -> None:
    source = (b'{"S":"a"}', b'{"pk":{"S":"a"},"n":{"N":"1.0"}}')
    assert canon.differing((KEY, ITEM), source, (b'{"S":"a"}', b'{"n":{"N":"1"},"pk":{"S":"a"}}')) == ()
    assert canon.differing((KEY, ITEM), source, (b'{"S":"a"}', b'{"n":{"N":"2"},"pk":{"S":"a"}}')) == (1,)
    assert canon.identity((KEY,), (b'{ "S": "\\u0061" }',)) == canon.identity((KEY,), (b'{"S":"a"}',))
    assert canon.source_could_hold((KEY,), (b'{"S":"anything"}',))
    assert canon.readable(Kind.ATTRIBUTE, b'{"S":"\xc3\xa9"}') == '{"S":"é"}'


@settings(max_examples=30)
@given(ITEMS)
def test_no_spelling_makes_cutting_slow(items: list[dict[str, Any]]) -> None:
    """Possessive repeats: a string that never ends is given up at once, however long it is."""
    with pytest.raises(Incompatible):
        cut_array(orjson.dumps(items)[:-1] + b',{"a":{"S":"' + b'\\"}},{' * 20_000)
