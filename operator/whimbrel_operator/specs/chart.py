"""What the chart takes from the code: `python -m whimbrel_operator.specs.chart FOLDER`. The chart stands in charts."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from whimbrel_operator.specs.rights import (
    EDITOR_RULES,
    LEASE_RULES,
    OPERATOR_RULES,
    TEST_RULES,
    UNINSTALL_RULES,
    VIEWER_RULES,
    Rule,
)

_HEADER: Final = "# Generated from operator/whimbrel_operator/specs/rights.py by `make generate`.\n"


def render() -> dict[str, str]:
    """The files as YAML text, by name."""
    rules = {
        "operator-rules.yaml": OPERATOR_RULES,
        "lease-rules.yaml": LEASE_RULES,
        "viewer-rules.yaml": VIEWER_RULES,
        "editor-rules.yaml": EDITOR_RULES,
        "uninstall-rules.yaml": UNINSTALL_RULES,
        "test-rules.yaml": TEST_RULES,
    }
    return {name: _rules(each) for name, each in rules.items()}


def _rules(rules: Sequence[Rule]) -> str:
    return _HEADER + yaml.safe_dump([dict(rule) for rule in rules], sort_keys=False, default_flow_style=None, width=120)


def main(arguments: list[str]) -> int:
    """Write the files into the folder. Returns the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m whimbrel_operator.specs.chart FOLDER\n")
        return 2
    for name, text in render().items():
        (Path(arguments[0]) / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
