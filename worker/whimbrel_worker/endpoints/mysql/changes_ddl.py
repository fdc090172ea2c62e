"""Which tables a statement in the log changes so that their rows can no longer be followed. Pure; no parser of SQL.

It reads the names at the head of ALTER, DROP, RENAME and TRUNCATE, of whole databases too, and of CREATE UNIQUE INDEX
and DROP INDEX: unique indexes decide in which order a table's rows are applied, and that must not change on the way.
All else leaves the rows of an existing table as they are (CREATE, other indexes, views, accounts, maintenance) and is
passed over knowingly.
Grammar: MySQL 8.4 reference manual, "Data Definition Statements" and "Schema Object Names".
"""

import re
from collections.abc import Iterable, Iterator

from whimbrel_worker.engine.ports import StoppedTable

_EXCERPT = 500
_COMMENT = re.compile(r"/\*(?!!).*?\*/|--[\s\x00-\x1f][^\n]*|#[^\n]*|/\*![0-9]*|\*/", re.DOTALL)
_TOKEN = re.compile(
    r"`(?P<quoted>(?:[^`]|``)*)`|\"(?P<ansi>(?:[^\"]|\"\")*)\"|(?P<string>'(?:[^'\\]|\\.|'')*')"
    r"|(?P<word>[0-9A-Za-z_$\u0080-\uffff]+)|(?P<mark>[^\s])",
    re.DOTALL,
)
_HEAD = re.compile(
    r"[\s(;]*(?:(?P<alter>ALTER\s+(?:ONLINE\s+|OFFLINE\s+)?(?:IGNORE\s+)?TABLE)|(?P<drop>DROP\s+TABLES?)"
    r"|(?P<rename>RENAME\s+TABLES?)|(?P<truncate>TRUNCATE(?:\s+TABLE)?)|(?P<database>DROP\s+(?:DATABASE|SCHEMA))"
    r"|(?P<index>CREATE\s+UNIQUE\s+INDEX|DROP\s+INDEX))"
    r"(?:\s+IF\s+EXISTS)?\b",
    re.IGNORECASE,
)
_HARMLESS_ALTER = re.compile(r"(?:DISABLE|ENABLE)\s+KEYS\s*;?\s*\Z", re.IGNORECASE)
_LEADS_TO_NAME = frozenset({"TO", "AS", "TABLE"})

_Token = tuple[str, bool]
"""A token and whether it can be a name."""


def tables_stopped_by(database: str, sql: str, wanted: Iterable[str]) -> list[StoppedTable]:
    """The wanted tables (`database.table`) that the statement changes; `database` is the session's default one.

    Names are compared without regard to case: a server may be set to fold them, and a table too many is stopped
    rather than one too few.
    """
    text = _COMMENT.sub(" ", sql)
    head = _HEAD.match(text)
    if head is None or (head["alter"] and _HARMLESS_ALTER.search(text)):
        return []
    tokens = list(_tokens(text[head.end() :]))
    if head["database"]:
        gone = tokens[0][0].casefold() if tokens else ""
        touched = [name for name in wanted if name.partition(".")[0].casefold() == gone]
    else:
        names = _names(_after_on(tokens) if head["index"] else tokens, every=not (head["alter"] or head["index"]))
        found = {f"{schema or database}.{table}".casefold() for schema, table in names}
        touched = [name for name in wanted if name.casefold() in found]
    return [StoppedTable(name, _reason(sql)) for name in touched]


def _reason(sql: str) -> str:
    return (
        f"its definition was changed in the source: {' '.join(sql.split())[:_EXCERPT]}; changes of definition are not"
        " carried by this version: migrate this table anew"
    )


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if match["quoted"] is not None:
            yield match["quoted"].replace("``", "`"), True
        elif match["ansi"] is not None:
            yield match["ansi"].replace('""', '"'), True
        else:
            yield match[0], match["word"] is not None


def _after_on(tokens: list[_Token]) -> list[_Token]:
    """What stands behind the ON of an index's statement; the index's own name comes before it."""
    words = [text.upper() for text, _ in tokens]
    return tokens[words.index("ON", 1) + 1 :] if "ON" in words[1:] else []


def _names(tokens: list[_Token], *, every: bool) -> Iterator[tuple[str, str]]:
    """Names as (database or "", table): all of them, or the first and those behind a word that leads to one."""
    position = 0
    while position < len(tokens):
        text, is_name = tokens[position]
        leads = every or position == 0 or tokens[position - 1][0].upper() in _LEADS_TO_NAME
        qualified = position + 2 < len(tokens) and tokens[position + 1][0] == "." and tokens[position + 2][1]
        if is_name and qualified:
            if leads:
                yield text, tokens[position + 2][0]
            position += 3
            continue
        if is_name and leads:
            yield "", text
        position += 1
