"""docs/security.md names every right as the generated files have it, and no right that is not there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.wanted import OWNER, usual
from whimbrel_operator.specs import access
from whimbrel_operator.specs.chart import render

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
HEADINGS = {
    "operator-rules.yaml": "### The operator",
    "lease-rules.yaml": "### The operator, in its own namespace",
    "viewer-rules.yaml": "### People who look",
    "editor-rules.yaml": "### People who steer",
    "uninstall-rules.yaml": "### The question before an uninstall",
    "test-rules.yaml": "### helm test",
}
Right = tuple[str, str, str]


def _told(heading: str) -> set[Right]:
    """Group, resource and verb of each right in the table below a heading."""
    part = re.split(r"^##", PAGE.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| ")][1:]
    assert rows, heading
    return {
        (group.strip().strip("`"), resource, verb)
        for group, resources, verbs, _ in rows
        for resource in re.findall(r"`([^`]+)`", resources)
        for verb in re.split(r",\s*", verbs.strip())
    }


def _granted(rules: Iterable[Mapping[str, Sequence[str]]]) -> set[Right]:
    return {
        (group or "core", resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("file", sorted(render()))
def test_every_right_of_the_chart_is_told_and_no_other(file: str) -> None:
    granted = _granted(yaml.safe_load((ROOT / "charts/whimbrel/files" / file).read_text(encoding="utf-8")))
    assert _told(HEADINGS[file]) == granted
    assert f"charts/whimbrel/files/{file})" in PAGE


def test_every_right_of_a_task_is_told_and_bound_to_names() -> None:
    for wanted in usual().values():
        rules: list[dict[str, Any]] = access.role(OWNER, wanted)["rules"]
        assert _told("### A task") == _granted(rules)
        assert all(rule["resourceNames"] for rule in rules)


def test_what_is_said_to_be_out_of_reach_is() -> None:
    granted = {right for file in render() for right in _granted(yaml.safe_load(render()[file]))}
    operator = _granted(yaml.safe_load(render()["operator-rules.yaml"]))
    assert not {resource for _, resource, _ in granted} & {"secrets", "pods/exec", "serviceaccounts/token", "nodes"}
    assert not {verb for _, _, verb in granted} & {"*", "bind", "escalate", "impersonate"}
    assert "pods/log" not in {resource for _, resource, _ in operator}
    line = next(line for line in PAGE.splitlines() if line.startswith("What is not there:"))
    assert all(
        word in line for word in ("Secrets", "`pods/exec`", "`pods/log`", "`impersonate`", "`bind`", "`escalate`")
    )
