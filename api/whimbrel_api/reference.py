"""docs/reference.md out of the types: `python -m whimbrel_api.reference FOLDER`. The types stand elsewhere."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from whimbrel_api.base import API_VERSION
from whimbrel_api.crds import DEFINITIONS, Definition, spec_of, status_of
from whimbrel_api.forms import form_of
from whimbrel_api.migration import Migration
from whimbrel_api.rules import CHANGEABLE, FROZEN
from whimbrel_api.structural import Node

FILE: Final = "reference.md"
_HEAD: Final = """\
# Reference of the resources

Generated from the types in `api/whimbrel_api/` by `make generate`; `kubectl explain migrations.spec.cutover` says the
same on a cluster. What the fields are for, with examples: [migration.md](migration.md), [hooks.md](hooks.md),
[reversesync.md](reversesync.md).

| in the tables | means |
|---|---|
| `a.b[]` | each entry of the list `a.b` |
| `a.b.<key>` | each value of the map `a.b` |
| default | what holds where it is left out; **required**: it must be given, where what it stands in is given |
| allowed | what is taken; the rest is refused by the API server and by `whimbrel run`, with the field's path |
| fixed | cannot change once the work has begun (`status.phase` is not Pending); the API server refuses it |
| duration | such as `200ms`, `5s`, `10m`, `1h30m` |
| time | with its zone, such as `2026-12-06T02:00:00+01:00` |

Names of Secrets, ConfigMaps and ServiceAccounts always mean those of the resource's own namespace. A field that does
not stand here is refused.
"""
_FIXED: Final = f"""\
Fixed once the work has begun: {", ".join(f"`{name}`" for name in FROZEN)}. In a source or target
{" and ".join(f"`{name}`" for name in CHANGEABLE)} may change all the same.
"""
_RULES: Final = "x-kubernetes-validations"
_SHARED: Final = 4
"""A part with at least so many fields is told once a kind; where it comes again, its first place is named."""


@dataclass(frozen=True)
class Row:
    """One field: its path below spec or status, its node, and whether it must be given."""

    path: str
    node: Node
    required: bool
    see: str = ""


@dataclass
class _Walk:
    """The rows of one schema; `seen` is where each large part was told first, apart by whether it is fixed."""

    definition: Definition
    seen: dict[tuple[str, bool], str] = field(default_factory=dict)

    def fields(self, node: Node, path: str) -> Iterator[Row]:
        """The fields below a node, each followed by those below itself."""
        required = node.get("required", [])
        for name, child in node.get("properties", {}).items():
            yield from self.field(child, f"{path}.{name}" if path else name, required=name in required)

    def field(self, node: Node, path: str, *, required: bool) -> Iterator[Row]:
        """One field, and those below it unless they were told before."""
        inner, below = _below(node, path)
        told = repr(_without_words(inner)), is_fixed(self.definition, path)
        if told in self.seen:
            yield Row(path, node, required, self.seen[told])
            return
        yield Row(path, node, required)
        rows = list(self.fields(inner, below))
        yield from rows
        if len(rows) >= _SHARED:
            self.seen[told] = below


def _below(node: Node, path: str) -> tuple[Node, str]:
    """The node whose fields stand below this one, through lists and maps, and its path."""
    if "items" in node:
        return _below(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        return _below(node["additionalProperties"], f"{path}.<key>")
    return node, path


def _without_words(node: Node) -> Node:
    return {key: value for key, value in node.items() if key not in ("description", "default")}


def spec_rows(definition: Definition) -> list[Row]:
    """The fields of a kind's spec, those in lists and maps too."""
    return list(_Walk(definition).fields(spec_of(definition, told=True), ""))


def status_rows(definition: Definition) -> list[Row]:
    """The fields of a kind's status."""
    return list(_Walk(definition).fields(status_of(definition, told=True), ""))


def is_fixed(definition: Definition, path: str) -> bool:
    """Whether a field of that kind's spec cannot change once the work has begun."""
    parts = path.replace("[]", "").split(".")
    if definition.model is not Migration or parts[0] not in FROZEN:
        return False
    return parts[0] not in ("source", "target") or len(parts) < 3 or parts[2] not in CHANGEABLE


def _type(node: Node) -> str:
    """What a field holds, as a reader calls it."""
    if node["type"] == "array":
        return f"list of {_type(node['items'])}s"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}s"
    if node.get("format") == "date-time":
        return "time"
    return "duration" if _is_duration(node) else str(node["type"])


def _is_duration(node: Node) -> bool:
    return "(ms|s|m|h)" in node.get("pattern", "")


def _default(row: Row) -> str:
    if row.required:
        return "**required**"
    found = row.node.get("default")
    if found is None or found in ({}, [], ""):
        return ""
    return f"`{str(found).lower() if isinstance(found, bool) else found}`"


def _allowed(node: Node) -> str:
    """Bounds, words and forms; of a list those of its entries behind its own."""
    if "items" in node:
        within = _allowed(node["items"])
        return "; ".join(filter(None, (_span(node, "Items", " entries"), within and f"each {within}")))
    if "additionalProperties" in node:
        within, most = _allowed(node["additionalProperties"]), node.get("maxProperties")
        return "; ".join(filter(None, (f"at most {most} keys" if most else "", within and f"each {within}")))
    if "enum" in node:
        return ", ".join(f"`{each}`" for each in node["enum"])
    if _is_duration(node):
        return str(node[_RULES][0]["message"].removeprefix("a duration ")) if _RULES in node else ""
    return "; ".join(filter(None, (_bounds(node), _span(node, "Length", " characters"), _form(node))))


def _form(node: Node) -> str:
    """The words for a form that several fields share, else the pattern itself."""
    pattern = node.get("pattern", "")
    if words := form_of(pattern).rstrip("."):
        return words[0].lower() + words[1:]
    return f"`{pattern}`" if pattern else ""


def _bounds(node: Node) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    above = "more than " if node.get("exclusiveMinimum") else "at least "
    if least is not None and most is not None:
        return f"{above}{least}, at most {most}" if node.get("exclusiveMinimum") else f"{least} to {most}"
    return f"{above}{least}" if least is not None else f"at most {most}" if most is not None else ""


def _span(node: Node, what: str, unit: str) -> str:
    least, most = node.get(f"min{what}"), node.get(f"max{what}")
    if least and most:
        return f"{least} to {most}{unit}"
    return f"at most {most}{unit}" if most else f"at least {least}{unit}" if least else ""


def _meaning(row: Row) -> str:
    words = " ".join(row.node.get("description", "").split())
    return f"{words} Its fields: as in `{row.see}`." if row.see else words


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(rows: list[Row], definition: Definition | None) -> str:
    """A spec's rows have their defaults, a Migration's also whether they are fixed; a status' rows, `None`, neither."""
    frozen = definition is not None and definition.model is Migration
    heads = [
        "field",
        "type",
        *(["default"] if definition else []),
        "allowed",
        *(["fixed"] if frozen else []),
        "meaning",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"`{row.path}`", _type(row.node)]
        cells += [_default(row)] if definition else []
        cells += [_allowed(row.node)]
        cells += ["yes" if definition and is_fixed(definition, row.path) else ""] if frozen else []
        lines.append(f"| {' | '.join(_cell(each) for each in [*cells, _meaning(row)])} |")
    return "\n".join(lines) + "\n"


def _rules(node: Node, path: str = "") -> Iterator[str]:
    """What must hold between fields: where, and the message of whoever refuses it."""
    for rule in [] if _is_duration(node) else node.get(_RULES, []):
        yield f"- `{(path + rule.get('fieldPath', '')).lstrip('.') or 'spec'}`: {rule['message']}"
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    inner, below = _below(node, path)
    if inner is not node:
        yield from _rules(inner, below)


def _columns(definition: Definition) -> str:
    rows = [f"| {name} | `{path}` | {'`-o wide`' if wide else ''} |" for name, _, path, wide in definition.columns]
    return "\n".join(["| column | field | shown |", "|---|---|---|", *rows]) + "\n"


def _section(heading: str, rows: list[Row], top: str, definition: Definition | None) -> str:
    part = [row for row in rows if row.path.split(".")[0].removesuffix("[]") == top]
    return f"### {heading}.{top}\n\n{_table(part, definition)}"


def _side(heading: str, rows: list[Row], definition: Definition | None) -> Iterator[str]:
    """The plain fields in one table, then one for each field that has others below it."""
    tops = [row.path for row in rows if "." not in row.path]
    deep = [top for top in tops if any(row.path.startswith((f"{top}.", f"{top}[].")) for row in rows)]
    plain = [row for row in rows if "." not in row.path and row.path not in deep]
    if plain:
        yield f"### {heading}\n\n{_table(plain, definition)}"
    yield from (_section(heading, rows, top, definition) for top in deep)


def _kind(definition: Definition) -> str:
    kind, spec = definition.kind, spec_of(definition, told=True)
    short = f", `{definition.short}`" if definition.short else ""
    called = f"`apiVersion: {API_VERSION}`, `kind: {kind}`; to kubectl `{definition.plural}`{short}."
    parts = [f"## {kind}\n\n{inspect.getdoc(definition.model)}\n\n{called}\n"]
    if definition.model is Migration:
        parts.append(_FIXED)
    parts += _side(f"{kind} spec", spec_rows(definition), definition)
    if rules := list(_rules(spec)):
        parts.append(f"### {kind}: what must hold between fields\n\nRefused when it is applied, with these words:\n")
        parts.append("\n".join(dict.fromkeys(rules)) + "\n")
    parts += _side(f"{kind} status", status_rows(definition), None)
    parts.append(f"### {kind}: what `kubectl get` shows\n\n{_columns(definition)}")
    return "\n".join(parts)


def render() -> str:
    """The page as Markdown."""
    kinds = ", ".join(f"[{each.kind}](#{each.kind.lower()})" for each in DEFINITIONS)
    return "\n".join([_HEAD, f"Kinds: {kinds}.\n", *(_kind(each) for each in DEFINITIONS)])


def main(arguments: list[str]) -> int:
    """Write the page into the folder. Returns the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m whimbrel_api.reference FOLDER\nFOLDER takes reference.md, such as docs/\n")
        return 2
    (Path(arguments[0]) / FILE).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
