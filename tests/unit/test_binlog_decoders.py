"""Generated decoders against encoders written from the format's description."""

import random
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.endpoints.mysql.binlog import decoders
from whimbrel_worker.endpoints.mysql.binlog import tablemap as types
from whimbrel_worker.endpoints.mysql.binlog.codegen import general_decoder, row_decoder, run_decoder
from whimbrel_worker.endpoints.mysql.binlog.decoders import TableDecoder
from whimbrel_worker.endpoints.mysql.binlog.fields import Field, field_of
from whimbrel_worker.endpoints.mysql.binlog.model import BinlogColumn, TableInfo
from whimbrel_worker.errors import Incompatible


def column(
    code: int, metadata: int = 0, *, unsigned: bool = False, charset: str = "", nullable: bool = True
) -> BinlogColumn:
    return BinlogColumn("c", code, "X", unsigned, charset, 0, metadata, nullable)


def text(data: bytes, prefix: int) -> bytes:
    return len(data).to_bytes(prefix, "little") + data


def inverted(number: int, size: int, *, negative: bool) -> bytes:
    packed = number ^ (1 << 8 * size - 1)
    return (packed ^ ((1 << 8 * size) - 1) if negative else packed).to_bytes(size, "big")


BYTES_OF = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


def packed_decimal(value: Decimal, precision: int, scale: int) -> bytes:
    whole, _, fraction = f"{value.copy_abs():.{scale}f}".partition(".")
    whole = whole.zfill(precision - scale)[-(precision - scale) :] if precision > scale else ""
    head = len(whole) % 9
    groups = [whole[:head], *(whole[i : i + 9] for i in range(head, len(whole), 9))]
    groups += [fraction[i : i + 9] for i in range(0, len(fraction), 9)]
    raw = b"".join(int(group or 0).to_bytes(BYTES_OF[len(group)], "big") for group in groups)
    return inverted(int.from_bytes(raw, "big"), len(raw), negative=value < 0)


@st.composite
def decimals(draw: st.DrawFn) -> tuple[int, int, Decimal]:
    precision = draw(st.integers(1, 65))
    scale = draw(st.integers(0, min(30, precision)))
    digits = draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    return precision, scale, Decimal((digits < 0, tuple(map(int, str(abs(digits)))), -scale))


def decode_one(layout: Field, raw: bytes) -> Any:
    (value,), end = row_decoder([layout], b"\0")(b"\0" + raw + b"tail", 0)
    assert end == 1 + len(raw)
    return value


def layout_of(code: int, metadata: int = 0, **options: Any) -> Field:
    layout = field_of(column(code, metadata, **options))
    assert isinstance(layout, Field)
    return layout


@settings(max_examples=400, deadline=None)
@given(decimals())
def test_decimals(case: tuple[int, int, Decimal]) -> None:
    precision, scale, value = case
    layout = layout_of(types.NEWDECIMAL, precision << 8 | scale)
    assert decode_one(layout, packed_decimal(value, precision, scale)).decode() == f"{value:.{scale}f}"


@given(
    st.tuples(st.integers(0, 838), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999)),
    st.booleans(),
    st.integers(0, 6),
)
def test_times(parts: tuple[int, int, int, int], negative: bool, digits: int) -> None:
    hour, minute, second, micro = parts
    unit = 10 ** (6 - digits)
    fraction = micro // unit
    size = (digits + 1) // 2
    clock = (hour << 12 | minute << 6 | second) << 8 * size | fraction * 10 ** (2 * size - digits)
    raw = ((1 << 23 + 8 * size) + (-clock if negative else clock)).to_bytes(3 + size, "big")
    sign = "-" if negative and clock else ""
    tail = f".{fraction:0{digits}d}" if digits else ""
    assert (
        decode_one(layout_of(types.TIME2, digits), raw).decode() == f"{sign}{hour:02d}:{minute:02d}:{second:02d}{tail}"
    )


@given(st.datetimes(), st.integers(0, 6))
def test_datetimes(moment: Any, digits: int) -> None:
    size, unit = (digits + 1) // 2, 10 ** (6 - digits)
    packed = (moment.year * 13 + moment.month) << 22 | moment.day << 17 | moment.hour << 12
    packed |= moment.minute << 6 | moment.second | 1 << 39
    fraction = moment.microsecond // unit
    raw = packed.to_bytes(5, "big") + (fraction * 10 ** (2 * size - digits)).to_bytes(size, "big")
    tail = f".{fraction:0{digits}d}" if digits else ""
    expected = moment.replace(microsecond=0).isoformat(" ") + tail
    assert decode_one(layout_of(types.DATETIME2, digits), raw).decode() == expected


def test_integers_at_their_bounds() -> None:
    for code, size in ((types.TINY, 1), (types.SHORT, 2), (types.INT24, 3), (types.LONG, 4), (types.LONGLONG, 8)):
        for value in (-(1 << 8 * size - 1), -1, 0, 1, (1 << 8 * size - 1) - 1):
            assert decode_one(layout_of(code), value.to_bytes(size, "little", signed=True)) == value
        for value in (0, (1 << 8 * size - 1), (1 << 8 * size) - 1):
            assert decode_one(layout_of(code, unsigned=True), value.to_bytes(size, "little")) == value


def integer(chance: random.Random) -> tuple[bytes, Any]:
    value = chance.randrange(-(2**31), 2**31)
    return struct.pack("<i", value), value


def double(chance: random.Random) -> tuple[bytes, Any]:
    value = chance.random()
    return struct.pack("<d", value), value


def string(prefix: int, longest: int) -> Callable[[random.Random], tuple[bytes, Any]]:
    def make(chance: random.Random) -> tuple[bytes, Any]:
        value = chance.randbytes(chance.randrange(longest))
        return text(value, prefix), value

    return make


CASES: list[tuple[BinlogColumn, Callable[[random.Random], tuple[bytes, Any]]]] = [
    (column(types.LONG), integer),
    (column(types.LONG, nullable=False), integer),
    (column(types.DOUBLE), double),
    (column(types.VARCHAR, 200, charset="utf8mb4"), string(1, 20)),
    (column(types.VARCHAR, 200, charset="ascii", nullable=False), string(1, 9)),
    (column(types.VARCHAR, 900, charset="utf8mb4"), string(2, 400)),
    (column(types.BLOB, 3, charset="binary"), string(3, 70000)),
    (column(types.BLOB, 4, charset="binary", nullable=False), string(4, 9)),
    (column(types.STRING, 6, charset="binary"), lambda _: (text(b"\0a", 1), b"\0a\0\0\0\0")),
    (column(types.VARCHAR, 90, charset="latin1"), lambda _: (text(b"\xe9\x80\x81", 1), "é€\x81".encode())),
]


@pytest.mark.parametrize("seed", range(12))
def test_special_and_general_decoders_agree(seed: int) -> None:
    chance = random.Random(seed)
    print("seed", seed)
    picked = [chance.choice(CASES) for _ in range(chance.choice((1, 7, 8, 9, 40, 65, 130)))]
    columns = [case[0] for case in picked]
    layouts = [field_of(one) for one in columns]
    fields = [layout for layout in layouts if isinstance(layout, Field)]
    assert len(fields) == len(columns)
    general = general_decoder(fields, [one.nullable for one in columns])
    wire = b""
    rows: list[Any] = []
    patterns: list[bytes] = []
    for _ in range(20):
        nulls = [one.nullable and chance.random() < 0.3 for one in columns]
        cells = [None if null else make(chance) for null, (_, make) in zip(nulls, picked, strict=True)]
        bitmap = sum(1 << i for i, null in enumerate(nulls) if null).to_bytes((len(nulls) + 7) // 8, "little")
        raw = bitmap + b"".join(cell[0] for cell in cells if cell)
        row = tuple(cell[1] if cell else None for cell in cells)
        assert row_decoder(fields, bitmap)(raw, 0) == (row, len(raw))
        assert general(raw, 0) == (row, len(raw))
        wire, rows, patterns = wire + raw * 2, [*rows, row, row], [*patterns, bitmap]
    found: list[Any] = []
    assert run_decoder(fields, patterns[0])(wire, 0, len(wire), found.append) > 0
    assert found[:2] == rows[:2]
    table = TableDecoder(TableInfo("d", "t", tuple(columns), ()))
    head = bytes([len(columns)]) + b"\xff" * ((len(columns) + 7) // 8)
    for _ in range(decoders.COMPILE_AFTER + 2):  # first by the general decoder, then by those made for the patterns
        assert table.rows(head + wire, 0, len(head) + len(wire)) == rows
    both = head + head[1:]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    assert table.updates(both + wire, 0, len(both) + len(wire)) == pairs


def test_many_patterns_of_nulls_compile_a_bounded_number_of_decoders() -> None:
    columns = tuple(column(types.TINY) for _ in range(12))
    table = TableDecoder(TableInfo("d", "t", columns, ()))
    body = b"\x0c\xff\xff"
    for pattern in range(4096):
        body += struct.pack("<H", pattern) + bytes(12 - pattern.bit_count())
    for _ in range(decoders.COMPILE_AFTER + 1):
        rows = table.rows(body, 0, len(body))
    assert [sum((value is None) << i for i, value in enumerate(row)) for row in rows] == list(range(4096))
    assert len(table._run) == decoders.MAX_COMPILED


def test_an_image_without_all_columns_is_refused() -> None:
    table = TableDecoder(TableInfo("shop", "t", (column(types.TINY), column(types.TINY)), ()))
    with pytest.raises(Incompatible, match=r"without all of its columns.*shop\.t.*binlog_row_image.*FULL"):
        table.rows(b"\x02\x01\x00\x05", 0, 4)
    with pytest.raises(Incompatible, match="binlog_row_image"):
        table.updates(b"\x02\x03\x01\x00\x05\x05\x00\x05", 0, 8)


def test_an_event_that_does_not_end_where_it_must_is_refused() -> None:
    table = TableDecoder(TableInfo("shop", "t", (column(types.TINY), column(types.TINY)), ()))
    with pytest.raises(Incompatible, match=r"could not be decoded.*shop\.t"):
        table.rows(b"\x02\x03\x00\x05\x05\x00\x05" + b"checksum", 0, 7)
    with pytest.raises(Incompatible, match="number of columns"):
        table.rows(b"\x03\x07\x00\x05\x05\x05", 0, 6)


@pytest.mark.parametrize("code", [types.ENUM, types.SET, types.BIT, 245, 255, 242, 7, 11, 12, 20, 99])
def test_types_of_later_versions_are_named(code: int) -> None:
    table = TableDecoder(TableInfo("d", "t", (column(types.TINY), column(code)), ()))
    assert "column c: type" in table.reason


def test_an_unknown_character_set_is_named() -> None:
    table = TableDecoder(TableInfo("d", "t", (column(types.VARCHAR, 9, charset="dec8"),), ()))
    assert "character set dec8" in table.reason
