"""What a row's change means for its item: in PolarDB's layout, in others by configuration, and when it is refused."""

from __future__ import annotations

import json
from base64 import b64encode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_api.layout import KeyColumn, Layout
from whimbrel_worker.endpoints.polardb.log.changes import RowChange
from whimbrel_worker.endpoints.polardb.log.messages import (
    UNCHANGED,
    OldRow,
    Relation,
    RelationColumn,
    ReplicaIdentity,
    Values,
)
from whimbrel_worker.endpoints.polardb.rows.items import ItemWrite, KeyAttribute
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout
from whimbrel_worker.endpoints.polardb.rows.naming import parse_rule
from whimbrel_worker.errors import ConfigurationError, Incompatible
from whimbrel_worker.values.items import canonical_item

TEXT, NUMERIC, BYTEA, JSONB = 25, 1700, 17, 3802
OTHER = Layout(
    document_column="item_data",
    key_columns=[
        KeyColumn(name="pk", type="String"),
        KeyColumn(name="sk_s", type="String"),
        KeyColumn(name="sk_n", type="Number"),
        KeyColumn(name="sk_b", type="Binary"),
    ],
    table_rule="app.ddb_{table}",
)
S, N, B = (KeyAttribute("s", "S"), KeyAttribute("n", "N"), KeyAttribute("b", "B"))


def relation(*columns: tuple[str, int, bool], name: str = "items", schema: str = "public", oid: int = 1) -> Relation:
    described = tuple(RelationColumn(column, key, type_oid, -1) for column, type_oid, key in columns)
    return Relation(oid, schema, name, ReplicaIdentity.DEFAULT, described)


ITEMS = relation(("s", TEXT, True), ("n", NUMERIC, True), ("polardb_document", JSONB, False))
PLAIN = ItemLayout(Layout(), {"items": [S, N]})
DOCUMENT = b'{"n": {"N": "1E1"}, "s": {"S": "a"}, "v": {"BOOL": true}}'
KEY = (b'{"S":"a"}', b'{"N":"10"}')


def other_table(where: ReplicaIdentity = ReplicaIdentity.FULL) -> Relation:
    columns = [("pk", TEXT), ("sk_s", TEXT), ("sk_n", NUMERIC), ("sk_b", BYTEA), ("item_data", JSONB)]
    described = tuple(RelationColumn(name, True, type_oid, -1) for name, type_oid in columns)
    return Relation(2, "app", "ddb_items", where, described)


def change(where: Relation, new: Values | None, old: OldRow | None = None) -> RowChange:
    return RowChange(where, old, new, 0)


def keyed(*values: bytes | None) -> OldRow:
    return OldRow(False, (*values, None))


def refusal(layout: ItemLayout, made: RowChange) -> str:
    with pytest.raises(Incompatible) as raised:
        layout.writes(made)
    assert raised.value.todo
    assert raised.value.where == f"{made.relation.schema}.{made.relation.name}"
    return raised.value.why


def test_an_insert_puts_the_document_as_it_stands() -> None:
    assert PLAIN.writes(change(ITEMS, (b"a", b"10", DOCUMENT))) == [ItemWrite("items", KEY, DOCUMENT)]


def test_a_delete_by_key_names_the_key_that_a_put_names() -> None:
    assert PLAIN.writes(change(ITEMS, None, keyed(b"a", b"10.00"))) == [ItemWrite("items", KEY, None)]


def test_an_update_of_the_key_deletes_and_puts() -> None:
    writes = PLAIN.writes(change(ITEMS, (b"a", b"10", DOCUMENT), keyed(b"b", b"10")))
    assert writes == [ItemWrite("items", (b'{"S":"b"}', KEY[1]), None), ItemWrite("items", KEY, DOCUMENT)]


def test_an_update_that_names_the_same_key_puts_alone() -> None:
    assert PLAIN.writes(change(ITEMS, (b"a", b"10", DOCUMENT), keyed(b"a", b"10"))) == [
        ItemWrite("items", KEY, DOCUMENT)
    ]


@pytest.mark.parametrize("old", [None, keyed(b"a", b"10")])
def test_an_untouched_document_is_no_change(old: OldRow | None) -> None:
    assert PLAIN.writes(change(ITEMS, (b"a", b"10", UNCHANGED), old)) == []


def test_an_untouched_document_comes_from_the_whole_old_row() -> None:
    old = OldRow(True, (b"b", b"10", DOCUMENT))
    writes = PLAIN.writes(change(ITEMS, (b"a", b"10", UNCHANGED), old))
    assert writes[-1] == ItemWrite("items", KEY, DOCUMENT)


def test_a_key_too_large_to_be_sent_again_comes_from_the_old_key() -> None:
    assert PLAIN.writes(change(ITEMS, (UNCHANGED, b"10", DOCUMENT), keyed(b"a", b"10"))) == [
        ItemWrite("items", KEY, DOCUMENT)
    ]
    assert PLAIN.writes(change(ITEMS, (UNCHANGED, b"10", DOCUMENT))) == [ItemWrite("items", KEY, DOCUMENT)]


def test_a_moved_key_with_an_untouched_document_stops_the_table() -> None:
    assert "was not sent again" in refusal(PLAIN, change(ITEMS, (b"a", b"10", UNCHANGED), keyed(b"b", b"10")))


@pytest.mark.parametrize(
    ("new", "old", "why"),
    [
        ((b"b", b"10", DOCUMENT), None, "do not hold the key that its document holds"),
        ((b"a", b"NaN", DOCUMENT), None, "is not of type N"),
        ((b"a", b"10", None), None, "has no document"),
        ((b"a", b"10", b"[]"), None, "is not a JSON object"),
        ((b"a", b"10", b"{"), None, "is not a JSON object"),
        (None, keyed(b"a", None), "cannot be told"),
    ],
)
def test_what_cannot_be_carried_is_said(new: Values | None, old: OldRow | None, why: str) -> None:
    assert why in refusal(PLAIN, change(ITEMS, new, old))


def test_key_columns_are_found_by_their_attributes_wherever_they_stand() -> None:
    turned = relation(("polardb_document", JSONB, False), ("n", NUMERIC, True), ("s", TEXT, True))
    assert PLAIN.writes(change(turned, (DOCUMENT, b"10", b"a"))) == [ItemWrite("items", KEY, DOCUMENT)]


def test_one_column_may_be_called_otherwise_where_no_other_is_left() -> None:
    cut = relation(("s_0123", TEXT, True), ("n", NUMERIC, True), ("polardb_document", JSONB, False))
    assert PLAIN.writes(change(cut, None, keyed(b"a", b"10"))) == [ItemWrite("items", KEY, None)]
    two = relation(("x", TEXT, True), ("y", NUMERIC, True), ("polardb_document", JSONB, False))
    with pytest.raises(Incompatible, match=r"spec\.layout\.keyColumns"):
        PLAIN.table(two)


def test_a_changed_relation_is_understood_anew() -> None:
    PLAIN.table(ITEMS)
    wider = relation(
        ("added", TEXT, False), ("s", TEXT, True), ("n", NUMERIC, True), ("polardb_document", JSONB, False)
    )
    assert PLAIN.writes(change(wider, (None, b"a", b"10", DOCUMENT))) == [ItemWrite("items", KEY, DOCUMENT)]
    with pytest.raises(Incompatible, match=r"spec\.layout\.documentColumn"):
        PLAIN.table(relation(("s", TEXT, True), ("n", NUMERIC, True), ("document", JSONB, False)))


def test_a_key_beside_the_replica_identity_is_refused() -> None:
    """An update of it would come without the row of before, and the item would stay under its old key."""
    apart = relation(
        ("id", NUMERIC, True), ("s", TEXT, False), ("n", NUMERIC, False), ("polardb_document", JSONB, False)
    )
    with pytest.raises(Incompatible, match="REPLICA IDENTITY FULL"):
        PLAIN.table(apart)


@pytest.mark.parametrize(
    ("sort", "cells", "attribute"),
    [
        (S, (b"x", None, None), {"S": "x"}),
        (N, (None, b"1.50", None), {"N": "1.5"}),
        (B, (None, None, rb"\x00ff"), {"B": b64encode(b"\x00\xff").decode()}),
    ],
)
def test_another_layout_is_followed_by_configuration(
    sort: KeyAttribute, cells: tuple[bytes | None, ...], attribute: dict[str, str]
) -> None:
    part = KeyAttribute("part", "S")
    layout = ItemLayout(OTHER, {"items": [part, sort]})
    item = {"part": {"S": "p"}, sort.name: attribute, "v": {"N": "1"}}
    key = (b'{"S":"p"}', orjson.dumps(attribute))
    row = (b"p", *cells, orjson.dumps(item))
    assert layout.writes(change(other_table(), row)) == [ItemWrite("items", key, row[-1])]
    assert layout.writes(change(other_table(), None, OldRow(True, row))) == [ItemWrite("items", key, None)]
    assert layout.writes(change(other_table(), None, keyed(b"p", *cells))) == [ItemWrite("items", key, None)]


def test_a_document_without_its_key_gets_it() -> None:
    layout = ItemLayout(OTHER, {"items": [KeyAttribute("part", "S"), N]})
    (write,) = layout.writes(change(other_table(), (b"p", None, b"2", None, b'{"v": {"S": "x"}}')))
    assert write.item is not None
    assert json.loads(write.item) == {"v": {"S": "x"}, "part": {"S": "p"}, "n": {"N": "2"}}
    assert write.key == (b'{"S":"p"}', b'{"N":"2"}')


def test_a_document_with_half_of_its_key_is_still_proven() -> None:
    layout = ItemLayout(OTHER, {"items": [KeyAttribute("part", "S"), N]})
    document = b'{"part": {"S": "q"}, "v": {"S": "x"}}'
    why = refusal(layout, change(other_table(), (b"p", None, b"2", None, document)))
    assert "do not hold the key" in why


def test_a_binary_key_in_a_text_column_is_taken_from_the_document_alone() -> None:
    layout = ItemLayout(OTHER, {"items": [B]})
    document = b'{"b": {"B": "AP8="}}'
    key = (b'{"B":"AP8="}',)
    row = (b"whatever", None, None, None, document)
    assert layout.writes(change(other_table(), row)) == [ItemWrite("items", key, document)]
    assert layout.writes(change(other_table(), None, OldRow(True, row))) == [ItemWrite("items", key, None)]
    why = refusal(layout, change(other_table(), None, keyed(b"whatever", None, None, None)))
    assert "cannot be told" in why


def test_a_sort_key_without_a_column_of_its_type_stops_the_table() -> None:
    layout = ItemLayout(
        OTHER.model_copy(update={"key_columns": OTHER.key_columns[:2]}), {"items": [KeyAttribute("part", "S"), N]}
    )
    with pytest.raises(Incompatible, match="0 columns are for a sort key of type N"):
        layout.table(other_table())


@pytest.mark.parametrize(
    ("rule", "schema", "name", "table"),
    [
        ("", "public", "a.b", "a.b"),
        ("", "other", "a", None),
        ("{table}", "public", "a", "a"),
        ("app.ddb_{table}", "app", "ddb_orders", "orders"),
        ("app.ddb_{table}", "app", "orders", None),
        ("app.ddb_{table}", "app", "ddb_", None),
        ("{table}_v1", "public", "orders_v1", "orders"),
        ("ab{table}ba", "public", "aba", None),
    ],
)
def test_a_rule_tells_which_table_it_is(rule: str, schema: str, name: str, table: str | None) -> None:
    assert parse_rule(rule).table(schema, name) == table


@given(st.sampled_from(["", "{table}", "app.ddb_{table}", "{table}_v1"]), st.text(min_size=1))
def test_a_rule_leads_there_and_back(rule: str, name: str) -> None:
    parsed = parse_rule(rule)
    assert parsed.table(*parsed.server_name(name)) == name


@pytest.mark.parametrize("rule", ["orders", "{table}{table}", ".{table}", "a.b.{table}", "public."])
def test_a_rule_that_says_nothing_is_refused(rule: str) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.layout\.tableRule"):
        parse_rule(rule)


def test_a_table_without_counterpart_stops() -> None:
    assert "not one of the tables" in refusal(PLAIN, change(relation(name="new"), None))


def test_what_is_passed_over_is_counted() -> None:
    layout = ItemLayout(Layout(), {"items": [S, N]}, ignored=lambda table: table.startswith("whimbrel-"))
    for other in (relation(schema="audit"), relation(name="whimbrel-control"), relation(name="whimbrel-control")):
        assert layout.writes(change(other, None)) == []
    assert layout.writes(change(ITEMS, None, keyed(b"a", b"10"))) != []
    assert layout.passed_over == {"audit.items": 1, "public.whimbrel-control": 2}


def test_a_shortened_name_is_given_by_hand() -> None:
    layout = ItemLayout(Layout(), {"a" * 80: [S, N]}, {("public", "items"): "a" * 80})
    assert layout.writes(change(ITEMS, None, keyed(b"a", b"10"))) == [ItemWrite("a" * 80, KEY, None)]
    assert layout.place("a" * 80) == ("public", "items")
    assert layout.place("b") == ("public", "b")


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**9), max_value=10**9)


@given(TEXTS, NUMBERS, st.binary())
def test_columns_and_document_always_mean_one_key(text: str, number: object, data: bytes) -> None:
    item = {"s": {"S": text}, "n": {"N": str(number)}, "b": {"B": b64encode(data).decode()}}
    row: Values = (text.encode(), str(number).encode(), b"\\x" + data.hex().encode(), orjson.dumps(item))
    for first, second in ((S, N), (N, B), (B, S)):
        where = relation(
            ("s", TEXT, True), ("n", NUMERIC, True), ("b", BYTEA, True), ("polardb_document", JSONB, False)
        )
        layout = ItemLayout(Layout(), {"items": [first, second]})
        (put,) = layout.writes(change(where, row))
        (gone,) = layout.writes(change(where, None, OldRow(False, (*row[:3], None))))
        assert put.key == gone.key
        assert put.item is not None
        assert canonical_item(put.item) == canonical_item(orjson.dumps(item))
