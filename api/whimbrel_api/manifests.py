"""Reads manifests and refuses malformed ones, naming every field that is wrong. Nothing is stored or started here."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from whimbrel_api.base import API_VERSION
from whimbrel_api.documents import Document, DocumentError, Location, read
from whimbrel_api.errors import ManifestError, Problem
from whimbrel_api.forms import form_of
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.rules import breaches
from whimbrel_api.secrets import SecretManifest
from whimbrel_api.structural import Node, structural
from whimbrel_api.validation import Validation

Manifest = Migration | Validation | ReverseSync | SecretManifest
_Kind = type[Migration] | type[Validation] | type[ReverseSync] | type[SecretManifest]

KINDS: Final[Mapping[str, tuple[str, _Kind]]] = {
    "Migration": (API_VERSION, Migration),
    "Validation": (API_VERSION, Validation),
    "ReverseSync": (API_VERSION, ReverseSync),
    "Secret": ("v1", SecretManifest),
}

_METADATA: Final = (
    "name", "namespace", "labels", "annotations", "generateName", "generation", "uid", "finalizers", "ownerReferences",
    "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields",
    "selfLink",
)  # fmt: skip
_SECRET_WORDS = ("password", "secret", "token", "accesskey", "username", "credential")
_LONGEST = 80
_USER_INFO = re.compile(r"//[^/?#]*@")


def load_manifests(text: str, origin: str) -> list[Manifest]:
    """The resources of a YAML text of one or more documents, in its order; `origin` names the file in messages.

    Raises ManifestError with everything that is wrong in all documents.
    """
    manifests: list[tuple[Document, Manifest]] = []
    problems: list[Problem] = []
    number = 0
    try:
        for document in read(text):
            number = document.number
            taken, refused = _load(document, origin)
            manifests += [(document, manifest) for manifest in taken]
            problems += refused
    except DocumentError as error:
        problems.append(Problem(origin, number + 1, error.line, "", "", error.what))
    problems += [] if problems else _twins(manifests, origin)
    problems.sort(key=lambda problem: (problem.document, problem.line))
    if not manifests and not problems:
        problems.append(Problem(origin, 1, 0, "", "", f"no resource stands in it; {_kinds()}"))
    if problems:
        raise ManifestError(problems)
    return [manifest for _, manifest in manifests]


def _twins(manifests: Sequence[tuple[Document, Manifest]], origin: str) -> list[Problem]:
    """A resource that stands twice: the second would silently replace the first."""
    seen: set[tuple[str, str, str]] = set()
    found: list[Problem] = []
    for document, manifest in manifests:
        key = (manifest.kind, manifest.metadata.namespace, manifest.metadata.name)
        if key in seen:
            resource = f"{manifest.kind}/{manifest.metadata.name}"
            line = document.line(("metadata", "name"))
            what = "the file holds this resource twice"
            found.append(Problem(origin, document.number, line, resource, "metadata.name", what))
        seen.add(key)
    return found


def _load(document: Document, origin: str) -> tuple[list[Manifest], list[Problem]]:
    value = document.value
    if not isinstance(value, dict):
        what = f"a resource is a mapping with apiVersion, kind, metadata and spec, not {_kind_of(value)}"
        return [], [Problem(origin, document.number, document.line(()), "", "", what)]
    resource = _resource(value)

    def problem(location: Location, what: str) -> Problem:
        path = _path(location)
        return Problem(origin, document.number, document.line(location), resource, path, what)

    header = _header(value)
    if header:
        return [], [problem(location, what) for location, what in header]
    model = KINDS[value["kind"]][1]
    found = [problem(location, what) for location, what in _metadata(value.get("metadata"))]
    try:
        loaded: Manifest = model.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        texts = ((_location(detail), _what(model, detail)) for detail in details)
        return [], found + [problem(location, what) for location, what in texts]
    found += [problem(location, what) for location, what in breaches(loaded)]
    return ([], found) if found else ([loaded], [])


def _resource(value: Mapping[str, Any]) -> str:
    kind, metadata = value.get("kind"), value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return "/".join(_shown(part).strip("'\"") for part in (kind, name) if isinstance(part, str) and part)


def _kinds() -> str:
    return "known are " + ", ".join(f"{kind} ({version})" for kind, (version, _) in KINDS.items())


def _header(value: Mapping[str, Any]) -> list[tuple[Location, str]]:
    """What is wrong with kind and apiVersion; nothing else can be judged before they are right."""
    kind, version = value.get("kind"), value.get("apiVersion")
    if kind is None:
        return [(("kind",), f"missing; {_kinds()}")]
    if not isinstance(kind, str) or kind not in KINDS:
        return [(("kind",), f"unknown kind {_shown(kind)}{_suggestion(kind, list(KINDS))}; {_kinds()}")]
    expected = KINDS[kind][0]
    if version is None:
        return [(("apiVersion",), f"missing; write {expected}")]
    if version != expected:
        return [(("apiVersion",), f"given {_shown(version)}; allowed for {kind}: {expected}")]
    return []


def _metadata(metadata: Any) -> list[tuple[Location, str]]:
    names = metadata if isinstance(metadata, dict) else {}
    return [
        (("metadata", name), f"unknown field{_suggestion(name, _METADATA)}; allowed here: name, namespace, labels, "
         "annotations and what Kubernetes adds")
        for name in names if name not in _METADATA
    ]  # fmt: skip


def _location(detail: ErrorDetails) -> Location:
    """Where an error is; pydantic's mark for a mapping's key is left out."""
    return tuple(part for part in detail["loc"] if part != "[key]")


def _path(location: Location) -> str:
    """A field as a person writes it: `spec.tables.include[0]`."""
    path = ""
    for part in location:
        plain = isinstance(part, str) and part.isidentifier()
        path += f".{part}" if plain else f"[{part if isinstance(part, int) else part[:_LONGEST]!r}]"
    return path.removeprefix(".")


def _what(model: type[BaseModel], detail: ErrorDetails) -> str:
    """One error as a person reads it: what was given, what is allowed."""
    location = _location(detail)
    if "[key]" in detail["loc"]:
        return "this key is not taken; allowed: 1 to 253 letters, digits, dots, dashes and underscores"
    match detail["type"]:
        case "missing":
            return f"missing; {_allowed(_node(model, location))}"
        case "extra_forbidden":
            return _unknown(model, location)
        case "json_invalid":
            return "a text in it is no valid Unicode"
        case "value_error":
            return str(detail.get("ctx", {}).get("error", detail["msg"]))
        case _:
            given = "" if model is SecretManifest else f"given {_shown(detail['input'])}; "
            return given + _allowed(_node(model, location))


def _unknown(model: type[BaseModel], location: Location) -> str:
    """An unknown field. What it holds is not repeated: it may be a password that belongs into a Secret."""
    name = str(location[-1])
    known = list(_node(model, location[:-1]).get("properties", {}))
    hint = _suggestion(name, known)
    if not hint and model is not SecretManifest and any(word in name.lower() for word in _SECRET_WORDS):
        hint = "; credentials stand in a Secret, named by credentialsSecretRef"
    return f"unknown field{hint}; allowed here: {', '.join(known)}"


def _suggestion(given: object, known: Sequence[str]) -> str:
    folded = {name.lower(): name for name in known}
    close = get_close_matches(str(given)[:_LONGEST].lower().replace("_", ""), list(folded), n=1, cutoff=0.6)
    return f", did you mean {folded[close[0]]}?" if close else ""


def _shown(value: object) -> str:
    """A value as it was given, short, on one line, an address without its user; of lists and mappings what they are."""
    if isinstance(value, str):
        value = _USER_INFO.sub("//…@", value)
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    if isinstance(value, dict | list) or value is None or isinstance(value, bool):
        return _kind_of(value)
    return repr(value) if not isinstance(value, int) or abs(value) < 10**_LONGEST else "a very long number"


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "a text"
        case _:
            return "a number"


@cache
def _schema(model: type[BaseModel]) -> Node:
    return structural(model)


def _node(model: type[BaseModel], location: Location) -> Node:
    """The schema of the field at `location`; empty where there is none."""
    node = _schema(model)
    for part in location:
        inner = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        node = inner or (node.get("additionalProperties", {}) if not isinstance(part, int) else {})
    return node


_TYPES: Final = {
    "string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "array": "a list", "object": "a mapping",
}  # fmt: skip


def _allowed(node: Node) -> str:
    """What a field takes, out of its schema: type, choices, bounds, and the words for its form, else for the field."""
    if "enum" in node:
        return "allowed: " + ", ".join(str(choice) for choice in node["enum"])
    kind = _TYPES.get(node.get("type", ""), "another value")
    told = form_of(node.get("pattern", "")) or str(node.get("description", ""))
    words = told.split("\n", 1)[0].rstrip(".")
    parts = [kind + _bounds(node)]
    if "properties" in node:
        parts[0] += " with " + ", ".join(node["properties"])
    elif words:
        parts.append(words[0].lower() + words[1:] if words[:2].istitle() else words)
    return "allowed: " + ": ".join(parts)


def _bounds(node: Node) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and node.get("exclusiveMinimum"):
        return f" above {least}" + (f" and up to {most}" if most is not None else "")
    if least is not None:
        return f" from {least} to {most}" if most is not None else f" of at least {least}"
    unit = "items" if node.get("type") == "array" else "characters"
    longest, shortest = node.get("maxItems") or node.get("maxLength"), node.get("minItems") or node.get("minLength")
    if longest and shortest:
        return f" of {shortest} to {longest} {unit}"
    return f" of at most {longest} {unit}" if longest else ""
