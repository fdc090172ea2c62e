"""What README and docs say holds: commands parse, manifests load, fields and reasons exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from whimbrel_api import logs
from whimbrel_api.base import Condition
from whimbrel_api.cutover import CutoverState
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import CheckResult, MigrationSpec, MigrationStatus
from whimbrel_api.reports import ErrorCategory
from whimbrel_api.reverse_sync import ReverseSyncSpec, ReverseSyncStatus
from whimbrel_api.validation import ValidationPhase, ValidationSpec, ValidationStatus
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import whimbrel
from whimbrel_operator import unreadable
from whimbrel_operator.domain.cutover import hooks, rollback, setbacks
from whimbrel_operator.domain.migration import phases
from whimbrel_operator.domain.reverse.end import DISARMED, LEFT, NOTHING_MADE
from whimbrel_operator.figures import table
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.runtime.kubernetes import runtime

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
CLUSTER = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BACK_GUIDE = (ROOT / "docs" / "reversesync.md").read_text(encoding="utf-8")


def _code(pattern: str, *, back: bool = False) -> str:
    """The operator's code, with or without what only ways back have, which have a page of their own."""
    found = sorted((ROOT / "operator").glob(pattern))
    return "\n".join(path.read_text("utf-8") for path in found if (path.parent.name == "reverse") is back)


DOMAIN = _code("*/domain/**/*.py")
BACK = _code("*/domain/**/*.py", back=True)
OPERATOR = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "operator").rglob("*.py"))
) + "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "api").rglob("*.py")))
REFUSALS = {*unreadable.REASONS.values(), unreadable.DEFECT}
CONDITION = [field.alias or name for name, field in Condition.model_fields.items()]
WORD = re.compile(r"^[A-Z][A-Za-z]+$")


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[str]:
    for page in [*PAGES, *sorted((ROOT / "examples").glob("*.yaml"))]:
        text = page.read_text(encoding="utf-8")
        yield from re.findall(r"^[# ]*(whimbrel [a-z].*)$", text, re.MULTILINE)
        yield from re.findall(r"`(whimbrel [a-z][^`]*)`", text)


def _help_commands() -> Iterator[str]:
    for command in whimbrel.commands.values():
        yield from re.findall(r"^ +(whimbrel [a-z].*)$", command.help or "", re.MULTILINE)


@pytest.mark.parametrize("line", sorted({*_commands(), *_help_commands()}))
def test_every_command_line_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets").mkdir()
    for kind in ("mysql", "dynamodb"):
        (tmp_path / f"{kind}.json").touch()
    first = re.split(r"  +| \| | > | & ", line)[0].rstrip(" &").replace("mysql|postgres|dsql", "mysql")
    _, name, *arguments = shlex.split(first, comments=True)
    command = whimbrel.commands[name]
    if arguments != ["--help"]:
        placeholder = ["NAME"] if not arguments and _needs_a_word(command) else []
        command.make_context(name, [*arguments, *placeholder])


def _needs_a_word(command: click.Command) -> bool:
    return any(isinstance(parameter, click.Argument) and parameter.required for parameter in command.params)


@pytest.mark.parametrize("block", [block for page in PAGES for block in _blocks(page.read_text("utf-8"), "yaml")])
def test_every_manifest_loads(block: str) -> None:
    assert load_manifests(block, "docs")


def _rows(heading: str, page: str = GUIDE) -> list[list[str]]:
    """The cells of the first table below a heading, without the table's own head."""
    below = page.split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[0].splitlines()[2:]]


def _paths(cell: str) -> Iterator[str]:
    """The paths of a cell: `a.{b,c}`, and `a.b[].{c,d[].{e}}` without its brackets."""
    for text in re.findall(r"`([^`]+)`", cell):
        yield from _expanded(text.replace("[]", ""))


def _expanded(text: str) -> list[str]:
    brace = text.find("{")
    if brace < 0:
        return [text]
    return [text[:brace] + rest for part in _parts(text[brace + 1 : -1]) for rest in _expanded(part)]


def _parts(text: str) -> list[str]:
    parts, depth = [""], 0
    for sign in text:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every path into a model, inner ones too, as manifests spell them."""
    found = set()
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        found.add(path)
        for inner in _models(field.annotation):
            found |= _fields(inner, f"{path}.")
    return found


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from _models(each)


SPEC_HEADING = "directories of files given by `--secrets`: `<dir>/<Secret's name>/<key>`."
STATUS_HEADING = "## Status and reasons"


CHECK_SPEC_HEADING = "goes on beside it."
CHECK_STATUS_HEADING = (
    "| `report.{maxDifferences,redact}` | 1000, false | how many differences are listed, and whether without values |"
)
NOT_TOLD = {"conditions", "mode", "reverseSync"} | {f"conditions.{name}" for name in CONDITION}
# Refused in Migrations and Validations: PolarDB's log is read by a ReverseSync only.
NOT_TOLD |= _fields(PolarDBSource, "source.polardb.") | {"source.polardb"}


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        (SPEC_HEADING, MigrationSpec),
        (STATUS_HEADING, MigrationStatus),
        (CHECK_SPEC_HEADING, ValidationSpec),
        (CHECK_STATUS_HEADING, ValidationStatus),
    ],
)
def test_every_field_of_the_tables_exists_and_none_is_left_out(heading: str, model: type[BaseModel]) -> None:
    named = {path for row in _rows(heading) for path in _paths(row[0])}
    fields = _fields(model)
    assert named - fields == set()
    left_out = {path for path in fields if not _covered(path, named)}
    assert left_out - NOT_TOLD == set()


@pytest.mark.parametrize(
    ("heading", "model"), [("## Writing one", ReverseSyncSpec), ("## Status and reasons", ReverseSyncStatus)]
)
def test_every_field_of_a_way_back_is_told(heading: str, model: type[BaseModel]) -> None:
    named = {path for row in _rows(heading, BACK_GUIDE) for path in _paths(row[0])}
    fields = _fields(model)
    assert named - fields == set()
    left_out = {path for path in fields if not _covered(path, named)}
    assert left_out - {"conditions", *(f"conditions.{name}" for name in CONDITION)} == set()


def test_every_reason_of_a_way_back_is_told_and_each_bad_one_has_a_remedy() -> None:
    said = set(re.findall(r'"(?:True|False|Unknown)",\s*"([A-Z]\w+)"', BACK))
    troubles = {*re.findall(r'Trouble\(\s*"(\w+)"', BACK)}
    rows = _rows("Conditions (type: reasons):", BACK_GUIDE)
    told = {word for row in rows for cell in row for word in re.split(r"[,\s`;]+", cell)}
    assert len(said) > 10
    assert (said | troubles | {DISARMED, LEFT, NOTHING_MADE}) - told == set()
    remedies = {word for row in _rows("## Debugging one", BACK_GUIDE) for word in re.findall(r"`(\w+)`", row[0])}
    categories = {ErrorCategory.CONFIGURATION, ErrorCategory.SOURCE_LOG_LOST, ErrorCategory.INCOMPATIBLE}
    slots = {word for word in said if word.startswith("Slot")}
    assert (troubles | slots | {*map(str, categories)}) - remedies == set()


def _covered(path: str, named: set[str]) -> bool:
    """A path is told where it, or something above or below it, is named."""
    return any(path == each or path.startswith(f"{each}.") or each.startswith(f"{path}.") for each in named)


def test_every_condition_and_reason_exists() -> None:
    words = {
        word for row in _rows("Conditions (type: reasons):") for cell in row for word in re.split(r"[,\s`]+", cell)
    }
    words |= {word for row in _rows("## Debugging one") for word in re.findall(r"`([A-Za-z]+)`", row[0])}
    wanted = {word for word in words if WORD.match(word) and word not in ("True", "False", "Unknown", "Progress")}
    assert len(wanted) > 30
    assert {word for word in wanted if not re.search(rf"[\"']{word}[\"']", OPERATOR)} == set()


def _first_words(heading: str, page: str = GUIDE) -> set[str]:
    """What stands in backticks in the first cells of a table."""
    return {word for row in _rows(heading, page) for word in re.findall(r"`(\w+)`", row[0])}


def _stalling() -> set[str]:
    """The reasons of Stalled: a worker's, the domain's own, and those of a cluster."""
    categories = {ErrorCategory.CONFIGURATION, ErrorCategory.SOURCE_LOG_LOST, ErrorCategory.INCOMPATIBLE}
    own = {*re.findall(r'Trouble\(\s*"(\w+)"', DOMAIN)} - {"Retrying"}
    return {*map(str, categories), *own, *REFUSALS}


def _exits() -> set[str]:
    rows = [*phases.PHASES, *phases.OVERRIDES]
    listed = {leave.reason for row in rows for leave in row.exits} | {leave.reason for leave in phases.ANYWHERE}
    return listed | {*re.findall(r'Exit\("(\w+)"', DOMAIN)}


def _events() -> set[str]:
    """Every reason that an Event can have."""
    silent = {CutoverState.NOT_READY, CutoverState.TIMED_OUT}
    states = {f"Cutover{state}" for state in set(CutoverState) - silent}
    results = {f"Validation{result}" for result in CheckResult}
    literal = {*re.findall(r'Event\("(?:Normal|Warning)", "(\w+)"', _code("**/*.py"))}
    watched = {"TableStopped", "Retrying", "OldPlan", "Different", "OthersMayWrite", "RetentionNear", "InvalidSpec"}
    watched |= {"RetentionOver", "NotOver", "WayBackKept", "RetireFailed"}
    own = {runtime.NOT_STARTED, runtime.NOT_GONE, runtime.HOOK_REFUSED, *hooks.EVENTS, str(ValidationPhase.RUNNING)}
    back = {each.reason for each in (*setbacks.SETBACKS, *rollback.SETBACKS)}
    return states | results | literal | watched | own | back | (_stalling() - REFUSALS) | _exits()


def test_every_event_is_told_and_no_other() -> None:
    assert _first_words("### Events") == _events()


def test_every_reason_of_a_condition_is_told() -> None:
    said = set(re.findall(r'"(?:True|False|Unknown)",\s*"([A-Z]\w+)"', DOMAIN)) | _stalling()
    assert len(said) > 25
    told = {word for row in _rows("Conditions (type: reasons):") for cell in row for word in re.split(r"[,\s`]+", cell)}
    assert said - told == set()


def test_what_stalls_and_what_closes_a_gate_has_a_remedy() -> None:
    told = {word for row in _rows("## Debugging one") for word in re.findall(r"`(\w+)`", row[0])}
    text = "".join((ROOT / _DOMAIN / name).read_text(encoding="utf-8") for name in _GATES)
    closed = set(re.findall(r'"(?:False|Unknown)",\s*"([A-Z]\w+)"', text))
    assert len(closed) > 8
    assert (_stalling() | closed) - told == set()


_DOMAIN = "operator/whimbrel_operator/domain/cutover"
_GATES = ("gates.py", "exclusive.py", "retention.py", "window.py")


def test_every_setting_of_the_operator_is_told_and_no_other() -> None:
    source = (ROOT / "operator/whimbrel_operator/settings.py").read_text(encoding="utf-8")
    read = {*re.findall(r'"(WHIMBREL_\w+)"', source), logs.FORMAT_VARIABLE, logs.LEVEL_VARIABLE}
    assert _first_words("## Settings", CLUSTER) == read


def test_every_metric_is_told_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == table.render(), "run make generate"
    served = set(re.findall(r"^# HELP (\w+)", Metrics().text().decode(), re.MULTILINE))
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == served


def test_every_exit_code_of_run_is_told() -> None:
    told = whimbrel.commands["run"].epilog or ""
    assert {int(number) for number in re.findall(r"^ *(\d+) ", told, re.MULTILINE)} == {code.value for code in Exit}
