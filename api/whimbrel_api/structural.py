"""Structural OpenAPI schemas, as Kubernetes asks for them, out of the pydantic types. No file is written here."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from whimbrel_api.forms import form_of

Node = dict[str, Any]
_SPELT: Final = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")

_KEPT = (
    "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "maxProperties",
)  # fmt: skip
_DROPPED = frozenset({"title", "default", "description", "required", "properties", "items", "additionalProperties"})
_RULES = "x-kubernetes-validations"
_CONVERTED = frozenset({"$ref", "anyOf", "const", "exclusiveMinimum", "exclusiveMaximum", "patternProperties", _RULES})
_UNSPOKEN = frozenset({"propertyNames", "writeOnly"})


class _Builder:
    """Turns one JSON schema (draft 2020-12) into one structural schema; `rules` are CEL rules by type name.

    `told`: for a reader, not for the API server, so that defaults stand in lists too, and forms apart.
    """

    def __init__(
        self, definitions: Mapping[str, Node], rules: Mapping[str, list[Node]], *, status: bool, told: bool
    ) -> None:
        self._definitions = definitions
        self._rules = rules
        self._status = status
        self._told = told

    def node(self, schema: Node, *, listed: bool = False) -> Node:
        """One node. `listed`: it stands in a list."""
        flat = self._flat(schema)
        unknown = flat.keys() - set(_KEPT) - _DROPPED - _CONVERTED - _UNSPOKEN - {"nullable"}
        if unknown:
            raise ValueError(f"no structural form is known for {sorted(unknown)} in {flat}")
        built: Node = {"description": self._words(flat)} if flat.get("description") else {}
        built |= {key: flat[key] for key in (*_KEPT, "nullable") if key in flat}
        if "const" in flat:
            built["enum"] = [flat["const"]]
        if built.get("type") == "integer":
            built["format"] = "int64"
        bare = listed and not self._told
        built |= _exclusive(flat) | self._children(flat, listed) | ({} if bare else self._default(flat))
        if rules := [*flat.get(_RULES, []), *self._rules.get(flat.get("title", ""), [])]:
            built[_RULES] = rules
        return built

    def _words(self, flat: Node) -> str:
        """What the field is for; for the API server, whose schema is all that kubectl explains, also its form.

        What a type says of its fields names them as Python does; a reader finds them as they stand in the resource.
        """
        words = _SPELT.sub(lambda name: f"`{to_camel(name[1])}`", flat["description"])
        form = "" if self._told else form_of(flat.get("pattern", ""))
        return f"{words} {form}" if form and form not in words else words

    def _flat(self, schema: Node) -> Node:
        """The node with its reference and its `or null` resolved; what stands beside them wins."""
        beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            return self._flat(self._definitions[name]) | {"title": name} | _without_title(beside)
        if "anyOf" not in schema:
            return schema
        others = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(others) != 1:
            raise ValueError(f"a structural schema holds no alternatives: {schema}")
        inner = self._flat(others[0])
        # An enum that may be null would have to list null; the API server prunes a null of what is not nullable.
        nullable = {"nullable": True} if self._status and "enum" not in inner else {}
        return inner | _without_title(beside) | nullable

    def _children(self, flat: Node, listed: bool) -> Node:
        children: Node = {}
        if "items" in flat:
            children["items"] = self.node(flat["items"], listed=True)
        if "properties" in flat:
            children["properties"] = {
                name: self.node(child, listed=listed) for name, child in flat["properties"].items()
            }
        elif values := _values(flat):
            children["additionalProperties"] = self.node(values, listed=listed)
        if flat.get("required"):
            children["required"] = flat["required"]
        if _holds_conditions(children):
            children |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        return children

    def _default(self, flat: Node) -> Node:
        """The default, in spec only: a status field that nobody has written is absent. Objects start empty, so that
        the API server fills in their own fields' defaults. None in lists: whoever applies a manifest again compares
        lists as a whole, and would see a difference for ever.
        """
        if self._status or flat.get("default") is None:
            return {}
        return {"default": {} if isinstance(flat["default"], dict) else flat["default"]}


def _without_title(node: Node) -> Node:
    return {key: value for key, value in node.items() if key != "title"}


def _values(flat: Node) -> Node | None:
    """The schema of a map's values; what its keys look like has no structural form."""
    if patterns := flat.get("patternProperties"):
        return next(iter(patterns.values()), None)
    values = flat.get("additionalProperties")
    return values if isinstance(values, dict) else None


def _exclusive(flat: Node) -> Node:
    """Exclusive bounds as OpenAPI 3.0 has them: a bound and a flag."""
    built: Node = {}
    if "exclusiveMinimum" in flat:
        built |= {"minimum": flat["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in flat:
        built |= {"maximum": flat["exclusiveMaximum"], "exclusiveMaximum": True}
    return built


def _holds_conditions(children: Node) -> bool:
    return "lastTransitionTime" in children.get("items", {}).get("properties", {})


def structural(
    model: type[BaseModel],
    *,
    rules: Mapping[str, list[Node]] | None = None,
    status: bool = False,
    told: bool = False,
) -> Node:
    """The structural schema of a type: no references, no alternatives, camelCase names.

    `rules` are CEL rules by the name of the type they belong to. `status`: no defaults, and what may be unknown is
    nullable. `told`: for a reader, with the defaults in lists, which Whimbrel fills in and not the API server. Raises
    ValueError for a type that has no structural form.
    """
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    return _Builder(definitions, rules or {}, status=status, told=told).node(schema)
