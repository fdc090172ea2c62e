"""Judging a catalogue: types, keys, names, overrides. No server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_api.migration import ColumnOverride, TableOverride, Tables
from whimbrel_worker.endpoints.mysql.catalogue import Catalogue, SourceIndex, SourceTable
from whimbrel_worker.endpoints.mysql.checks import is_granted, parse_version, setting_problems
from whimbrel_worker.endpoints.mysql.discover import Discovery, discover
from whimbrel_worker.endpoints.mysql.sqltext import after, literal, name, up_to
from whimbrel_worker.endpoints.mysql.types import SourceColumn, to_column
from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.engine.schema_match import normal_type
from whimbrel_worker.engine.throttle import Throttle
from whimbrel_worker.values.columns import Column, Kind, Table

DSQL = Profile("Aurora DSQL", 2998, 5 << 20, 3000.0, True, 255, frozenset({"bytea"}))
PRIMARY = SourceIndex("PRIMARY", True, ("id",), True)


def column(type_: str = "int", name: str = "id", nullable: bool = False, **more: object) -> SourceColumn:
    return SourceColumn(name, type_.partition("(")[0].partition(" ")[0], type_, nullable, **more)  # type: ignore[arg-type]


def table(*columns: SourceColumn, indexes: tuple[SourceIndex, ...] = (PRIMARY,), name: str = "t") -> SourceTable:
    return SourceTable("shop", name, "InnoDB", 10, list(columns), list(indexes))


def judged(*tables: SourceTable, **wanted: object) -> Discovery:
    return discover(Catalogue(list(tables), {}), Tables(**wanted), DSQL)  # type: ignore[arg-type]


def fatal(found: Discovery) -> str:
    return " | ".join(f"{p.what}; {p.where}; {p.why}; {p.todo}" for p in found.problems if p.fatal)


@pytest.mark.parametrize(
    ("source", "more", "target"),
    [
        ("tinyint(1)", {}, "smallint"),
        ("smallint unsigned", {}, "integer"),
        ("int unsigned", {}, "bigint"),
        ("bigint unsigned", {}, "numeric(20,0)"),
        ("decimal(65,30)", {"precision": 65, "scale": 30}, "numeric(65,30)"),
        ("varchar(40)", {"length": 40}, "varchar(40)"),
        ("varchar(16384)", {"length": 16384}, "text"),
        ("char(0)", {"length": 0}, "varchar(1)"),
        ("datetime(3)", {"fraction": 3}, "timestamp(3)"),
        ("timestamp", {"fraction": 0}, "timestamp(0) with time zone"),
        ("year", {}, "smallint"),
        ("longblob", {}, "bytea"),
    ],
)
def test_types(source: str, more: dict[str, Any], target: str) -> None:
    found = to_column(column(source, **more))
    assert found is not None
    assert found.target_type == target


@pytest.mark.parametrize("source", ["json", "bit(8)", "enum('a')", "set('a')", "point", "geometry"])
def test_types_that_cannot_be_carried_name_column_and_remedy(source: str) -> None:
    found = judged(table(column(), column(source, "c")))
    assert found.tables == []
    assert f"column c has the type {source}, which cannot be carried; shop.t.c;" in fatal(found)
    assert "tables.exclude" in fatal(found)


def test_a_table_without_a_primary_key_names_a_unique_index_to_take() -> None:
    unique = SourceIndex("by_code", True, ("code",), True)
    found = judged(table(column(name="code"), indexes=(unique,)))
    assert "the table has no primary key; shop.t;" in fatal(found)
    assert "name [code], which the unique index by_code covers, under tables.overrides[].primaryKey" in fatal(found)
    override = TableOverride(name="shop.t", primary_key=["code"])
    assert judged(table(column(name="code"), indexes=(unique,)), overrides=[override]).tables[0].key == (0,)


def test_a_key_without_a_unique_index_or_with_nulls_is_refused() -> None:
    override = TableOverride(name="shop.t", primary_key=["code"])
    plain = table(column(), column(name="code", nullable=True))
    text = fatal(judged(plain, overrides=[override]))
    assert "no unique index covers the key (code)" in text
    assert "key column code may be NULL" in text


def test_a_binary_key_is_refused_where_the_target_cannot_index_it() -> None:
    assert "key column id would be bytea" in fatal(judged(table(column("binary(16)", length=16))))
    assert "floating-point" in fatal(judged(table(column("double"))))


def test_names_that_the_target_would_cut_or_that_are_reserved() -> None:
    assert "does not fit the target" in fatal(judged(table(column(), name="n" * 64)))
    assert "does not fit the target" in fatal(
        judged(table(column(name="ü" * 32), indexes=(SourceIndex("PRIMARY", True, ("ü" * 32,), True),)))
    )
    reserved = SourceTable("whimbrel", "t", "InnoDB", 0, [column()], [PRIMARY])
    assert "the target's schema 'whimbrel' is reserved" in fatal(judged(reserved))
    renamed = judged(
        table(column(), name="n" * 64), overrides=[TableOverride(name="shop.n*", rename_to="public.short")]
    )
    assert (renamed.tables[0].target_schema, renamed.tables[0].target_name) == ("public", "short")


def test_two_tables_that_lead_to_one_are_refused() -> None:
    override = TableOverride(name="shop.*", rename_to="same")
    assert "shop.a and shop.b both lead to shop.same" in fatal(
        judged(table(column(), name="a"), table(column(), name="b"), overrides=[override])
    )


def test_overrides_of_columns_that_are_not_there_are_refused() -> None:
    override = TableOverride(name="shop.t", columns=[ColumnOverride(name="nope", type="bigint")])
    assert "tables.overrides names the column nope" in fatal(judged(table(column()), overrides=[override]))
    good = TableOverride(name="shop.t", columns=[ColumnOverride(name="id", type="bigint")])
    assert judged(table(column()), overrides=[good]).tables[0].columns[0].target_type == "bigint"


def test_exclude_wins_and_a_pattern_that_matches_nothing_is_told() -> None:
    found = judged(table(column(), name="a"), table(column(), name="tmp_b"), include=["shop.*"], exclude=["shop.tmp_*"])
    assert [t.source_name for t in found.tables] == ["a"]
    assert "nothing matches blog.* of tables.include" in fatal(judged(table(column()), include=["shop.*", "blog.*"]))
    assert "no table to move" in fatal(judged())


def test_what_stays_behind_is_a_warning_each_kind() -> None:
    source = table(
        column(extra="auto_increment"),
        column("varchar(9)", "v", length=9, extra="STORED GENERATED"),
        column("int", "i", extra="INVISIBLE", has_default=True),
        indexes=(PRIMARY, SourceIndex("prefix", False, ("v",), False), SourceIndex("plain", True, ("i", "v"), True)),
    )
    found = discover(Catalogue([source], {"triggers": [("shop", "t")], "views": [("shop", "w")]}), Tables(), DSQL)
    text = " | ".join(problem.what for problem in found.problems)
    assert not any(problem.fatal for problem in found.problems)
    for kind in (
        "AUTO_INCREMENT",
        "column defaults",
        "invisibility",
        "prefix, expression",
        "triggers",
        "views",
        "generated",
    ):
        assert kind in text, kind
    assert [(index.name, index.columns, index.unique) for index in found.tables[0].indexes] == [
        ("plain", ("i", "v"), True)
    ]


def test_settings_each_with_its_remedy() -> None:
    good = {
        "version": "8.4.3", "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "gtid_mode": "ON",
        "binlog_row_metadata": "FULL", "enforce_gtid_consistency": "ON", "binlog_row_value_options": "",
        "binlog_transaction_compression": "OFF", "binlog_expire_logs_seconds": "2592000",
    }  # fmt: skip
    assert setting_problems(good) == []
    for setting, value in {
        "log_bin": "OFF", "binlog_format": "MIXED", "binlog_row_image": "MINIMAL", "binlog_row_metadata": "MINIMAL",
        "gtid_mode": "OFF_PERMISSIVE", "enforce_gtid_consistency": "WARN", "binlog_row_value_options": "PARTIAL_JSON",
        "version": "5.7.44",
    }.items():  # fmt: skip
        (problem,) = setting_problems(good | {setting: value})
        assert problem.fatal
        assert problem.why
        assert problem.todo
        assert value in problem.what or setting == "log_bin"
    (compressed,) = setting_problems(good | {"binlog_transaction_compression": "ON"})
    assert compressed.fatal
    assert "MariaDB" in setting_problems(good | {"version": "11.4.2-MariaDB"})[0].what
    assert parse_version("8.0.36-28") == (8, 0)


def test_grants() -> None:
    grants = ["GRANT SELECT, REPLICATION SLAVE ON *.* TO `w`@`%`", "GRANT REPLICATION CLIENT ON `db`.* TO `w`@`%`"]
    assert is_granted(grants, "REPLICATION SLAVE")
    assert not is_granted(grants, "REPLICATION CLIENT")
    assert is_granted(["GRANT ALL PRIVILEGES ON *.* TO `w`@`%`"], "REPLICATION CLIENT")


def keyed(*kinds: Kind) -> Table:
    columns = tuple(Column(f"k`{number}", kind, "", "") for number, kind in enumerate(kinds))
    return Table("a", "b", "a", "b", columns, tuple(range(len(columns))))


def test_ranges_are_expanded_with_a_bound_on_the_leading_column() -> None:
    two = keyed(Kind.INTEGER, Kind.INTEGER)
    assert after(two, ("1", "2")) == "(`k``0` >= 1 AND ((`k``0` > 1) OR (`k``0` = 1 AND `k``1` > 2)))"
    assert up_to(two, ("1", "2")) == "(`k``0` <= 1 AND ((`k``0` < 1) OR (`k``0` = 1 AND `k``1` <= 2)))"
    assert after(keyed(Kind.INTEGER), ("1",)) == "`k``0` > 1"


@given(st.text(max_size=30))
def test_a_text_literal_holds_nothing_but_hex(text: str) -> None:
    encodable = text.encode("utf-8", "ignore").decode()
    made = literal(keyed(Kind.TEXT).columns[0], encodable)
    assert made == f"_utf8mb4 x'{encodable.encode().hex()}'"


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Kind.INTEGER, "1 OR 1=1"), (Kind.DATE, "2024-01-01' OR '"), (Kind.FLOAT64, "1.0"), (Kind.BYTES, "zz")],
)
def test_a_literal_that_is_no_value_of_its_type_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match=r"no |hex"):
        literal(keyed(kind).columns[0], text)


def test_names_are_quoted() -> None:
    assert name("a`b", "c.d") == "`a``b`.`c.d`"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("varchar(40)", "character varying(40)"),
        ("timestamp(3)", "timestamp(3) without time zone"),
        ("timestamp(6)", "timestamp without time zone"),
        ("timestamp(0) with time zone", "timestamp(0) with time zone"),
        ("numeric(20, 0)", "numeric(20,0)"),
        ("time(0)", "time(0) without time zone"),
        ("int8", "bigint"),
        ("timestamptz", "timestamp with time zone"),
    ],
)
def test_spellings_of_one_type_are_equal(one: str, other: str) -> None:
    assert normal_type(one) == normal_type(other)


def test_types_that_differ_are_told_apart() -> None:
    spelled = [
        "text",
        "varchar(4)",
        "varchar(5)",
        "integer",
        "bigint",
        "timestamp(3)",
        "timestamp(0)",
        "timestamptz",
        "bytea",
    ]
    assert len({normal_type(text) for text in spelled}) == len(spelled)


def test_a_throttle_lets_a_batch_go_when_the_earlier_ones_are_paid_for() -> None:
    now = 100.0
    throttle = Throttle(clock=lambda: now)
    assert throttle.wait_seconds(10) == 0
    throttle.spend(50, 10)
    assert throttle.wait_seconds(10) == pytest.approx(4.0)
    now += 4.0
    assert throttle.wait_seconds(10) == 0
    throttle.spend(50, None)
    assert throttle.wait_seconds(10) == 0
