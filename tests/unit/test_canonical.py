"""Typed canonical values: what is equal, what differs, and the order of keys."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_worker.values.canonical import (
    canonical,
    differing,
    from_target,
    identity,
    readable,
    same,
    source_could_hold,
    target_expression,
)
from whimbrel_worker.values.columns import Cell, Column, Kind


def column(kind: Kind, target_type: str = "") -> Column:
    return Column("c", kind, "", target_type)


EQUAL: list[tuple[Kind, Cell, Cell]] = [
    (Kind.INTEGER, b"00042", b"42"),
    (Kind.INTEGER, 42, b"42"),
    (Kind.INTEGER, b"18446744073709551615", b"18446744073709551615.000000"),
    (Kind.DECIMAL, b"1.50", b"1.5"),
    (Kind.DECIMAL, b"-0.00", b"0"),
    (Kind.DECIMAL, b"1" * 60 + b".0", b"1" * 60),
    (Kind.FLOAT64, b"1e20", b"1e+20"),
    (Kind.FLOAT64, b"100000", b"1e+05"),
    (Kind.FLOAT64, 0.1, b"0.1"),
    (Kind.FLOAT32, b"0.10000000149011612", b"0.1"),
    (Kind.FLOAT64, b"NaN", b"nan"),
    (Kind.DATETIME, b"2024-01-01 00:00:00.120000", b"2024-01-01 00:00:00.12"),
    (Kind.DATETIME, b"2024-01-01 00:00:00.000000", b"2024-01-01 00:00:00"),
    (Kind.TIMESTAMP, b"2024-01-01 00:00:00", b"2024-01-01 00:00:00+00"),
    (Kind.TIME, b"10:00:00.500", b"10:00:00.5"),
    (Kind.TEXT, b"a", b"a"),
]
DIFFERENT: list[tuple[Kind, Cell, Cell]] = [
    (Kind.TEXT, b"", None),
    (Kind.TEXT, None, b""),
    (Kind.TEXT, b"a", b"a "),
    (Kind.TEXT, b"a", b"A"),
    (Kind.TEXT, b"1.50", b"1.5"),
    (Kind.BYTES, b"\x00", b"\x00\x00"),
    (Kind.INTEGER, b"9007199254740993", b"9007199254740992"),
    (Kind.DECIMAL, b"1" * 60 + b".01", b"1" * 60 + b".02"),
    (Kind.DECIMAL, b"0", b"NaN"),
    (Kind.FLOAT64, b"-0", b"0"),
    (Kind.FLOAT64, b"0.1", b"0.10000000000000002"),
    (Kind.FLOAT32, b"0.10000000149011612", b"0.10000000894069672"),
    (Kind.FLOAT32, b"-0", b"0"),
    (Kind.DATETIME, b"2024-01-01 00:00:00.000001", b"2024-01-01 00:00:00"),
    (Kind.DATETIME, b"2024-01-01 00:00:10", b"2024-01-01 00:00:01"),
    (Kind.TIMESTAMP, b"2024-01-01 00:00:00", b"2024-01-01 02:00:00+00"),
    (Kind.TIMESTAMP, b"2024-01-01 00:00:00", b"2024-01-01 00:00:00+02"),
    (Kind.DATE, b"2024-01-01", b"infinity"),
]


@pytest.mark.parametrize(("kind", "source", "target"), EQUAL)
def test_equal_by_value(kind: Kind, source: Cell, target: Cell) -> None:
    assert same(column(kind), source, target)
    assert identity([column(kind)], [source]) == identity([column(kind)], [target])


@pytest.mark.parametrize(("kind", "source", "target"), DIFFERENT)
def test_different_by_value(kind: Kind, source: Cell, target: Cell) -> None:
    assert not same(column(kind), source, target)


def test_minus_zero_is_the_same_key_but_not_the_same_value() -> None:
    floats = column(Kind.FLOAT64)
    assert identity([floats], [b"-0"]) == identity([floats], [b"0"])
    assert differing([floats], [b"-0"], [b"0"]) == (0,)


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 5))
def test_decimals_have_no_scale(value: Decimal, zeros: int) -> None:
    text = f"{value:f}"
    longer = (text if "." in text else text + ".") + "0" * zeros
    assert canonical(Kind.DECIMAL, text.encode()) == canonical(Kind.DECIMAL, longer.encode())


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_floats_are_equal_by_bits(one: float, other: float) -> None:
    alike = canonical(Kind.FLOAT64, repr(one).encode()) == canonical(Kind.FLOAT64, repr(other).encode())
    assert alike == (one.hex() == other.hex())


@given(
    st.lists(st.integers(-50, 50), unique=True),
    st.lists(st.sampled_from([b"1.50", b"-3", b"20.0", b"NaN"]), unique=True),
)
def test_number_keys_are_ordered_as_numbers(integers: list[int], decimals: list[bytes]) -> None:
    keys = sorted(integers, key=lambda number: identity([column(Kind.INTEGER)], [b"%d" % number]))
    assert keys == sorted(integers)
    ordered = sorted(decimals, key=lambda cell: identity([column(Kind.DECIMAL)], [cell]))
    assert ordered == [cell for cell in (b"-3", b"1.50", b"20.0", b"NaN") if cell in decimals]


def test_target_expressions_make_bytes_equal() -> None:
    zoned = column(Kind.TIMESTAMP, "timestamp(6) with time zone")
    assert target_expression(zoned, 't."c"') == "(t.\"c\" AT TIME ZONE 'UTC')"
    assert target_expression(column(Kind.TIMESTAMP, "timestamp(6)"), '"c"') == '"c"'
    assert target_expression(column(Kind.FLOAT32, "real"), '"c"') == '"c"::double precision'
    assert target_expression(column(Kind.TEXT, "text"), '"c"') == '"c"'


def test_hex_becomes_raw_bytes_and_text_that_looks_like_it_stays() -> None:
    columns = [column(Kind.TEXT), column(Kind.BYTES)]
    assert from_target(columns, [(b"\\x41", b"\\x41"), (None, None), (b"", b"\\x")]) == [
        (b"\\x41", b"A"),
        (None, None),
        (b"", b""),
    ]


@pytest.mark.parametrize(
    ("kind", "cell", "possible"),
    [
        (Kind.INTEGER, b"-5", True),
        (Kind.DECIMAL, b"NaN", False),
        (Kind.DATETIME, b"infinity", False),
        (Kind.DATE, b"0044-03-15 BC", False),
        (Kind.DATE, b"10044-03-15", False),
        (Kind.DATETIME, b"2024-01-01 00:00:00.5", True),
        (Kind.TEXT, b"NaN", True),
    ],
)
def test_keys_that_no_source_can_hold(kind: Kind, cell: bytes, possible: bool) -> None:
    assert source_could_hold([column(kind)], [cell]) is possible


def test_values_are_readable() -> None:
    assert readable(Kind.BYTES, b"\xff\x00") == "\\xff00"
    assert readable(Kind.TEXT, "ü".encode() + b"\xff") == "ü\\xff"
    assert readable(Kind.TEXT, None) is None
