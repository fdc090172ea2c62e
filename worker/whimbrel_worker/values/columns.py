"""Tables, columns and cells as all parts of the worker see them. Their encodings stand in literals and canonical."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

Cell = bytes | int | float | None
"""One value. From a snapshot: the bytes that MySQL's text protocol sends (strings as UTF-8, blobs raw).

From the change log: int for integers and YEAR, float for FLOAT and DOUBLE, else bytes of the same text. None is NULL.
"""

Row = Sequence[Cell]


class Kind(StrEnum):
    """What a column's values are, whatever the systems call it."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    DATETIME = "datetime"
    TIMESTAMP = "timestamp"
    TIME = "time"
    ATTRIBUTE = "attribute"
    """A DynamoDB-typed attribute as JSON, such as {"S":"a"}."""
    ITEM = "item"
    """A whole DynamoDB item as JSON, its key attributes included."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `source_type` and `target_type` as their systems spell them."""

    name: str
    kind: Kind
    source_type: str
    target_type: str
    nullable: bool = True
    collated: bool = False
    """Whether the source orders it by a collation that is not its bytes' order."""


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index, by column names in order."""

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One table on both sides. `key` holds positions in `columns`, in the key's order."""

    source_schema: str
    source_name: str
    target_schema: str
    target_name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    indexes: tuple[Index, ...] = ()
    rows_estimate: int = 0
    definition: str = ""
    """What the table's own system needs to make it anew, as JSON; empty where the columns say it all."""

    @property
    def name(self) -> str:
        """How people call it: the source's `database.table`, or `table` where the source has no databases."""
        return f"{self.source_schema}.{self.source_name}" if self.source_schema else self.source_name

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The key's columns in the key's order."""
        return tuple(self.columns[position] for position in self.key)

    @property
    def has_unique_index(self) -> bool:
        """Whether rows can contend for a value other than the key."""
        return any(index.unique for index in self.indexes)

    @property
    def key_is_collated(self) -> bool:
        """Whether the source's key order differs from the target's."""
        return any(column.collated for column in self.key_columns)

    def key_of(self, row: Row) -> tuple[Cell, ...]:
        """The key's cells of a row."""
        return tuple(row[position] for position in self.key)
