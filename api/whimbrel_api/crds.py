"""CustomResourceDefinitions out of the types: `python -m whimbrel_api.crds FOLDER`. The types stand elsewhere."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.endpoints import Source, Target
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncSpec, ReverseSyncStatus
from whimbrel_api.rules import CHANGEABLE, FROZEN, RULES
from whimbrel_api.structural import Node, structural
from whimbrel_api.validation import Validation, ValidationSpec, ValidationStatus
from whimbrel_api.worker_reports import WorkerReportResource, WorkerReportSpec

_HEADER: Final = "# Generated from api/whimbrel_api by `make generate`. Edit the types, not this file.\n"
_WIDTH: Final = 120
_BOOLEANS: Final = frozenset("yYnN")


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _exactly_one(model: type[BaseModel]) -> Node:
    names = _names(model)
    given = ", ".join(f"has(self.{name})" for name in names)
    return {"rule": f"[{given}].exists_one(given, given)", "message": f"name exactly one: {', '.join(names)}"}


_ORIGIN: Final[Node] = {
    "rule": "has(self.migrationRef) ? !has(self.source) && !has(self.target) : has(self.source) && has(self.target)",
    "message": "name either migrationRef, or source and target",
}


def _spec_rules() -> dict[str, list[Node]]:
    """The rules by the type that they belong to."""
    found: dict[str, list[Node]] = {
        "Source": [_exactly_one(Source)],
        "Target": [_exactly_one(Target)],
        "ValidationSpec": [_ORIGIN],
        "ReverseSyncSpec": [_ORIGIN],
    }
    for rule in RULES:
        known = found.setdefault(rule.owner.__name__, [])
        known.append({"rule": rule.cel, "message": rule.message, "fieldPath": f".{rule.field}"})
    return found


def _same_end(path: str, model: type[BaseModel]) -> Iterator[str]:
    """CEL conditions that say: no field of a source or target has changed, what is CHANGEABLE apart.

    Fields with a default are filled in by the API server, so both sides have them; the others may be absent.
    """
    yield f"has(self.{path}) == has(oldSelf.{path})"
    fields = {name: field for name, field in model.model_fields.items() if (field.alias or name) not in CHANGEABLE}
    equal = " && ".join(_same(f"{path}.{field.alias or name}", field) for name, field in fields.items())
    yield f"(!has(self.{path}) || !has(oldSelf.{path}) || ({equal}))"


def _same(path: str, field: FieldInfo) -> str:
    if field.is_required() or field.default is not None:
        return f"self.{path} == oldSelf.{path}"
    both = f"has(self.{path}) == has(oldSelf.{path})"
    return f"({both} && (!has(self.{path}) || self.{path} == oldSelf.{path}))"


def _same_side(path: str, union: type[BaseModel]) -> str:
    kinds = (f"{path}.{name}" for name in _names(union))
    ends = (_only_model(field) for field in union.model_fields.values())
    return " && ".join(each for kind, end in zip(kinds, ends, strict=True) for each in _same_end(kind, end))


def _only_model(field: FieldInfo) -> type[BaseModel]:
    """The model in a field's `Model | None`."""
    options = get_args(field.annotation) or (field.annotation,)
    return next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))


def _held_in_place() -> Iterator[Node]:
    """One rule a frozen field of a Migration; they stand at the root, where status can be seen.

    They bind as soon as the phase is not known to be Pending: a status that is missing or was wiped opens nothing. An
    update of the status leaves spec as it is and so breaks none of them. Not expressible, and left to the operator: a
    phase that was written back to Pending; the target's control tables then say that the work has begun.
    """
    pending = "has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase == 'Pending'"
    for name in FROZEN:
        field = next(each for key, each in MigrationSpec.model_fields.items() if (each.alias or key) == name)
        path, ends = f"spec.{name}", field.annotation in (Source, Target)
        same = _same_side(path, _only_model(field)) if ends else f"self.{path} == oldSelf.{path}"
        apart = f", {' and '.join(CHANGEABLE)} apart" if ends else ""
        message = f"cannot change unless status.phase is Pending{apart}: put it back, or make another Migration"
        yield {"rule": f"({pending}) || ({same})", "message": message, "fieldPath": f".{path}"}


@dataclass(frozen=True)
class Definition:
    """One kind: its names, its types, its columns as (name, type, path, priority) and its rules at the root."""

    model: type[BaseModel]
    spec: type[BaseModel]
    status: type[BaseModel]
    kind: str
    plural: str
    short: str
    columns: tuple[tuple[str, str, str, int], ...]
    rules: tuple[Node, ...] = ()
    category: str = "whimbrel"


_AGE: Final = ("Age", "date", ".metadata.creationTimestamp", 0)
_SOURCE: Final = ("Source", "string", ".spec.source.*['host','endpoint','region']", 1)
_TARGET: Final = ("Target", "string", ".spec.target.*['host','endpoint']", 1)

DEFINITIONS: Final = (
    Definition(
        Migration, MigrationSpec, MigrationStatus, "Migration", "migrations", "mig",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Progress", "string", ".status.progress", 0),
            ("Lag", "string", ".status.lag", 0),
            _AGE,
            _SOURCE,
            _TARGET,
            ("Rows", "integer", ".status.snapshot.rowsCopied", 1),
            ("ETA", "string", ".status.remaining", 1),
            ("Cutover", "string", ".status.cutover.state", 1),
            ("Epoch", "integer", ".status.epoch", 1),
        ),
        tuple(_held_in_place()),
    ),
    Definition(
        Validation, ValidationSpec, ValidationStatus, "Validation", "validations", "val",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Progress", "string", ".status.progress", 0),
            ("Result", "string", ".status.result", 0),
            _AGE,
            ("Migration", "string", ".spec.migrationRef.name", 1),
            ("Missing", "integer", ".status.differences.missing", 1),
            ("Extra", "integer", ".status.differences.extra", 1),
            ("Changed", "integer", ".status.differences.changed", 1),
            ("Inconclusive", "integer", ".status.inconclusive", 1),
            ("Rows", "integer", ".status.rowsCompared", 1),
            ("ETA", "string", ".status.remaining", 1),
        ),
    ),
    Definition(
        ReverseSync, ReverseSyncSpec, ReverseSyncStatus, "ReverseSync", "reversesyncs", "rsync",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0),
            ("Lag", "string", ".status.lag", 0),
            _AGE,
            ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 1),
            ("Migration", "string", ".spec.migrationRef.name", 1),
            ("Slot", "string", ".status.slot.name", 1),
        ),
    ),
    Definition(
        WorkerReportResource, WorkerReportSpec, WorkerReport, "WorkerReport", "workerreports", "",
        (
            ("Task", "string", ".status.task", 0),
            ("State", "string", ".status.state", 0),
            ("Attempt", "integer", ".status.attempt", 0),
            _AGE,
        ),
        category="",
    ),
)  # fmt: skip


def spec_of(definition: Definition, *, told: bool = False) -> Node:
    """The schema of a kind's spec, with the rules of its types; `told` as in structural."""
    return structural(definition.spec, rules=_spec_rules(), told=told)


def status_of(definition: Definition, *, told: bool = False) -> Node:
    """The schema of a kind's status; `told` as in structural."""
    return structural(definition.status, status=True, told=told)


def _schema(definition: Definition) -> Node:
    schema: Node = {
        "description": inspect.getdoc(definition.model) or definition.kind,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_of(definition),
            "status": status_of(definition),
        },
        "required": ["spec"],
    }
    return schema | ({"x-kubernetes-validations": list(definition.rules)} if definition.rules else {})


def definition_of(definition: Definition) -> Node:
    """The CustomResourceDefinition of one kind."""
    names: Node = {
        "kind": definition.kind, "listKind": f"{definition.kind}List", "plural": definition.plural,
        "singular": definition.kind.lower(),
    }  # fmt: skip
    if definition.category:
        names["categories"] = [definition.category]
    if definition.short:
        names["shortNames"] = [definition.short]
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
        for name, kind, path, priority in definition.columns
    ]
    version = {
        "name": VERSION, "served": True, "storage": True, "subresources": {"status": {}},
        "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": _schema(definition)},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Dumper(yaml.SafeDumper):
    """Without anchors, for a reader of the diff; and with quotes around what other readers take for a boolean."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text in _BOOLEANS else None)


_Dumper.add_representer(str, _text)


def as_yaml(value: Node) -> str:
    """The value as YAML text that every reader understands alike."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def render() -> dict[str, str]:
    """All definitions as YAML text, by file name."""
    return {
        f"{GROUP}_{definition.plural}.yaml": _HEADER + as_yaml(definition_of(definition)) for definition in DEFINITIONS
    }


def main(arguments: list[str]) -> int:
    """Writes the definitions into the folder and removes those that are none any more. Returns the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m whimbrel_api.crds FOLDER\nFOLDER takes the definitions, such as crds/\n")
        return 2
    folder, texts = Path(arguments[0]), render()
    for old in folder.glob(f"{GROUP}_*.yaml"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
