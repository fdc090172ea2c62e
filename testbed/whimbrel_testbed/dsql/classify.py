"""What a statement is to the stand-in: its kind, whether Aurora DSQL refuses it, and the text the backend gets instead.

Only the first words are looked at, except in DDL; the result is cached by text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from whimbrel_testbed.dsql import ddl, refusals, sql
from whimbrel_testbed.dsql.limits import Limits
from whimbrel_testbed.dsql.refusals import Refusal, RefusedError
from whimbrel_testbed.dsql.sql import Token

_CACHED_TEXT = 16_384
_LOCKING = re.compile(r"\bfor\s+(?:no\s+key\s+update|update|key\s+share|share)\b", re.IGNORECASE)
_WRITING = re.compile(r"\b(?:insert\s+into|update|delete\s+from|merge\s+into)\b", re.IGNORECASE)


class Kind(Enum):
    """What a statement does to the transaction it stands in."""

    EMPTY = "empty"
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    READ = "read"
    LOCK = "lock"
    WRITE = "write"
    DDL = "ddl"
    SETTING = "setting"
    WAIT = "wait"
    COPY_IN = "copy in"
    COPY_OUT = "copy out"


CONTROL = frozenset({Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK})


@dataclass(frozen=True)
class Statement:
    """A statement as the proxy treats it: `text` goes to the backend; `tag`, where given, replaces the backend's."""

    kind: Kind
    text: str
    refusal: Refusal | None = None
    tag: str = ""
    table: str = ""
    job: bool = False

    @property
    def control(self) -> bool:
        """Whether it begins or ends a transaction."""
        return self.kind in CONTROL

    @property
    def takes_part(self) -> bool:
        """Whether it needs a transaction of its own to be judged at its end."""
        return self.kind in {Kind.WRITE, Kind.DDL, Kind.LOCK, Kind.COPY_IN}


def classify(text: str) -> Statement:
    """Return what a statement is; it never raises, a refusal is part of the answer."""
    return _cached(text) if len(text) <= _CACHED_TEXT else _classify(text)


@functools.lru_cache(maxsize=2_048)
def _cached(text: str) -> Statement:
    return _classify(text)


def _classify(text: str) -> Statement:
    head = sql.tokens(text, sql.HEAD_TOKENS)
    if not head:
        return Statement(Kind.EMPTY, text)
    words = sql.words(head)
    try:
        return _RULES.get(words[0], _unknown)(text, words, head)
    except RefusedError as refused:
        return Statement(Kind.READ, text, refused.refusal)
    except (IndexError, ValueError):
        # A statement cut short: the backend's own syntax error says it best.
        return Statement(Kind.READ, text)


_Rule = Callable[[str, list[str], list[Token]], Statement]


def _unknown(text: str, _words: list[str], _head: list[Token]) -> Statement:
    return Statement(Kind.READ, text)


def _refuse(name: str) -> _Rule:
    return lambda text, _words, _head: Statement(Kind.READ, text, refusals.statement(name))


def _plain(kind: Kind) -> _Rule:
    return lambda text, _words, _head: Statement(kind, text)


_BEGIN_WORDS = {
    "BEGIN",
    "START",
    "TRANSACTION",
    "WORK",
    "ISOLATION",
    "LEVEL",
    "REPEATABLE",
    "READ",
    "ONLY",
    "WRITE",
    ",",
}


def _begin(text: str, words: list[str], _head: list[Token]) -> Statement:
    if "ISOLATION" in words and "REPEATABLE" not in words:
        raise RefusedError(refusals.ISOLATION)
    if set(words) - _BEGIN_WORDS:
        raise RefusedError(Refusal("42601", f"syntax error in {words[0]}"))
    return Statement(Kind.BEGIN, text, tag="START TRANSACTION" if words[0] == "START" else "BEGIN")


def _commit(text: str, words: list[str], _head: list[Token]) -> Statement:
    return _end(Kind.COMMIT, text, words)


def _end(kind: Kind, text: str, words: list[str]) -> Statement:
    if "PREPARED" in words or words[-2:] == ["AND", "CHAIN"]:
        raise RefusedError(refusals.statement("Transaction"))
    return Statement(kind, text, tag=kind.name)


def _rollback(text: str, words: list[str], _head: list[Token]) -> Statement:
    if "TO" in words:
        raise RefusedError(refusals.statement("Savepoint"))
    return _end(Kind.ROLLBACK, text, words)


def _select(text: str, _words: list[str], _head: list[Token]) -> Statement:
    if len(text) <= _CACHED_TEXT and _selects_into(text):
        raise RefusedError(refusals.statement("CreateTableAs"))
    return Statement(Kind.LOCK if _LOCKING.search(text) else Kind.READ, text)


def _selects_into(text: str) -> bool:
    if "into" not in text.lower():
        return False
    depth = 0
    for token in sql.tokens(text):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.word == "INTO":
            return True
    return False


def _with(text: str, _words: list[str], _head: list[Token]) -> Statement:
    if _WRITING.search(text):
        return Statement(Kind.WRITE, text)
    return Statement(Kind.LOCK if _LOCKING.search(text) else Kind.READ, text)


def _write(text: str, words: list[str], head: list[Token]) -> Statement:
    at = 2 if words[0] in {"INSERT", "DELETE", "MERGE"} else 1
    at += words[at] == "ONLY"
    return Statement(Kind.WRITE, text, table=sql.qualified_name(head, at)[0].lower())


def _explain(text: str, words: list[str], _head: list[Token]) -> Statement:
    return Statement(Kind.WRITE if "ANALYZE" in words and _WRITING.search(text) else Kind.READ, text)


def _copy(text: str, _words: list[str], _head: list[Token]) -> Statement:
    found = sql.tokens(text)
    if {"PROGRAM"} & set(sql.words(found)):
        raise RefusedError(refusals.COPY)
    depth = 0
    for token in found:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.word in {"FROM", "TO"}:
            table = sql.qualified_name(found, 1)[0].lower()
            return Statement(Kind.COPY_IN if token.word == "FROM" else Kind.COPY_OUT, text, table=table)
    return Statement(Kind.READ, text)


_SETTINGS = {
    "application_name", "client_encoding", "client_min_messages", "datestyle", "intervalstyle", "extra_float_digits",
    "bytea_output", "search_path", "timezone", "standard_conforming_strings", "disable_sync_create_index", "role",
    "default_transaction_read_only", "transaction_read_only",
}  # fmt: skip
_ISOLATION_SETTINGS = {"transaction_isolation", "default_transaction_isolation"}


def allowed_setting(name: str) -> bool:
    """Whether a client may set this configuration parameter."""
    return name in _SETTINGS


def _set(text: str, words: list[str], head: list[Token]) -> Statement:
    at = 2 if words[1] in {"SESSION", "LOCAL"} else 1
    if words[at] in {"TRANSACTION", "CHARACTERISTICS"}:
        return _set_transaction(text, words)
    if words[at : at + 2] == ["TIME", "ZONE"]:
        return Statement(Kind.SETTING, text)
    name = head[at].name
    if name in _ISOLATION_SETTINGS and "repeatable read" not in text.lower():
        raise RefusedError(refusals.ISOLATION)
    if name not in _SETTINGS | _ISOLATION_SETTINGS:
        raise RefusedError(refusals.parameter(name))
    if name == "disable_sync_create_index":
        text = text[: head[at].start] + "standin." + text[head[at].start :]
    return Statement(Kind.SETTING, text)


def _set_transaction(text: str, words: list[str]) -> Statement:
    if "SNAPSHOT" in words or ("ISOLATION" in words and "REPEATABLE" not in words):
        raise RefusedError(refusals.ISOLATION)
    return Statement(Kind.SETTING, text)


def _reset(text: str, words: list[str], head: list[Token]) -> Statement:
    if words[1] != "ALL" and head[1].name not in _SETTINGS | _ISOLATION_SETTINGS:
        raise RefusedError(refusals.parameter(head[1].name))
    return Statement(Kind.SETTING, text)


_CREATE_REFUSED = {
    "EXTENSION": "CreateExtension", "DATABASE": "Createdb", "TABLESPACE": "CreateTableSpace",
    "FOREIGN": "CreateForeignTable",
    "MATERIALIZED": "CreateTableAs", "RULE": "Rule", "SERVER": "CreateForeignServer",
    "PUBLICATION": "CreatePublication",
    "SUBSCRIPTION": "CreateSubscription", "EVENT": "CreateEventTrig", "POLICY": "CreatePolicy",
    "STATISTICS": "CreateStats",
    "LANGUAGE": "CreatePLang", "OPERATOR": "DefineStmt", "AGGREGATE": "DefineStmt", "COLLATION": "DefineStmt",
    "TEXT": "DefineStmt", "CONVERSION": "CreateConversion", "TRANSFORM": "CreateTransform", "CAST": "CreateCast",
    "ACCESS": "CreateAm",
}  # fmt: skip


def _create(text: str, words: list[str], _head: list[Token]) -> Statement:
    at = 3 if words[1:3] == ["OR", "REPLACE"] else 1
    at += words[at] in {"GLOBAL", "LOCAL"}
    what = words[at]
    if what in {"TEMP", "TEMPORARY"}:
        raise RefusedError(refusals.TEMPORARY)
    if what == "UNLOGGED":
        raise RefusedError(refusals.UNLOGGED)
    if what in {"CONSTRAINT", "TRIGGER"}:
        raise RefusedError(refusals.unsupported("CREATE TRIGGER not supported"))
    if what in _CREATE_REFUSED:
        raise RefusedError(refusals.statement(_CREATE_REFUSED[what]))
    found = sql.tokens(text)
    special = {"TABLE": _create_table, "INDEX": _create_index, "UNIQUE": _create_index, "TYPE": _create_type}
    special |= {"FUNCTION": _create_function, "PROCEDURE": _create_function, "SEQUENCE": _create_sequence}
    return special.get(what, _plain_ddl)(text, words, found)


def _plain_ddl(text: str, _words: list[str], _found: list[Token]) -> Statement:
    return Statement(Kind.DDL, text)


def _create_table(text: str, _words: list[str], found: list[Token]) -> Statement:
    at = 5 if sql.words(found)[2:5] == ["IF", "NOT", "EXISTS"] else 2
    return Statement(Kind.DDL, ddl.create_table(text, found, 2), table=sql.qualified_name(found, at)[0].lower())


def _create_type(_text: str, words: list[str], _found: list[Token]) -> Statement:
    if "AS" in words and words[words.index("AS") + 1] == "(":
        raise RefusedError(refusals.statement("CompositeType"))
    if "RANGE" in words:
        raise RefusedError(refusals.statement("CreateRange"))
    raise RefusedError(refusals.unsupported("CREATE TYPE not supported"))


def _create_function(text: str, _words: list[str], found: list[Token]) -> Statement:
    names = sql.words(found)
    language = found[names.index("LANGUAGE") + 1].text.strip("'\"").lower() if "LANGUAGE" in names else "sql"
    if language != "sql":
        raise RefusedError(refusals.unsupported(f"CREATE FUNCTION with language {language} not supported"))
    return Statement(Kind.DDL, text)


def _create_sequence(text: str, _words: list[str], found: list[Token]) -> Statement:
    ddl.sequence(found)
    return Statement(Kind.DDL, text)


def _create_index(text: str, words: list[str], found: list[Token]) -> Statement:
    asynchronous = words[words.index("INDEX") + 1] == "ASYNC"
    if words[words.index("INDEX") + 1] == "CONCURRENTLY":
        raise RefusedError(refusals.SYNCHRONOUS_INDEX)
    before, after, table, columns = ddl.index_parts(text, found)
    if columns > Limits.key_columns:
        raise RefusedError(refusals.KEY_COLUMNS)
    parts = ", ".join(sql.literal(part) for part in (table, before, after))
    if asynchronous:
        return Statement(Kind.DDL, f"SELECT sys.standin_index_job({parts}) AS job_id", tag="CREATE INDEX", job=True)
    body = f"BEGIN PERFORM sys.standin_index_now({parts}); END"
    return Statement(Kind.DDL, f"DO {sql.literal(body)}", tag="CREATE INDEX")


def _alter(text: str, words: list[str], _head: list[Token]) -> Statement:
    if words[1] == "SYSTEM":
        raise RefusedError(refusals.statement("AlterSystem"))
    if words[1] in {
        "DATABASE",
        "EXTENSION",
        "TYPE",
        "TRIGGER",
        "RULE",
        "PUBLICATION",
        "SUBSCRIPTION",
        "SERVER",
        "FOREIGN",
    }:
        raise RefusedError(refusals.statement("Alter" + words[1].capitalize()))
    if words[1] != "TABLE":
        return Statement(Kind.DDL, text)
    found = sql.tokens(text)
    rewritten, asynchronous = ddl.alter_table(text, found, 2)
    if asynchronous:
        _, after = sql.qualified_name(found, 3)
        parts = ", ".join(sql.literal(part) for part in (asynchronous, "ALTER TABLE ", text[found[after - 1].end :]))
        return Statement(Kind.DDL, f"SELECT sys.standin_validate_job({parts}) AS job_id", tag="ALTER TABLE", job=True)
    return Statement(Kind.DDL, rewritten)


def _drop(text: str, words: list[str], _head: list[Token]) -> Statement:
    if words[1] in {"DATABASE", "EXTENSION", "TABLESPACE", "TYPE", "TRIGGER"}:
        raise RefusedError(refusals.statement("Drop" + {"DATABASE": "db"}.get(words[1], words[1].capitalize())))
    return Statement(Kind.DDL, text.replace("CONCURRENTLY", "") if words[1:3] == ["INDEX", "CONCURRENTLY"] else text)


def _call(text: str, words: list[str], _head: list[Token]) -> Statement:
    return Statement(Kind.WAIT if words[1:4] == ["SYS", ".", "WAIT_FOR_JOB"] else Kind.WRITE, text)


def _prepare(text: str, words: list[str], _head: list[Token]) -> Statement:
    if words[1] == "TRANSACTION":
        raise RefusedError(refusals.statement("Transaction"))
    return Statement(Kind.READ, text)


def _vacuum(_text: str, _words: list[str], _head: list[Token]) -> Statement:
    raise RefusedError(refusals.VACUUM)


_RULES: dict[str, _Rule] = {
    "BEGIN": _begin, "START": _begin, "COMMIT": _commit, "END": _commit, "ROLLBACK": _rollback, "ABORT": _rollback,
    "SELECT": _select, "VALUES": _select, "(": _select, "TABLE": _select, "WITH": _with,
    "INSERT": _write, "UPDATE": _write, "DELETE": _write, "MERGE": _write, "EXECUTE": _plain(Kind.WRITE),
    "EXPLAIN": _explain, "COPY": _copy, "SET": _set, "RESET": _reset, "SHOW": _plain(Kind.READ),
    "CREATE": _create, "ALTER": _alter, "DROP": _drop, "GRANT": _plain(Kind.DDL), "REVOKE": _plain(Kind.DDL),
    "COMMENT": _plain(Kind.DDL), "CALL": _call, "PREPARE": _prepare, "VACUUM": _vacuum,
    "SAVEPOINT": _refuse("Savepoint"), "RELEASE": _refuse("Savepoint"), "TRUNCATE": _refuse("Truncate"),
    "LISTEN": _refuse("Listen"), "NOTIFY": _refuse("Notify"), "UNLISTEN": _refuse("Unlisten"), "LOCK": _refuse("Lock"),
    "DISCARD": _refuse("Discard"), "DO": _refuse("Do"), "CLUSTER": _refuse("Cluster"), "REINDEX": _refuse("Reindex"),
    "REFRESH": _refuse("RefreshMatView"), "CHECKPOINT": _refuse("CheckPoint"), "LOAD": _refuse("Load"),
    "SECURITY": _refuse("SecLabel"), "IMPORT": _refuse("ImportForeignSchema"),
    "REASSIGN": _refuse("ReassignOwned"),
}  # fmt: skip
