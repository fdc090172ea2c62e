"""The Makefile's targets: those that are documented exist, and each is explained."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_targets_that_exist(page: Path) -> None:
    named = re.findall(r"(?:^|[`=] ?)make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) - TARGETS == set()


def test_every_target_is_phony_and_all_but_one_are_explained() -> None:
    phony = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert {word for line in phony for word in line.replace("\\", " ").split()} == TARGETS
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert TARGETS - explained == {"check-generated"}


def test_all_tests_run_those_against_an_api_server_too() -> None:
    (needed,) = re.findall(r"^test: (.*) ##", MAKEFILE, re.MULTILINE)
    assert set(needed.split()) == {"lint", "unit", "component", "apiserver", "chart", "faults"}
    assert re.search(r"^apiserver:.*\n\t\$\(RUN_TESTS\) tests/cluster ", MAKEFILE, re.MULTILINE)
