"""The few shapes that the agent's pure modules share: JSON objects, references to Secrets and ConfigMaps, times."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, order=True)
class Reference:
    """A Secret or ConfigMap of the pod's namespace; `resource` is `secrets` or `configmaps`."""

    resource: str
    name: str

    def __str__(self) -> str:
        return f'{"Secret" if self.resource == "secrets" else "ConfigMap"} "{self.name}"'


Lookup = Callable[[Reference], Json | None]
"""Gives the object that a reference names, or None where there is none."""


class NotYet(Exception):
    """Something a pod asks for is missing, and may come: the message says what (never a value)."""


class Unsupported(Exception):
    """Something a pod asks for is beyond this agent; the message says what."""


def data_of(found: Json) -> dict[str, bytes]:
    """Return the keys and contents of a Secret or a ConfigMap."""
    if found.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


def now() -> str:
    """Return the present time as Kubernetes writes it, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """Return the present time as Leases and newer fields have it, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
