"""Blocks of rows: whatever the packets hold, the fast text forms equal the cell-wise ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.endpoints.mysql.rows import cut_packets, row_block
from whimbrel_worker.values.blocks import RowBlock
from whimbrel_worker.values.columns import Column, Kind
from whimbrel_worker.values.literals import array_literal, array_literals, copy_block

KINDS = (Kind.INTEGER, Kind.TEXT, Kind.BYTES, Kind.DECIMAL, Kind.TEXT, Kind.BYTES)
COLUMNS = tuple(Column(f"c{number}", kind, "", "") for number, kind in enumerate(KINDS))
HEXED = 5

_numbers = st.integers(-(2**63), 2**64).map(lambda number: b"%d" % number)
_texts = st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode)
_hostile = st.sampled_from(
    [b"", b"NULL", b"\\N", b'"', b"\\", b"\t\n\r", b"{},", b"'", b"x" * 250, b"x" * 251, b"y" * 70_000]
)
_bytes = st.binary(max_size=20) | st.sampled_from([b"\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff", b"\xfb" * 300])
_cells = {Kind.INTEGER: _numbers, Kind.DECIMAL: _numbers, Kind.TEXT: _texts | _hostile, Kind.BYTES: _bytes | _hostile}
_rows = st.lists(st.tuples(*(st.none() | _cells[kind] for kind in KINDS)), min_size=1, max_size=12)


def packet(cells: tuple[bytes | None, ...]) -> bytes:
    payload = b"".join(b"\xfb" if cell is None else prefix(len(cell)) + cell for cell in cells)
    return len(payload).to_bytes(3, "little") + b"\x07" + payload


def prefix(length: int) -> bytes:
    if length < 251:
        return bytes([length])
    return b"\xfc" + length.to_bytes(2, "little") if length < 1 << 16 else b"\xfd" + length.to_bytes(3, "little")


def block_of(rows: list[tuple[bytes | None, ...]]) -> RowBlock:
    sent = [
        tuple(
            b"\\x" + cell.hex().encode() if place == HEXED and cell is not None else cell
            for place, cell in enumerate(row)
        )
        for row in rows
    ]
    data = b"".join(map(packet, sent))
    cut = cut_packets(bytearray(data), 0, len(data), 1_000_000)
    assert cut.end == len(data)
    return row_block(data, cut.starts, len(rows[0]), frozenset({HEXED}))


@settings(max_examples=300, deadline=None)
@given(_rows)
def test_fast_forms_equal_the_cell_wise_ones(rows: list[tuple[bytes | None, ...]]) -> None:
    block = block_of(rows)
    assert list(block) == rows
    assert [block[index] for index in range(-len(rows), 0)] == rows
    assert block.copy_block(COLUMNS) == copy_block(COLUMNS, rows)
    cells = zip(*rows, strict=True)
    expected = [array_literal(column.kind, part) for column, part in zip(COLUMNS, cells, strict=True)]
    assert block.array_literals(COLUMNS) == expected


@settings(max_examples=50, deadline=None)
@given(_rows, st.data())
def test_a_slice_is_a_block_of_these_rows(rows: list[tuple[bytes | None, ...]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(0, len(rows)))
    part = block_of(rows)[start:end]
    assert isinstance(part, RowBlock)
    assert list(part) == rows[start:end]
    assert part.copy_block(COLUMNS) == copy_block(COLUMNS, rows[start:end])


@pytest.mark.parametrize("broken", [b"\xf8", b"a\xfa\xf9", b"\xff"])
def test_text_that_is_no_utf_8_takes_the_cell_wise_way(broken: bytes) -> None:
    rows: list[tuple[bytes | None, ...]] = [(b"1", broken, b"\xf8", b"2", b"fine", None)]
    block = block_of(rows)
    assert block.copy_block(COLUMNS) is None
    assert block.array_literals(COLUMNS) is None
    assert copy_block(COLUMNS, block) == copy_block(COLUMNS, rows)
    assert array_literals(COLUMNS, block)[1] == array_literal(Kind.TEXT, [broken])


@settings(max_examples=100, deadline=None)
@given(_rows, st.integers(0, 400), st.integers(1, 5))
def test_packets_are_cut_wherever_the_buffer_ends(
    rows: list[tuple[bytes | None, ...]], filled: int, limit: int
) -> None:
    packets = [packet(row) for row in rows]
    data = bytearray(b"".join(packets))
    filled = min(filled, len(data))
    cut = cut_packets(data, 0, filled, limit)
    ends = [sum(map(len, packets[: number + 1])) for number in range(len(packets))]
    whole = [end for end in ends if end <= filled][:limit]
    assert len(cut.starts) == len(whole)
    assert cut.end == (whole[-1] if whole else 0)


def test_rows_that_do_not_fit_their_columns_are_refused() -> None:
    data = packet((b"1", b"2", b"3"))
    with pytest.raises(ValueError, match="does not hold as many values"):
        row_block(data, [0], 2)


def test_a_packet_that_goes_on_in_the_next_is_reported() -> None:
    assert cut_packets(bytearray(b"\xff\xff\xff\x00abc"), 0, 7, 10).oversized
