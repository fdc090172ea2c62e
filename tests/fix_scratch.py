"""A folder for what a test's processes leave behind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that the servers' own account may pass through, too."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
