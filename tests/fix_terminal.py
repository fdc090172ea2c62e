"""The terminal's width is not the tests' own: one that wants a width says so."""

import pytest


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-xdist gives its processes COLUMNS, and the command line cuts lines to it, here and in its children."""
    monkeypatch.delenv("COLUMNS", raising=False)
