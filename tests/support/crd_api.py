"""Our resources on a real API server, by its own client: strict about unknown fields, and its refusals as text."""

import json
import random
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from kubernetes import client, config
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.crds import DEFINITIONS
from whimbrel_api.reverse_sync import Resolved

Json = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
MANIFESTS = Path(__file__).resolve().parents[1] / "cluster" / "manifests"
PLURALS = {definition.kind: definition.plural for definition in DEFINITIONS}
POSITION = 16384
_TEXTS = ("", "true", "null", "1", "é\n\u2028\U0001f426", "a: b", "x" * 300)
_NUMBERS: Mapping[type, Sequence[float]] = {
    bool: (True, False), int: (0, 1, 2**53 + 1, 2**63 - 1), float: (0.0, 0.1, 12.0, 1e-9, 1e300),
}  # fmt: skip


_POLARDB = {"host": "pc-xyz", "port": 1921, "database": "d", "credentialsSecretRef": {"name": "polardb"},
            "tls": {"mode": "Disabled", "caSecretRef": {"name": "ca", "key": "ca.crt"}}}  # fmt: skip
_DYNAMODB = {"region": "eu-west-1", "endpoint": "http://localhost:8000", "credentialsSecretRef": {"name": "aws"},
             "roleArn": "arn:aws:iam::123456789012:role/back", "tls": {"mode": "VerifyFull"}}  # fmt: skip
_OVERRIDE = {
    "name": "orders", "primaryKey": ["pk"], "renameTo": "app.orders", "columns": [{"name": "c", "type": "text"}],
    "filter": {"expression": "#s = :open", "names": {"#s": "state"}, "values": {":open": '{"S": "open"}'}},
}  # fmt: skip
_GIVEN: Mapping[type, Json] = {
    Resolved: {
        "source": {"polardb": _POLARDB},
        "target": {"dynamodb": _DYNAMODB},
        "tables": {"include": ["orders", "a*"], "exclude": ["é?"], "overrides": [_OVERRIDE]},
        "layout": {"documentColumn": "doc", "keyColumns": [{"name": "pk", "type": "Number"}], "tableRule": "a.{table}"},
        "guard": {"warnBytes": 1 << 21, "limitBytes": 1 << 62, "onLimit": "Report"},
        "onTruncate": "Skip",
    }
}
"""Parts of a status that a person has written in a spec, and so obey its bounds."""


def good(name: str) -> Json:
    """A good manifest by its file's name."""
    read: Json = yaml.safe_load((MANIFESTS / "good" / f"{name}.yaml").read_text())
    return read


def patched(value: Any, patch: Any) -> Any:
    """A JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = patched(merged.get(name), part)
    return merged


class Refused(Exception):
    """What the API server said no to, in its own words. `causes` are the fields that it names."""

    def __init__(self, error: client.ApiException) -> None:
        said = json.loads(error.body or "{}")
        super().__init__(said["message"])
        self.code = said["code"]
        self.causes = {cause.get("field", "") for cause in said.get("details", {}).get("causes", [])}


_connect: Callable[[str], client.ApiClient] = config.new_client_from_config


class Resources:
    """The resources of one namespace. `group` for definitions under another name."""

    def __init__(self, kubeconfig: Path, namespace: str, group: str = GROUP) -> None:
        self._api = client.CustomObjectsApi(_connect(str(kubeconfig)))
        self.namespace, self._group = namespace, group

    def create(self, manifest: Mapping[str, Any], **options: Any) -> Json:
        """Make it."""
        body = {**manifest, "apiVersion": f"{self._group}/{VERSION}"}
        return self._do("create_namespaced_custom_object", manifest["kind"], (), body, options)

    def replace(self, body: Json, **options: Any) -> Json:
        """Write it whole; the API server keeps the status."""
        return self._do("replace_namespaced_custom_object", body["kind"], (body["metadata"]["name"],), body, options)

    def write_status(self, body: Json, status: Any, **options: Any) -> Json:
        """Write the status alone, as the operator and the workers do."""
        method = "replace_namespaced_custom_object_status"
        whole = {key: value for key, value in body.items() if key != "status"} | ({"status": status} if status else {})
        return self._do(method, body["kind"], (body["metadata"]["name"],), whole, options)

    def get(self, kind: str, name: str) -> Json:
        """Read it."""
        found: Any = self._api.get_namespaced_custom_object(self._group, VERSION, self.namespace, PLURALS[kind], name)
        return dict(found)

    def _do(self, method: str, kind: str, name: tuple[str, ...], body: Any, options: Json) -> Json:
        place = (self._group, VERSION, self.namespace, PLURALS[kind], *name)
        try:
            done: Json = getattr(self._api, method)(*place, body, field_validation="Strict", **options)
        except client.ApiException as error:
            raise Refused(error) from None
        return done


class Filler:
    """Makes models with every field filled, at random but always the same by its seed.

    `nulls` is the share of fields that may be unknown and are. Texts are hostile, positions as long as may be, the
    types of conditions all different.
    """

    def __init__(self, seed: int, nulls: float = 0.0, items: int = 2) -> None:
        self._random, self._nulls, self._items, self._types = random.Random(seed), nulls, items, 0

    def model(self, kind: type[M]) -> M:
        """One model."""
        return kind.model_validate({name: self._field(name, field) for name, field in kind.model_fields.items()})

    def _field(self, name: str, field: FieldInfo) -> Any:
        most = next((each.max_length for each in field.metadata if hasattr(each, "max_length")), None)
        if name == "type":
            self._types += 1
            return f"Type{self._types}"
        if most == POSITION:
            return "f" * POSITION
        value = self._value(field.annotation, most)
        least = next((each.ge for each in field.metadata if hasattr(each, "ge")), None)
        return max(value, least) if least is not None and isinstance(value, int | float) else value

    def _value(self, kind: Any, most: int | None = None) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            if self._random.random() < self._nulls:
                return None
            return self._value(next(each for each in arguments if each is not type(None)), most)
        if origin is Annotated:
            return self._value(arguments[0], most)
        if origin is Literal:
            return self._random.choice(arguments)
        if origin in (list, dict):
            values = [self._value(arguments[-1]) for _ in range(min(self._items, most or self._items))]
            return values if origin is list else {f"k{number}": each for number, each in enumerate(values)}
        return self._plain(kind, most)

    def _plain(self, kind: Any, most: int | None) -> Any:
        chance = self._random
        if kind in _GIVEN:
            return kind.model_validate(_GIVEN[kind])
        if issubclass(kind, BaseModel):
            return self.model(kind)
        if issubclass(kind, Enum):
            return chance.choice(list(kind))
        if kind is datetime:
            return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(microseconds=chance.randrange(10**12))
        text = chance.choice(_TEXTS)[: most or POSITION]
        return chance.choice(_NUMBERS[kind]) if kind in _NUMBERS else text
