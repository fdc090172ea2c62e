"""CustomResourceDefinitions out of the types: `python -m whimbrel_api.crds FOLDER`. The types stand elsewhere."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.endpoints import AuroraDSQLTarget, MySQLSource, PostgreSQLTarget, Source, Target
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncSpec, ReverseSyncStatus
from whimbrel_api.structural import Node, structural
from whimbrel_api.validation import Validation, ValidationSpec, ValidationStatus
from whimbrel_api.worker_reports import WorkerReportResource, WorkerReportSpec

_HEADER: Final = "# Generated from api/whimbrel_api by `make generate`. Edit the types, not this file.\n"
_CHANGEABLE: Final = frozenset({"credentialsSecretRef", "tls"})
_WIDTH: Final = 120


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

SPEC_RULES: Final[Mapping[str, list[Node]]] = {
    "Source": [_exactly_one(Source)],
    "Target": [_exactly_one(Target)],
    "ValidationSpec": [_ORIGIN],
    "ReverseSyncSpec": [_ORIGIN],
}


def _kept(path: str, model: type[BaseModel]) -> Iterator[str]:
    """CEL conditions that say: no field of an endpoint has changed, credentials and TLS references apart.

    Fields with a default are filled in by the API server, so both sides have them.
    """
    yield f"has(self.{path}) == has(oldSelf.{path})"
    fields = [name for name in _names(model) if name not in _CHANGEABLE]
    equal = " && ".join(f"self.{path}.{name} == oldSelf.{path}.{name}" for name in fields)
    yield f"(!has(self.{path}) || !has(oldSelf.{path}) || ({equal}))"


def _immutable(side: str, models: Mapping[str, type[BaseModel]]) -> Node:
    """Holds a side in place once status.phase has left Pending. It stands at the root, where status can be seen.

    Not expressible here, and left to the operator: a status that was wiped looks like Pending; the target's control
    tables then say that the work has begun, and the source's identity that they hold is compared with the spec's.
    """
    started = "has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase != 'Pending'"
    kept = " && ".join(text for name, model in models.items() for text in _kept(f"spec.{side}.{name}", model))
    message = f"spec.{side} cannot change once the work has begun, apart from credentialsSecretRef and tls"
    return {"rule": f"!({started}) || ({kept})", "message": message}


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


DEFINITIONS: Final = (
    Definition(
        Migration, MigrationSpec, MigrationStatus, "Migration", "migrations", "mig",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Progress", "string", ".status.progress", 0),
            ("Lag", "number", ".status.stream.lagSeconds", 0),
            ("Source", "string", ".spec.source.mysql.host", 1),
            ("Target", "string", ".spec.target.auroraDSQL.endpoint", 1),
            ("PostgreSQL", "string", ".spec.target.postgresql.host", 1),
            ("Rows", "integer", ".status.snapshot.rowsCopied", 1),
            ("ETA", "number", ".status.snapshot.eta", 1),
            ("Cutover", "string", ".status.cutover.state", 1),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ),
        (
            _immutable("source", {"mysql": MySQLSource}),
            _immutable("target", {"auroraDSQL": AuroraDSQLTarget, "postgresql": PostgreSQLTarget}),
        ),
    ),
    Definition(
        Validation, ValidationSpec, ValidationStatus, "Validation", "validations", "val",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Progress", "string", ".status.progress", 0),
            ("Result", "string", ".status.result", 0),
            ("Missing", "integer", ".status.differences.missing", 1),
            ("Extra", "integer", ".status.differences.extra", 1),
            ("Changed", "integer", ".status.differences.changed", 1),
            ("Rows", "integer", ".status.rowsCompared", 1),
            ("ETA", "number", ".status.eta", 1),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ),
    ),
    Definition(
        ReverseSync, ReverseSyncSpec, ReverseSyncStatus, "ReverseSync", "reversesyncs", "rsync",
        (
            ("Phase", "string", ".status.phase", 0),
            ("Lag", "number", ".status.lagSeconds", 0),
            ("Slot", "string", ".status.slot.name", 1),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ),
    ),
    Definition(
        WorkerReportResource, WorkerReportSpec, WorkerReport, "WorkerReport", "workerreports", "",
        (
            ("Task", "string", ".status.task", 0),
            ("State", "string", ".status.state", 0),
            ("Attempt", "integer", ".status.attempt", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ),
    ),
)  # fmt: skip


def _schema(definition: Definition) -> Node:
    schema: Node = {
        "description": inspect.getdoc(definition.model) or definition.kind,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(definition.spec, rules=SPEC_RULES),
            "status": structural(definition.status, status=True),
        },
        "required": ["spec"],
    }
    return schema | ({"x-kubernetes-validations": list(definition.rules)} if definition.rules else {})


def definition_of(definition: Definition) -> Node:
    """The CustomResourceDefinition of one kind."""
    names: Node = {
        "kind": definition.kind, "listKind": f"{definition.kind}List", "plural": definition.plural,
        "singular": definition.kind.lower(), "categories": ["whimbrel"],
    }  # fmt: skip
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
    """Without anchors: the API server would take them, a reader of the diff would not."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def render() -> dict[str, str]:
    """All definitions as YAML text, by file name."""
    return {
        f"{GROUP}_{definition.plural}.yaml": _HEADER
        + yaml.dump(definition_of(definition), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
        for definition in DEFINITIONS
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
