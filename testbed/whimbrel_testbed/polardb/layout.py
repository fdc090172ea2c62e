"""How an item stands in PostgreSQL: the one place that names tables, columns and their SQL.

PolarDB publishes the document column (`polardb_document`) and the database only; the rest is this stand-in's choice:
schema `public`, a table under the DynamoDB table's own name, and a column for each key attribute under the attribute's
name, typed text (collation C), numeric or bytea. Names that PostgreSQL cannot take are shortened (`sql_name`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

DATABASE = "polardb_internal_dynamodb"
SCHEMA = "public"
DOCUMENT = "polardb_document"
_NAME_BYTES = 63
_TAKEN = {DOCUMENT, "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}
_TYPES = {"S": 'text COLLATE "C"', "N": "numeric", "B": "bytea"}
_CASTS = {"S": "{}::text", "N": "{}::numeric", "B": "decode({}, 'base64')"}
_HASHES = {"S": "hashtextextended({}, 0)", "N": "hash_numeric_extended({}, 0)",
           "B": "hashtextextended(encode({}, 'hex'), 0)"}  # fmt: skip


def sql_name(name: str) -> str:
    """Return a table's or column's name in PostgreSQL: DynamoDB's, or its start and a hash where it cannot be."""
    if len(name.encode()) <= _NAME_BYTES and name not in _TAKEN:
        return name
    start = name.encode()[:46].decode(errors="ignore")
    return f"{start}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def quoted(name: str) -> str:
    """Quote a name for a statement that takes parameters (where % stands for one)."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def literal(text: str) -> str:
    """Quote a text for a statement that cannot take parameters; it goes through psycopg with an empty list of them."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


@dataclass(frozen=True)
class Key:
    """A key attribute: its name, its type (S, N or B) and the SQL that reads it from a row of its table."""

    attribute: str
    kind: str
    sql: str

    @property
    def parameter(self) -> str:
        """The SQL of a parameter of this key's type, given as the text that stands in the item's JSON."""
        return _CASTS[self.kind].format("%s")

    @property
    def hash(self) -> str:
        """The SQL of the hash that orders a Scan and cuts it into segments."""
        return _HASHES[self.kind].format(self.sql)

    @property
    def parameter_hash(self) -> str:
        """The same of a parameter."""
        return _HASHES[self.kind].format(self.parameter)

    def taken_from(self, document: str) -> str:
        """The SQL that takes this attribute out of a document; NULL where it is absent or of another type."""
        text = f"({document} -> {literal(self.attribute)} ->> '{self.kind}')"
        collated = f'{text} COLLATE "C"' if self.kind == "S" else _CASTS[self.kind].format(text)
        return f"({collated})"


def column_key(attribute: str, kind: str) -> Key:
    """A table's own key attribute, which has a column."""
    return Key(attribute, kind, quoted(sql_name(attribute)))


def document_key(attribute: str, kind: str) -> Key:
    """An index's key attribute, which stands in the document only."""
    return Key(attribute, kind, Key(attribute, kind, "").taken_from(quoted(DOCUMENT)))


@dataclass(frozen=True)
class Layout:
    """A table in PostgreSQL, with the statements on its items. Items go in as one JSON array, keys likewise."""

    name: str
    keys: tuple[Key, ...]

    @cached_property
    def table(self) -> str:
        """The quoted table."""
        return f"{SCHEMA}.{quoted(sql_name(self.name))}"

    @cached_property
    def _columns(self) -> str:
        return ", ".join(key.sql for key in self.keys)

    @cached_property
    def _from_element(self) -> str:
        return ", ".join(key.taken_from("e.item") for key in self.keys)

    @cached_property
    def _is_element(self) -> str:
        return " AND ".join(f"t.{key.sql} = {key.taken_from('e.item')}" for key in self.keys)

    @cached_property
    def create(self) -> list[str]:
        """The statements that make the table, and the index a Scan walks."""
        columns = [f"{key.sql} {_TYPES[key.kind]} NOT NULL" for key in self.keys]
        return [
            f"CREATE TABLE {self.table} ({', '.join(columns)}, {quoted(DOCUMENT)} jsonb NOT NULL, "
            f"PRIMARY KEY ({self._columns}))",
            f"CREATE INDEX ON {self.table} ({self.keys[0].hash}, {self._columns})",
        ]

    @cached_property
    def drop(self) -> str:
        """The statement that drops it."""
        return f"DROP TABLE {self.table}"

    def comment(self, text: str) -> str:
        """The statement that keeps the table's description with it."""
        return f"COMMENT ON TABLE {self.table} IS {literal(text)}"

    @cached_property
    def _insert(self) -> str:
        return (
            f"INSERT INTO {self.table} ({self._columns}, {quoted(DOCUMENT)}) "
            f"SELECT {self._from_element}, e.item FROM jsonb_array_elements(%s::jsonb) AS e(item) "
            f"ON CONFLICT ({self._columns}) DO "
        )

    @cached_property
    def put(self) -> str:
        """Put items, whatever stood there."""
        return f"{self._insert} UPDATE SET {quoted(DOCUMENT)} = EXCLUDED.{quoted(DOCUMENT)}"

    @cached_property
    def insert(self) -> str:
        """Put items where none stands."""
        return f"{self._insert} NOTHING"

    @cached_property
    def delete(self) -> str:
        """Delete items by key."""
        return f"DELETE FROM {self.table} t USING jsonb_array_elements(%s::jsonb) AS e(item) WHERE {self._is_element}"

    @cached_property
    def get(self) -> str:
        """Get items by key: their place among the keys, counted from 1, and their document."""
        return (
            f"SELECT e.n, t.{quoted(DOCUMENT)} FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS e(item, n) "
            f"JOIN {self.table} t ON {self._is_element} ORDER BY e.n"
        )

    @cached_property
    def get_one(self) -> str:
        """Get one item; the key's values are the parameters."""
        wanted = " AND ".join(f"{key.sql} = {key.parameter}" for key in self.keys)
        return f"SELECT {quoted(DOCUMENT)} FROM {self.table} WHERE {wanted}"

    @cached_property
    def totals(self) -> str:
        """Count the items and the bytes of their documents as PostgreSQL keeps them."""
        return f"SELECT count(*), coalesce(sum(pg_column_size({quoted(DOCUMENT)})), 0)::bigint FROM {self.table}"


def after(order: Sequence[str], parameters: Sequence[str], *, descending: bool) -> str:
    """The SQL condition that a row comes after the one whose values are the parameters."""
    return f"({', '.join(order)}) {'<' if descending else '>'} ({', '.join(parameters)})"
