"""The definitions in crds/: as generated, and such as the API server takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from whimbrel_api import crds
from whimbrel_api.migration import MigrationSpec

FOLDER = Path(__file__).resolve().parents[2] / "crds"
TEXTS = crds.render()
STRUCTURAL = {
    "description", "type", "format", "enum", "pattern", "default", "nullable", "properties", "items", "required",
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
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
def test_columns_point_at_fields(name: str) -> None:
    version = yaml.safe_load(TEXTS[name])["spec"]["versions"][0]
    known = dict(nodes(schema_of(TEXTS[name]))) | {".metadata.creationTimestamp": {"type": "date"}}
    for column in version["additionalPrinterColumns"]:
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


def test_rules_hold_source_and_target_once_the_work_has_begun() -> None:
    schema = schema_of(TEXTS["whimbrel.dev_migrations.yaml"])
    source, target = schema["x-kubernetes-validations"]
    assert "oldSelf.status.phase != 'Pending'" in source["rule"]
    assert "self.spec.source.mysql.host == oldSelf.spec.source.mysql.host" in source["rule"]
    assert "self.spec.target.auroraDSQL.region == oldSelf.spec.target.auroraDSQL.region" in target["rule"]
    assert not any(word in source["rule"] + target["rule"] for word in ("credentialsSecretRef", "tls"))
    rules = schema["properties"]["spec"]["properties"]["target"]["x-kubernetes-validations"]
    assert rules[0]["rule"] == "[has(self.auroraDSQL), has(self.postgresql)].exists_one(given, given)"
