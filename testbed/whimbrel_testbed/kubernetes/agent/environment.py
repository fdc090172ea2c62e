"""Pure: a container's environment and command line, before paths are rewritten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from whimbrel_testbed.kubernetes.agent.fields import field_of_source
from whimbrel_testbed.kubernetes.agent.shapes import Json, Lookup, NotYet, Reference, Unsupported, data_of

_REFERENCE = re.compile(r"\$\$|\$\(([^()]+)\)")
_SOURCES = (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps"))
_FROM = (("secretRef", "secrets"), ("configMapRef", "configmaps"))


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def given_by_file(text: str) -> dict[str, str]:
    """Read lines of the form `NAME=value`; empty lines and those that begin with `#` say nothing."""
    variables: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if line.strip() and not line.startswith("#"):
            if not equals or not _NAME.fullmatch(name):
                raise Unsupported("the node's environment file has a line that is not NAME=value")
            variables[name] = value
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` by its value; an unknown name stays as it is, and `$$` is one dollar sign."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def resolve(container: Json, pod: Json, pod_ip: str, given: Mapping[str, str], lookup: Lookup) -> dict[str, str]:
    """Return the variables of a container: those given by the node, then `envFrom`, then `env`.

    Raises NotYet where a Secret, a ConfigMap or a key of one is missing and not optional.
    """
    variables = dict(given)
    for source in container.get("envFrom") or []:
        variables |= _all_of(source, lookup)
    for entry in container.get("env") or []:
        value = _value(entry, pod, pod_ip, lookup)
        if value is not None:
            variables[entry["name"]] = expand(value, variables) if "valueFrom" not in entry else value
    return variables


def command_line(container: Json, variables: Mapping[str, str]) -> list[str]:
    """Return command and args with variables put in; Unsupported where there is no command."""
    if not container.get("command"):
        raise Unsupported(
            "this node agent runs plain processes and has no images: the container needs a command of its own"
        )
    return [expand(word, variables) for word in [*container["command"], *(container.get("args") or [])]]


def references(container: Json) -> Iterator[Reference]:
    """Name each Secret and ConfigMap that the container's environment uses."""
    for source in container.get("envFrom") or []:
        yield from (Reference(resource, source[field]["name"]) for field, resource in _FROM if field in source)
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        yield from (Reference(resource, source[field]["name"]) for field, resource in _SOURCES if field in source)


def _all_of(source: Json, lookup: Lookup) -> dict[str, str]:
    for field, resource in _FROM:
        if field in source:
            reference = Reference(resource, source[field]["name"])
            found = lookup(reference)
            if found is None and not source[field].get("optional"):
                raise NotYet(f"{reference} not found (envFrom)")
            return {source.get("prefix", "") + key: _text(value) for key, value in data_of(found or {}).items()}
    return {}


def _value(entry: Json, pod: Json, pod_ip: str, lookup: Lookup) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    for field, resource in _SOURCES:
        if field in source:
            return _key_of(Reference(resource, source[field]["name"]), source[field], entry["name"], lookup)
    return field_of_source(source, pod, pod_ip)


def _key_of(reference: Reference, source: Json, variable: str, lookup: Lookup) -> str | None:
    found = lookup(reference)
    content = None if found is None else data_of(found).get(source["key"])
    if content is not None:
        return _text(content)
    if source.get("optional"):
        return None
    missing = f"{reference} not found" if found is None else f'{reference} has no key "{source["key"]}"'
    raise NotYet(f"{missing} (environment variable {variable})")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
