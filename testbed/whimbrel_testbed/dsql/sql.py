"""Tokens of PostgreSQL's SQL with their places, and the cut of a query string into statements; no meaning yet.

Source: PostgreSQL documentation, section "Lexical Structure".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUOTES = r"""
    [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<{tag}>[A-Za-z_]\w*|)\$.*?\$(?P={tag})\$
  | --[^\n]* | /\*(?:[^*]|\*(?!/))*\*/
"""
_SPLITTER = re.compile(
    rf"(?P<plain>[^;'\"$/\-eE]+) | {_QUOTES.format(tag='a')} | (?P<end>;) | (?P<other>\w+|.)", re.VERBOSE | re.DOTALL
)
_TOKEN = re.compile(
    rf"(?P<space>\s+) | (?P<comment>--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/) | (?P<quoted>{_QUOTES.format(tag='b')})"
    r" | (?P<word>[^\W\d][\w$]*) | (?P<number>\d[\w.]*) | (?P<other>.)",
    re.VERBOSE | re.DOTALL,
)
HEAD_TOKENS = 16


@dataclass(frozen=True)
class Token:
    """One token: its text, the upper-cased word (empty where it is none), and its place in the statement."""

    text: str
    word: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """The identifier it names: folded to lower case, or unquoted."""
        return self.text[1:-1].replace('""', '"') if self.text.startswith('"') else self.text.lower()


def split(text: str) -> list[str]:
    """Cut a query string into its statements at the semicolons outside quotes and comments; empty ones are left out."""
    if ";" not in text.rstrip().rstrip(";"):
        parts = [text.rstrip().rstrip(";")]
    else:
        parts, start = [], 0
        for match in _SPLITTER.finditer(text):
            if match.lastgroup == "end":
                parts.append(text[start : match.start()])
                start = match.end()
        parts.append(text[start:])
    return [part for part in parts if tokens(part, 1)]


def tokens(text: str, count: int = 0) -> list[Token]:
    """Return the tokens of a statement, comments and blanks left out; at most `count` of them where that is given."""
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        if match.group("space") or match.group("comment"):
            continue
        word = match.group("word") or ""
        found.append(Token(match.group(), word.upper(), match.start(), match.end()))
        if len(found) == count:
            break
    return found


def words(found: list[Token]) -> list[str]:
    """Return the upper-cased words (punctuation as it is) of tokens."""
    return [token.word or token.text for token in found]


def qualified_name(found: list[Token], at: int) -> tuple[str, int]:
    """Read a possibly qualified name that begins at a token; return its source text and the index after it."""
    end = at + 1
    while end + 1 < len(found) and found[end].text == ".":
        end += 2
    return "".join(token.text for token in found[at:end]), end


def closing(found: list[Token], at: int) -> int:
    """Return the index of the parenthesis that closes the one at `at`; the last index where none does."""
    depth = 0
    for index in range(at, len(found)):
        depth += {"(": 1, ")": -1}.get(found[index].text, 0)
        if depth == 0:
            return index
    return len(found) - 1


def elements(found: list[Token]) -> list[list[Token]]:
    """Cut a list of tokens at its commas outside parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def literal(text: str) -> str:
    """Return a string literal."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
