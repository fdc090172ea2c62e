"""The target's tables and indexes: made once, found again, and built after the rows are there."""

import pytest

from support.targets import ITEMS, TargetCase, prepared, rows_of
from whimbrel_worker.endpoints.postgres.indexes import index_name
from whimbrel_worker.engine.ports import Upsert
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Index, Table

NAME = Index("by name", ("name",), unique=True)


def with_indexes(*indexes: Index) -> Table:
    return Table(
        ITEMS.source_schema,
        ITEMS.source_name,
        ITEMS.target_schema,
        ITEMS.target_name,
        ITEMS.columns,
        ITEMS.key,
        tuple(indexes),
    )


def index_states(case: TargetCase) -> dict[object, object]:
    rows = case.look(
        "SELECT c.relname, i.indisvalid AND i.indisunique FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'shop' AND NOT i.indisprimary"
    )
    return {row[0]: row[1] for row in rows}


def test_a_table_is_made_once_and_read_back(case: TargetCase) -> None:
    schema = prepared(case).schema()
    schema.create(ITEMS)
    found = schema.existing(ITEMS)
    assert found is not None
    columns, key = found
    assert [(column.name, column.type, column.nullable) for column in columns] == [
        ("id", "bigint", False),
        ("name", "text", True),
        ("data", "bytea", True),
        ("price", "numeric(5,2)", True),
        ("weight", "double precision", True),
    ]
    assert key == ("id",)
    assert not schema.has_rows(ITEMS)
    assert schema.existing(Table("shop", "no", "shop", "no", ITEMS.columns, (0,))) is None


def test_indexes_are_built_behind_the_rows_and_only_once(case: TargetCase) -> None:
    target = prepared(case)
    session = target.session("stream", 0)
    session.take()
    session.commit([Upsert(ITEMS, [(n, b"n%d" % n, None, None, None) for n in range(100)])])
    table = with_indexes(NAME, Index("p", ("price", "weight"), unique=False))
    target.schema().create_indexes(table)
    target.schema().create_indexes(table)
    assert index_states(case) == {'it"e%ms_by name': True, 'it"e%ms_p': False}


def test_a_unique_index_over_equal_rows_names_table_and_index(case: TargetCase) -> None:
    target = prepared(case)
    session = target.session("stream", 0)
    session.take()
    session.commit([Upsert(ITEMS, rows_of([1, 2], b"same"))])
    with pytest.raises(Incompatible, match="by name cannot be built") as refused:
        target.schema().create_indexes(with_indexes(NAME))
    assert refused.value.where == ITEMS.name
    session.commit([Upsert(ITEMS, rows_of([2], b"other"))])
    target.schema().create_indexes(with_indexes(NAME))
    assert index_states(case) == {'it"e%ms_by name': True}


def test_long_names_stay_apart_and_within_the_limit() -> None:
    names = {index_name(ITEMS, Index("x" * 60 + tail, ("name",), unique=False)) for tail in "abc"}
    assert len(names) == 3
    assert all(len(name.encode()) <= 63 for name in names)
