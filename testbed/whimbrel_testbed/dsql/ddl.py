"""What CREATE TABLE, ALTER TABLE, sequences and indexes may say on Aurora DSQL; by tokens, without I/O.

Other statements are classified in classify.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from whimbrel_testbed.dsql import refusals, sql
from whimbrel_testbed.dsql.limits import Limits
from whimbrel_testbed.dsql.refusals import Refusal, RefusedError
from whimbrel_testbed.dsql.sql import Token

_LIMITS = Limits()
_SERIALS = {"SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"}
_REFUSED = {
    "BIT", "VARBIT", "MONEY", "XML", "INET", "CIDR", "MACADDR", "MACADDR8", "POINT", "LINE", "LSEG", "BOX", "PATH",
    "POLYGON",
    "CIRCLE", "GEOMETRY", "GEOGRAPHY", "INT4RANGE", "INT8RANGE", "NUMRANGE", "TSRANGE", "TSTZRANGE", "DATERANGE",
    "INT4MULTIRANGE", "INT8MULTIRANGE", "NUMMULTIRANGE", "TSMULTIRANGE", "TSTZMULTIRANGE", "DATEMULTIRANGE", "TSVECTOR",
    "TSQUERY", "PG_LSN", "JSONPATH", "HSTORE", "CITEXT",
}  # fmt: skip
_NUMERIC = {"NUMERIC", "DECIMAL", "DEC"}
_BIGINT = {"BIGINT", "INT8"}
NOT_INDEXABLE = {"BYTEA", "JSON", "JSONB", "INTERVAL", "TIMETZ"}
_TABLE_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE", "LIKE"}


@dataclass
class Rewrite:
    """Texts to insert into a statement, by place; and texts to cut out."""

    text: str
    insertions: list[tuple[int, str]] = field(default_factory=list)

    def result(self) -> str:
        """Return the statement with everything inserted."""
        text = self.text
        for place, inserted in sorted(self.insertions, reverse=True):
            text = text[:place] + inserted + text[place:]
        return text


def column_type(found: list[Token], at: int, rewrite: Rewrite) -> str:
    """Check the type that begins at a token; return its (first) word. A bare numeric becomes numeric(18,6)."""
    word = found[at].word
    following = [token.word or token.text for token in found[at + 1 : at + 5]]
    if word in _SERIALS:
        raise RefusedError(Refusal("42704", f'type "{found[at].name}" does not exist'))
    if word in _REFUSED:
        raise RefusedError(refusals.datatype(found[at].name))
    _refuse_array(found, at)
    if word in _NUMERIC and following[:1] != ["("]:
        rewrite.insertions.append((found[at].end, "(18,6)"))
    _refuse_length(word, following)
    if word == "TIME" and "ZONE" in following and "WITH" in following:
        return "TIMETZ"
    return word


def _refuse_length(word: str, following: list[str]) -> None:
    """Refuse char(n) and varchar(n) over their limits."""
    varying = word == "VARCHAR" or "VARYING" in following[:1]
    if word not in {"CHAR", "CHARACTER", "BPCHAR", "VARCHAR"} or "(" not in following[:2]:
        return
    length = following[following.index("(") + 1]
    limit = _LIMITS.varchar_bytes if varying else _LIMITS.char_bytes
    if length.isdigit() and int(length) > limit:
        raise RefusedError(refusals.length("varchar" if varying else "char", limit))


def _refuse_array(found: list[Token], at: int) -> None:
    depth = 0
    for token in found[at:]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and (token.text == "[" or token.word == "ARRAY"):
            raise RefusedError(refusals.datatype("array"))
        if token.word in {"DEFAULT", "CHECK", "GENERATED", "REFERENCES"}:
            return


def create_table(text: str, found: list[Token], at: int) -> str:
    """Check CREATE TABLE whose name begins at token `at`; return the statement as the backend gets it."""
    names = sql.words(found)
    if names[at : at + 3] == ["IF", "NOT", "EXISTS"]:
        at += 3
    _, after = sql.qualified_name(found, at)
    if after >= len(found) or found[after].text != "(":
        raise RefusedError(refusals.statement("CreateTableAs" if "AS" in names[after:] else "CreateTable"))
    end = sql.closing(found, after)
    _table_options(names[end + 1 :])
    rewrite = Rewrite(text)
    parts = sql.elements(found[after + 1 : end])
    columns = [part for part in parts if part[0].word not in _TABLE_CONSTRAINTS]
    if len(columns) > _LIMITS.columns_per_table:
        raise RefusedError(refusals.COLUMNS)
    types = {part[0].name: _column(part, rewrite) for part in columns if len(part) > 1}
    for part in parts:
        if part[0].word in _TABLE_CONSTRAINTS:
            _key(part, types)
    return rewrite.result()


def _table_options(tail: list[str]) -> None:
    if "AS" in tail:
        raise RefusedError(refusals.statement("CreateTableAs"))
    for option in ("PARTITION", "INHERITS", "TABLESPACE"):
        if option in tail:
            raise RefusedError(refusals.unsupported(f"{option} not supported for CREATE TABLE"))


def _column(part: list[Token], rewrite: Rewrite) -> str:
    kind = column_type(part, 1, rewrite)
    names = sql.words(part)
    if "PRIMARY" in names or "UNIQUE" in names:
        _indexable(kind)
    if "IDENTITY" in names:
        if kind not in _BIGINT:
            raise RefusedError(refusals.SEQUENCE_TYPE)
        _cache(names[names.index("IDENTITY") :])
    return kind


def _indexable(kind: str) -> None:
    if kind in NOT_INDEXABLE:
        raise RefusedError(refusals.unsupported(f"datatype {kind.lower()} not supported in a key"))


def _key(part: list[Token], types: dict[str, str]) -> None:
    """Check a table constraint: a key's width and the types of its columns; EXCLUDE is refused."""
    names = sql.words(part)
    if "EXCLUDE" in names:
        raise RefusedError(refusals.unsupported("EXCLUDE not supported for CREATE TABLE"))
    start = names.index("(") if "(" in names else len(names)
    if not {"PRIMARY", "UNIQUE"} & set(names[:start]):
        return
    columns = sql.elements(part[start + 1 : sql.closing(part, start)])
    if len(columns) > _LIMITS.key_columns:
        raise RefusedError(refusals.KEY_COLUMNS)
    for column in columns:
        _indexable(types.get(column[0].name, ""))


def _cache(names: list[str]) -> None:
    """Check that CACHE is given as 1 or ≥ 65,536 (AWS user guide, CREATE SEQUENCE)."""
    sizes = [int(value) for word, value in pairwise(names) if word == "CACHE" and value.isdigit()]
    if not sizes or not (sizes[0] == 1 or sizes[0] >= _LIMITS.sequence_cache):
        raise RefusedError(refusals.SEQUENCE_CACHE)


def sequence(found: list[Token]) -> None:
    """Check CREATE SEQUENCE."""
    names = sql.words(found)
    if "AS" in names and names[names.index("AS") + 1 :][:1] not in (["BIGINT"], ["INT8"]):
        raise RefusedError(refusals.SEQUENCE_TYPE)
    _cache(names)


def alter_table(text: str, found: list[Token], at: int) -> tuple[str, str]:
    """Check ALTER TABLE whose name begins at token `at`.

    Returns the statement as the backend gets it and, for ALTER TABLE ASYNC, the table's name (else an empty string).
    """
    names = sql.words(found)
    asynchronous = names[at] == "ASYNC"
    at += asynchronous
    if names[at : at + 2] == ["IF", "EXISTS"]:
        at += 2
    at += names[at] == "ONLY"
    table, after = sql.qualified_name(found, at)
    rewrite = Rewrite(text)
    for action in sql.elements(found[after:]):
        _action(action, rewrite, asynchronous)
    return rewrite.result(), table if asynchronous else ""


def _action(action: list[Token], rewrite: Rewrite, asynchronous: bool) -> None:
    names = sql.words(action)
    if asynchronous or names[0] == "VALIDATE":
        if not (asynchronous and names[0] == "VALIDATE"):
            raise RefusedError(refusals.ALTER_TABLE)
    elif names[0] == "ADD":
        _add(action, names, rewrite)
    elif names[0] == "ALTER":
        _alter_column(names)
    elif names[0] not in {"RENAME", "DROP", "OWNER", "SET"}:
        raise RefusedError(refusals.ALTER_TABLE)


def _add(action: list[Token], names: list[str], rewrite: Rewrite) -> None:
    if names[1] in _TABLE_CONSTRAINTS:
        using_index = "USING" in names and "INDEX" in names and "UNIQUE" in names
        not_valid = names[-2:] == ["NOT", "VALID"] and bool({"CHECK", "FOREIGN"} & set(names))
        if not (using_index or not_valid):
            raise RefusedError(refusals.ADD_CONSTRAINT)
        return
    at = 2 if names[1] == "COLUMN" else 1
    if names[at : at + 3] == ["IF", "NOT", "EXISTS"]:
        at += 3
    if len(action) > at + 1:
        column_type(action, at + 1, rewrite)
    if {"DEFAULT", "NOT", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "GENERATED", "CONSTRAINT"} & set(names[at + 2 :]):
        raise RefusedError(refusals.ADD_COLUMN)


def _alter_column(names: list[str]) -> None:
    rest = names[3:] if names[1] == "COLUMN" else names[2:]
    identity = "IDENTITY" in rest or rest[:1] == ["RESTART"] or (rest[:1] == ["SET"] and rest[1:2] == ["GENERATED"])
    if "IDENTITY" in rest and rest[:1] == ["ADD"]:
        _cache(rest)
    if not identity:
        raise RefusedError(refusals.ALTER_TABLE)


def index_parts(text: str, found: list[Token]) -> tuple[str, str, str, int]:
    """Read CREATE [UNIQUE] INDEX [ASYNC] … ON table …

    Returns the text before and after the table's name, that name, and the number of key columns; ASYNC is left out.
    """
    names = sql.words(found)
    if "ON" not in names or names.index("ON") + 1 >= len(found):
        raise RefusedError(Refusal("42601", "syntax error in CREATE INDEX"))
    on = names.index("ON")
    at = on + 1 + (names[on + 1] == "ONLY")
    table, after = sql.qualified_name(found, at)
    start = names.index("INDEX") + 1
    head = "CREATE UNIQUE INDEX " if names[1] == "UNIQUE" else "CREATE INDEX "
    start += names[start] in {"ASYNC", "CONCURRENTLY"}
    key = names.index("(", after) if "(" in names[after:] else after
    columns = len(sql.elements(found[key + 1 : sql.closing(found, key)])) if key < len(found) else 0
    middle = text[found[start].start : found[at].start]
    return head + middle, text[found[after - 1].end :], table, columns
