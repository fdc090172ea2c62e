"""Every link in the pages leads somewhere, to the heading that it names, and the index leads to every page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "docs" / "README.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "charts/whimbrel/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def _text(page: Path) -> str:
    """Without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Of all headings, as GitHub makes them."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", _text(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        plain = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        anchors.add(plain if plain not in found else f"{plain}-{found[plain]}")
        found[plain] = found.get(plain, 0) + 1
    return anchors


def _links(page: Path) -> Iterator[str]:
    bare = re.sub(r"`[^`\n]*`", "``", _text(page))
    yield from re.findall(r"\]\(([^)\s]+)\)", bare)


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_a_heading_is_found_as_it_is_written() -> None:
    reference = ROOT / "docs" / "reference.md"
    assert {"migration-what-must-hold-between-fields", "migration-specsource"} <= _anchors(reference)


def test_the_index_leads_to_every_page() -> None:
    told = {(INDEX.parent / link.partition("#")[0]).resolve() for link in _links(INDEX)}
    pages = {page.resolve() for page in (ROOT / "docs").glob("*.md")} - {INDEX.resolve()}
    assert pages - told == set()


def test_the_first_page_leads_to_the_index() -> None:
    assert "docs/README.md" in set(_links(ROOT / "README.md"))
