"""How many seeds a long test runs over: the first ones by default, all of them by `make faults SEEDS=all`."""

import os
from typing import TypeVar

_Case = TypeVar("_Case")


def over(*cases: _Case, at_least: int = 1) -> list[_Case]:
    """The first `at_least` cases, or all of them where WHIMBREL_TEST_SEEDS is `all`."""
    return list(cases) if os.environ.get("WHIMBREL_TEST_SEEDS") == "all" else list(cases[:at_least])
