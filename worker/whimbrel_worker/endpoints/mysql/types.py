"""MySQL's column types to ours and to the target's, as INFORMATION_SCHEMA.COLUMNS describes them. Pure."""

from dataclasses import dataclass

from whimbrel_worker.values.columns import Column, Kind

_LONGEST_VARCHAR = 16_383
"""Characters that fit Aurora DSQL's 65,535 bytes of a varchar at four bytes each; longer ones become text."""
_WITHOUT_PAD = "utf8mb4_0900_bin"
"""The one collation of text whose order is that of the bytes: the other binary ones pad with spaces or have other
encodings."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A row of INFORMATION_SCHEMA.COLUMNS."""

    name: str
    data_type: str
    column_type: str
    nullable: bool
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    fraction: int | None = None
    collation: str | None = None
    extra: str = ""
    has_default: bool = False

    @property
    def generated(self) -> bool:
        """Whether an expression makes its values."""
        return "GENERATED" in self.extra.upper() and "DEFAULT_GENERATED" not in self.extra.upper()

    @property
    def unsigned(self) -> bool:
        """Whether it holds no negative numbers."""
        return "unsigned" in self.column_type.lower()


_INTEGERS = {
    ("tinyint", False): "smallint",
    ("tinyint", True): "smallint",
    ("smallint", False): "smallint",
    ("smallint", True): "integer",
    ("mediumint", False): "integer",
    ("mediumint", True): "integer",
    ("int", False): "integer",
    ("int", True): "bigint",
    ("bigint", False): "bigint",
    ("bigint", True): "numeric(20,0)",
}
_TIMES = {
    "datetime": (Kind.DATETIME, "timestamp({})"),
    "timestamp": (Kind.TIMESTAMP, "timestamp({}) with time zone"),
    "time": (Kind.TIME, "time({})"),
}


def kind_and_type(column: SourceColumn) -> tuple[Kind, str] | None:
    """What its values are and the target's type, or None where the type cannot be carried."""
    name = column.data_type.lower()
    if name in _TIMES:
        kind, pattern = _TIMES[name]
        return kind, pattern.format(column.fraction or 0)
    if (name, column.unsigned) in _INTEGERS:
        return Kind.INTEGER, _INTEGERS[name, column.unsigned]
    if name == "decimal":
        return Kind.DECIMAL, f"numeric({column.precision},{column.scale})"
    if name in {"char", "varchar"}:
        return Kind.TEXT, _varchar(column.length or 0)
    return _SINGLES.get(name)


_SINGLES = {
    "float": (Kind.FLOAT32, "real"),
    "double": (Kind.FLOAT64, "double precision"),
    "date": (Kind.DATE, "date"),
    "year": (Kind.INTEGER, "smallint"),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext"), (Kind.TEXT, "text")),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), (Kind.BYTES, "bytea")),
}


def _varchar(length: int) -> str:
    return "text" if length > _LONGEST_VARCHAR else f"varchar({max(length, 1)})"


def to_column(column: SourceColumn, target_type: str | None = None) -> Column | None:
    """The column, with another target type where one is asked for; None where its type cannot be carried."""
    found = kind_and_type(column)
    if found is None:
        return None
    kind, usual = found
    collated = kind is Kind.TEXT and column.collation != _WITHOUT_PAD
    return Column(column.name, kind, column.column_type, target_type or usual, column.nullable, collated)
