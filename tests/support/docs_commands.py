"""The commands that README and docs show: each with its place, and what it needs that no test has. Nothing is run here.

A fenced block without a language, or of `sh`, holds commands alone; in one of `console` they begin with `$ `. A line
`<!-- needs …: … -->` before a block says what it takes that no test has; NEEDS are the words that may stand there.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", ROOT / "charts/whimbrel/README.md", *sorted((ROOT / "docs").glob("*.md")))
NEEDS: Final = ("AWS", "Argo CD", "a container engine", "PolarDB")
PROGRAMS: Final = ("kubectl", "helm", "whimbrel", "make")
_FENCE: Final = re.compile(r"^```(\w*)$")
_MARK: Final = re.compile(r"^<!-- needs ([^:>]+?)(?:: [^>]*)? -->$")
_INLINE: Final = re.compile(r"`((?:kubectl|helm) [a-z-][^`]*)`")
_ENDS: Final = frozenset({"|", "||", "&&", ";", "&"})
_REDIRECTIONS: Final = frozenset({">", ">>", "<"})


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, what it needs, its lines."""

    page: Path
    line: int
    language: str
    needs: str
    lines: tuple[str, ...]

    @property
    def shell(self) -> bool:
        """Whether it holds commands."""
        return self.language in ("", "sh", "console")

    @property
    def place(self) -> str:
        """As a reader finds it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One program with its arguments; a pipe holds several. `text` is the whole line."""

    place: str
    text: str
    words: tuple[str, ...]
    needs: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. Raises ValueError for one that does not end, and for a mark without a block."""
    lines = page.read_text(encoding="utf-8").splitlines()
    begun: tuple[int, str, str] | None = None
    needs = ""
    held: list[str] = []
    for number, line in enumerate(lines, 1):
        fence, mark = _FENCE.match(line), _MARK.match(line)
        if begun is not None and line == "```":
            yield Block(page, begun[0], begun[1], begun[2], tuple(held))
            begun, held = None, []
        elif begun is not None:
            held.append(line)
        elif fence:
            begun, needs = (number, fence[1], needs), ""
        elif mark:
            needs = mark[1]
        elif line.strip() and needs:
            raise ValueError(f"{page.name}:{number}: a block must follow `needs {needs}`")
    if begun is not None:
        raise ValueError(f"{page.name}:{begun[0]}: the block does not end")


def commands() -> list[Command]:
    """All of them, in the order of the pages."""
    return [command for page in PAGES for block in blocks(page) if block.shell for command in _of(block)]


def inline() -> list[Command]:
    """Those of kubectl and helm within sentences and tables."""
    found = []
    for page in PAGES:
        outside, within = [], False
        for line in page.read_text(encoding="utf-8").splitlines():
            within ^= line.startswith("```")
            outside.append("" if within else line)
        for number, line in enumerate(outside, 1):
            place = f"{page.relative_to(ROOT)}:{number}"
            texts = [text.replace("\\|", "|") for text in _INLINE.findall(line)]
            found += [Command(place, text, words) for text in texts for words in simple(text)]
    return found


def _of(block: Block) -> Iterator[Command]:
    for text in _lines(block):
        for words in simple(text):
            yield Command(block.place, text, words, block.needs)


def _lines(block: Block) -> Iterator[str]:
    """Whole command lines; of a console those that somebody typed."""
    whole = ""
    for line in block.lines:
        typed = line.removeprefix("$ ")
        if block.language == "console" and not whole and typed == line:
            continue
        whole += typed.removesuffix("\\")
        if not typed.endswith("\\"):
            yield whole
            whole = ""


def simple(text: str) -> list[tuple[str, ...]]:
    """The simple commands of a line, without variables set before them, redirections and comments."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _ENDS:
            found.append([])
        elif word in _REDIRECTIONS:
            next(words)
        else:
            found[-1].append(word)
    return [bare for each in found if (bare := tuple(_bare(each)))]


def _bare(words: Sequence[str]) -> list[str]:
    return list(words[next((at for at, word in enumerate(words) if not re.match(r"^\w+=", word)), len(words)) :])
