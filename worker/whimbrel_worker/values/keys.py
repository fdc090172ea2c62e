"""Key cells as text and back: how chunk bounds and resume points are kept in control rows. Their order is the
source's matter."""

from collections.abc import Sequence

from whimbrel_worker.values.columns import Cell, Column, Kind, Table


def key_text(table: Table, key: Sequence[Cell]) -> tuple[str, ...]:
    """A key's cells, in the key's order, as text: binary ones in hex, the others as they are."""
    return tuple(_text(column, cell) for column, cell in zip(table.key_columns, key, strict=True))


def key_cells(table: Table, texts: Sequence[str]) -> tuple[Cell, ...]:
    """The inverse of key_text: cells as a snapshot has them."""
    return tuple(_cell(column, text) for column, text in zip(table.key_columns, texts, strict=True))


def _text(column: Column, cell: Cell) -> str:
    if cell is None:
        raise ValueError(f"key column {column.name} holds NULL")
    if isinstance(cell, bytes):
        return cell.hex() if column.kind is Kind.BYTES else cell.decode()
    return str(cell)


def _cell(column: Column, text: str) -> bytes:
    return bytes.fromhex(text) if column.kind is Kind.BYTES else text.encode()
