"""The definitions in crds/: as generated, and such as the API server takes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from whimbrel_api import crds, durations
from whimbrel_api.migration import MigrationSpec, Stream
from whimbrel_api.rules import CHANGEABLE, FROZEN

FOLDER = Path(__file__).resolve().parents[2] / "crds"
TEXTS = crds.render()
STRUCTURAL = {
    "description", "type", "format", "enum", "pattern", "default", "nullable", "properties", "items", "required",
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
    "maxProperties",
    "minItems", "maxItems", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip


def schema_of(text: str) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def test_the_tree_is_as_generated(tmp_path: Path) -> None:
    assert crds.main([str(tmp_path)]) == 0
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == {
        file.name: file.read_text() for file in tmp_path.iterdir()
    }


def test_a_wrong_call_says_how_to_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert crds.main([]) == 2
    assert "usage: python -m whimbrel_api.crds FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_node_is_structural(name: str) -> None:
    for path, node in nodes(schema_of(TEXTS[name])):
        assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert set(node) <= STRUCTURAL, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert isinstance(node.get("additionalProperties", {}), dict), path
        assert ("items" in node) == (node["type"] == "array"), path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_default_is_a_value_that_its_own_node_takes(name: str) -> None:
    for path, node in nodes(schema_of(TEXTS[name])):
        if "default" not in node:
            continue
        assert not path.startswith(".status"), path
        default = node["default"]
        assert "enum" not in node or default in node["enum"], path
        if node["type"] == "object":
            assert default == {}, path
            assert not node.get("required"), path


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_plain_columns_point_at_fields_of_their_type(name: str) -> None:
    version = yaml.safe_load(TEXTS[name])["spec"]["versions"][0]
    known = dict(nodes(schema_of(TEXTS[name]))) | {".metadata.creationTimestamp": {"type": "date"}}
    for column in version["additionalPrinterColumns"]:
        if not re.search(r"[*\[]", column["jsonPath"]):
            assert known[column["jsonPath"]]["type"] == column["type"], column
    assert version["subresources"] == {"status": {}}


def test_a_migration_shows_what_is_promised() -> None:
    text = TEXTS["whimbrel.dev_migrations.yaml"]
    definition = yaml.safe_load(text)["spec"]
    columns = definition["versions"][0]["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == ["Phase", "Progress", "Lag", "Age"]
    assert (definition["names"]["shortNames"], definition["names"]["categories"]) == (["mig"], ["whimbrel"])
    assert "nullable" not in yaml.safe_dump(schema_of(text)["properties"]["spec"])


def test_bounds_patterns_enums_and_defaults_come_from_the_types() -> None:
    spec = schema_of(TEXTS["whimbrel.dev_migrations.yaml"])["properties"]["spec"]
    port = spec["properties"]["source"]["properties"]["mysql"]["properties"]["port"]
    assert (port["minimum"], port["maximum"], port["default"], port["format"]) == (1, 65535, 3306, "int64")
    guard = spec["properties"]["stream"]["properties"]["retentionGuard"]
    assert (guard["minimum"], guard["exclusiveMinimum"], guard["maximum"], guard["default"]) == (0, True, 1, 0.8)
    assert spec["properties"]["cutover"]["properties"]["mode"]["enum"] == ["Manual", "Automatic"]
    assert set(spec["required"]) == {"source", "target"}
    assert {field.alias for field in MigrationSpec.model_fields.values()} == set(spec["properties"])


def test_rules_hold_the_frozen_fields_unless_the_phase_is_known_to_be_pending() -> None:
    schema = schema_of(TEXTS["whimbrel.dev_migrations.yaml"])
    rules = {rule["fieldPath"]: rule["rule"] for rule in schema["x-kubernetes-validations"]}
    assert set(rules) == {f".spec.{name}" for name in FROZEN}
    pending = "(has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase == 'Pending') || "
    assert all(rule.startswith(pending) for rule in rules.values())
    assert "self.spec.source.mysql.host == oldSelf.spec.source.mysql.host" in rules[".spec.source"]
    assert "self.spec.target.auroraDSQL.region == oldSelf.spec.target.auroraDSQL.region" in rules[".spec.target"]
    assert not any(word in rule for rule in rules.values() for word in CHANGEABLE)
    rules_of_target = schema["properties"]["spec"]["properties"]["target"]["x-kubernetes-validations"]
    assert rules_of_target[0]["rule"] == (
        "[has(self.auroraDSQL), has(self.postgresql), has(self.dynamodb)].exists_one(given, given)"
    )


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_lists_hold_no_defaults_and_no_text_that_others_read_as_a_boolean(name: str) -> None:
    for path, node in nodes(schema_of(TEXTS[name])):
        assert "[]." not in path or "default" not in node, path
        assert not {"y", "n", "yes", "no", "on", "off"} & {str(each).lower() for each in node.get("enum", [])}, path


@pytest.mark.parametrize("text", ["y", "Y", "n", "N", "yes", "off"])
def test_what_others_read_as_a_boolean_is_quoted(text: str) -> None:
    assert crds.as_yaml({"enum": [text]}) == f"enum:\n- '{text}'\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1.0, "0.0s"), (0.04, "0.0s"), (0.44, "0.4s"), (9.94, "9.9s"), (9.95, "10s"), (59.4, "59s"), (59.6, "1m0s"),
        (200.0, "3m20s"), (3599.6, "1h0m"), (7500.0, "2h5m"), (86400.0, "1d0h"), (360000.0, "4d4h"),
    ],
)  # fmt: skip
def test_a_length_of_time_for_a_reader(seconds: float, shown: str) -> None:
    assert durations.text(seconds) == shown


@pytest.mark.parametrize("value", ["0s", "0.9ms", "61s", "1m1ms", "2h"])
def test_a_duration_outside_its_bounds_is_refused_with_them(value: str) -> None:
    with pytest.raises(ValidationError, match=f"given '{value}'; allowed: a duration from 1ms to 1m"):
        Stream(flush_interval=value)
    assert Stream(flush_interval="1m").flush_interval == "1m"
