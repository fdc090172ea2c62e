"""docs/reference.md: as generated, complete, and true of what is fixed once the work has begun."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from whimbrel_api import reference
from whimbrel_api.crds import DEFINITIONS, Definition, spec_of
from whimbrel_api.reference import Row, is_fixed, spec_rows, status_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / reference.FILE
MIGRATION = DEFINITIONS[0]
# What a type says of itself where its field says nothing of its own; no help to a reader of that field.
BARE = {
    "A duration such as 200ms, 5s, 10m or 1h30m.",
    "A Kubernetes name: lower-case letters, digits, dots and dashes.",
    "A key of a Secret or ConfigMap: letters, digits, dots, dashes and underscores.",
    "A TCP port.",
    "The name of a database, user or column.",
}


def test_the_page_is_as_generated(tmp_path: Path) -> None:
    assert reference.main([str(tmp_path)]) == 0
    assert (tmp_path / reference.FILE).read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), "make generate"


def test_a_wrong_call_says_how_to_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 2
    assert "usage: python -m whimbrel_api.reference FOLDER" in capsys.readouterr().err


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every path into a model, by the types themselves, without the marks of lists and maps."""
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        yield path
        for inner in _models(field.annotation):
            yield from _paths(inner, f"{path}.")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from _models(each)


def _told(rows: list[Row]) -> set[str]:
    """The paths of the rows, and those for which a row names another place."""
    found = {row.path for row in rows}
    for row in rows:
        if row.see:
            found |= {row.path + path.removeprefix(row.see) for path in list(found) if path.startswith(f"{row.see}.")}
    return {path.replace("[]", "").replace(".<key>", "") for path in found}


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.kind)
def test_every_field_is_told_and_no_other(definition: Definition) -> None:
    assert _told(spec_rows(definition)) == set(_paths(definition.spec))
    assert _told(status_rows(definition)) == set(_paths(definition.status))
    page = PAGE.read_text(encoding="utf-8")
    part = page.split(f"\n## {definition.kind}\n", 1)[1].split("\n## ", 1)[0]
    assert all(f"| `{row.path}` |" in part for row in [*spec_rows(definition), *status_rows(definition)])


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.kind)
def test_every_field_says_what_it_is_for(definition: Definition) -> None:
    rows = [*spec_rows(definition), *status_rows(definition)]
    assert [row.path for row in rows if row.node.get("description", "") in {"", *BARE}] == []


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.kind)
def test_fields_are_named_as_they_stand_in_the_resource(definition: Definition) -> None:
    words = [row.node["description"] for row in [*spec_rows(definition), *status_rows(definition)]]
    assert [each for each in words if re.search(r"`[a-z]+_[a-z_]+`", each)] == []


def test_what_is_fixed_is_what_the_rules_hold_in_place() -> None:
    rules = " ".join(rule["rule"] for rule in MIGRATION.rules)
    paths = [row.path for row in spec_rows(MIGRATION) if row.path.count(".") in (0, 2) and "[]" not in row.path]
    held = {path for path in paths if f"self.spec.{path} == oldSelf.spec.{path}" in rules}
    whole = {path for path in held if "." not in path}
    assert {"mode", "tables", "schema", "source.mysql.host", "target.auroraDSQL.region"} <= held
    for path in paths:
        within = path.split(".")[0] in whole
        assert is_fixed(MIGRATION, path) == (path in held or within or path in ("source", "target")), path


def test_a_form_stands_beside_the_bounds_and_in_what_kubectl_explains() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert (
        "| 1 to 253 characters; a host name or address, without scheme, user or path | yes | Where the server is"
        in page
    )
    (interval,) = (row for row in spec_rows(MIGRATION) if row.path == "stream.flushInterval")
    explained = spec_of(MIGRATION)["properties"]["stream"]["properties"]["flushInterval"]["description"]
    assert explained == f"{interval.node['description']} A duration such as 200ms, 5s, 10m or 1h30m."


def test_types_defaults_and_bounds_stand_as_a_reader_calls_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| `source.mysql.port` | integer | `3306` | 1 to 65535 | yes |" in page
    assert "| `source.mysql.credentialsSecretRef` | object | **required** |  |  |" in page
    assert "| `stream.flushInterval` | duration | `200ms` | from 1ms to 1m |  |" in page
    assert "| `stream.retentionGuard` | number | `0.8` | more than 0, at most 1 |  |" in page
    assert "| `cutover.notBefore` | time |  |  |  |" in page
    assert "| `paused` | boolean | `false` |" in page
    # Whimbrel fills it in: the API server has no defaults in lists.
    assert "| `cutover.hooks.beforeFreeze[].timeout` | duration | `5m` | from 1s to 24h |  |" in page
