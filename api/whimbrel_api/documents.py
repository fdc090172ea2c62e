"""YAML text as documents with line numbers: safe types only, no key twice, no expansion without bound.

What the documents mean stands in manifests.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_CHARACTERS = 3_000_000
_MAX_VALUES = 100_000
_MAX_DEPTH = 64

Location = tuple[int | str, ...]


class DocumentError(ValueError):
    """YAML that is not taken; `line` counts from 1, 0 where it is not known. The text itself is never quoted."""

    def __init__(self, what: str, line: int = 0) -> None:
        self.what, self.line = what, line
        super().__init__(what)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but times stay text, as JSON and the API server have them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """One document: its number in the file (from 1), its value, and where its parts stand."""

    number: int
    value: Any
    node: yaml.Node | None

    def line(self, location: Location) -> int:
        """The line of the innermost part of `location` that is there, from 1; 0 for an empty document."""
        node, line = self.node, self.node.start_mark.line + 1 if self.node else 0
        for part in location:
            found = _child(node, part)
            if found is None:
                break
            node, line = found
        return line


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        pairs = ((value, key.start_mark.line + 1) for key, value in node.value if key.value == part)
        return next(pairs, None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None


def read(text: str) -> Iterator[Document]:
    """The documents of a YAML text, empty ones left out. Raises DocumentError."""
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"the file is longer than {MAX_CHARACTERS:,} characters")
    try:
        yield from _documents(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"no valid YAML: {_problem(error)}", mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"no valid YAML: {getattr(error, 'reason', 'it cannot be read')}") from None
    except RecursionError:
        raise DocumentError("the document is nested too deeply") from None
    except (ValueError, OverflowError, TypeError, AttributeError, KeyError, IndexError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError("no valid YAML: a value cannot be read as the type that it looks like; quote it") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML complains of, without what it quotes: that may be part of a password."""
    if error.problem and "undefined alias" in error.problem:
        return "a value that starts with * is an alias that nobody has defined; quote the value"
    if error.problem and "could not determine a constructor" in error.problem:
        return "a value that starts with ! is a tag that is not known here; quote the value"
    return error.problem or error.context or "it cannot be read"


def _documents(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        number = 0
        while loader.check_node():
            number += 1
            node = loader.get_node()
            _refuse_twins(node, _Budget())
            value = loader.construct_document(node)
            if value is not None:
                _refuse_foreign(value)
                yield Document(number, value, node)
    finally:
        loader.dispose()


class _Budget:
    """Counts what a document expands to, so that aliases cannot multiply without bound."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def spend(self, depth: int, line: int) -> None:
        self.left -= 1
        if depth > _MAX_DEPTH:
            raise DocumentError(f"the document is nested more than {_MAX_DEPTH} deep", line)
        if self.left < 0:
            raise DocumentError(f"the document holds more than {_MAX_VALUES:,} values", line)


def _refuse_twins(node: yaml.Node | None, budget: _Budget, depth: int = 0) -> None:
    """Refuses a mapping with the same key twice: PyYAML alone would let the later one win in silence."""
    if node is None:
        return
    budget.spend(depth, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_twins(child, budget, depth + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[tuple[str, str], int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise DocumentError("the key of a mapping is text, not a list or a mapping", line)
            if first := seen.get((key.tag, key.value)):
                raise DocumentError(f"the key {key.value!r} stands twice in one mapping, first on line {first}", line)
            seen[key.tag, key.value] = line
            _refuse_twins(child, budget, depth + 1)


def _refuse_foreign(value: Any) -> None:
    """Refuses what JSON has no form for."""
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                raise DocumentError(f"the key {key!r} is no text; quote it (on, off, yes and no are booleans in YAML)")
            _refuse_foreign(child)
    elif isinstance(value, list):
        for child in value:
            _refuse_foreign(child)
    elif isinstance(value, float) and not math.isfinite(value):
        raise DocumentError("infinity and not-a-number have no place in a manifest")
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise DocumentError(f"a value of the YAML type {type(value).__name__} has no place in a manifest")
